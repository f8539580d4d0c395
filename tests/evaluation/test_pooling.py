"""One answer a patient by a fitted rule: what it counts, what it may see, and when it stands back."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from ensemble_kit.cli import app
from ensemble_kit.combiners.base import decided
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.errors import UsageError
from ensemble_kit.evaluation.evaluate import evaluate
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.ensemble_files import metrics_json
from ensemble_kit.evaluation.scores.fitted_pooling import (
    SHARES,
    _logistic,
    cross_fitted_pooling,
    fit_pooling,
    pooled_scores,
)
from ensemble_kit.evaluation.scores.group_pooling import FELL_BACK, fitted_group_answers
from ensemble_kit.evaluation.scores.per_group import pooled
from ensemble_kit.metrics.costs import CostMatrix
from ensemble_kit.metrics.proper_scores import log_loss_per_sample
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.testing import toy_run


def foci(n_groups: int = 60, per_group: int = 40, share: float = 0.1, seed: int = 0) -> Predictions:
    """A tenth of the images of a malignant patient look malignant; all others look benign."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), per_group)
    labels = np.arange(n_groups) % 2
    seen = (rng.random(len(groups)) < share) & (labels[groups] == 1)
    logit = rng.normal(size=len(groups)) - 2 + 5 * seen
    logits = np.stack([np.zeros(len(groups)), logit], axis=1)
    return Predictions.from_arrays(
        {"a": logits}, labels[groups], groups=[f"p{g:03d}" for g in groups], fold=groups // 2 % 4
    )


def parts_of(table: Predictions):
    proba = MeanProba().fit(table.logits, table.labels).predict_proba(table.logits)
    names, first, numbered = np.unique(table.groups, return_index=True, return_inverse=True)
    return proba, np.asarray(table.labels)[first], numbered, table.fold[first], names


def test_scores_are_the_mean_of_each_patients_highest() -> None:
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(3), 50)
    groups = rng.permutation(np.repeat(np.arange(7), [1, 2, 3, 4, 10, 10, 20]))
    for share in SHARES:
        slow = [
            [
                np.sort(np.log(proba[groups == g, c]))[::-1][: int(np.ceil(share * (groups == g).sum()))].mean()
                for c in range(3)
            ]
            for g in range(7)
        ]  # fmt: skip
        np.testing.assert_allclose(pooled_scores(proba, groups, share), slow)


def test_scale_and_offset_are_those_of_a_penalised_logistic_regression() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 80)
    scores = np.log(rng.dirichlet(np.ones(2), 80)) + np.eye(2)[labels] - [0.0, 1.0]
    scale, offsets = _logistic(scores, labels)
    # The same objective, by brute force around the answer.

    def loss(s: float, b: np.ndarray) -> float:
        z = s * scores + b
        z = z - z.max(axis=1, keepdims=True)
        proba = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        return float(log_loss_per_sample(labels, proba).sum() + 0.5 * ((s - 1) ** 2 + (b**2).sum()))

    best = loss(scale, offsets)
    for _ in range(200):
        move = rng.normal(size=3) * 0.05
        assert loss(scale + move[0], offsets + move[1:]) >= best - 1e-9
    # A two-class softmax of both scores is a logistic regression on their difference.
    plain = LogisticRegression(C=1e6).fit((scores[:, 1] - scores[:, 0])[:, None], labels)
    assert np.sign(plain.intercept_[0]) == np.sign(offsets[1] - offsets[0])


def test_foci_are_found_by_the_clearest_images_where_the_mean_drowns_them() -> None:
    table = foci()
    proba, truth, numbered, fold, _ = parts_of(table)
    assert fit_pooling(proba, truth, numbered).share <= 0.25
    ours = cross_fitted_pooling(proba, truth, numbered, fold)
    mean = pooled(decided(proba), np.asarray(table.labels), table.groups)[0]
    assert (ours.predicted == truth).mean() > 0.9
    assert (mean.predicted == truth).mean() < 0.6
    found = evaluate(MeanProba(), table, protocol=Protocol(n_resamples=100, pool="fitted"))
    figures = found.per_group["cross_fitted"]
    assert figures.figures["accuracy"].value > 0.9
    assert figures.rule.startswith("fitted: top")
    stored = metrics_json(found, table)["cross_fitted"]["per_group"]
    assert set(stored["fitted"]) == {"share", "scale", "offsets"}


def test_answers_to_a_fold_do_not_know_its_labels() -> None:
    table = foci(40)
    proba, truth, numbered, fold, _ = parts_of(table)
    before = cross_fitted_pooling(proba, truth, numbered, fold).proba
    turned = np.where(fold == 1, 1 - truth, truth)
    after = cross_fitted_pooling(proba, turned, numbered, fold).proba
    np.testing.assert_array_equal(before[fold == 1], after[fold == 1])
    assert np.abs(before[fold != 1] - after[fold != 1]).max() > 0.01


def test_under_permuted_labels_the_rule_is_at_chance_and_no_worse_than_knowing_nothing() -> None:
    rng, areas, losses = np.random.default_rng(2), [], []
    table = foci(40)
    proba, truth, numbered, fold, _ = parts_of(table)
    for _ in range(30):
        mixed = truth.copy()
        for k in np.unique(fold):  # else a fold rich in a class leaves the others poor in it
            mixed[fold == k] = rng.permutation(truth[fold == k])
        answer = cross_fitted_pooling(proba, mixed, numbered, fold).proba
        areas.append(roc_auc_score(mixed, answer[:, 1]))
        losses.append(log_loss_per_sample(mixed, answer).mean())
    assert abs(np.mean(areas) - 0.5) < 0.08
    assert np.mean(losses) < np.log(2) + 0.08


def test_where_the_rule_is_no_better_the_mean_stands_and_is_named() -> None:
    rng = np.random.default_rng(3)
    n_groups, per_group = 24, 6
    groups = np.repeat(np.arange(n_groups), per_group)
    truth = (np.arange(n_groups) // 3) % 2
    p = np.full(len(groups), 0.5) + 0.001 * rng.normal(size=len(groups))
    table = Predictions.from_arrays(
        {"a": np.log(np.stack([1 - p, p], axis=1))}, truth[groups],
        groups=[f"p{g:02d}" for g in groups], fold=groups % 3,
    )  # fmt: skip
    combined = decided(parts_of(table)[0])
    found = fitted_group_answers({"cross_fitted": {"m": combined}}, {}, table, None)
    mean = pooled(combined, np.asarray(table.labels), table.groups)[0]
    one = found["cross_fitted"]["m"]
    assert one.rule == FELL_BACK
    assert one.fitted is None
    assert log_loss_per_sample(truth, one.combined.proba).mean() <= (
        log_loss_per_sample(truth, mean.proba).mean() + 0.05
    )


def test_test_answers_come_from_the_rule_of_all_out_of_fold_patients() -> None:
    table, other = foci(40), foci(20, seed=5)
    proba, truth, numbered, _, _ = parts_of(table)
    new = parts_of(other)[0]
    test = dataclasses.replace(other, kind="test", fold=np.full(len(other), -1))
    found = fitted_group_answers(
        {"cross_fitted": {"m": decided(proba)}}, {"m": decided(new)}, table, test
    )
    want = fit_pooling(proba, truth, numbered).apply(new, parts_of(other)[2])
    np.testing.assert_allclose(found["test"]["m"].combined.proba, want.proba)


def output(call: list[str]) -> str:
    """What the command writes to standard output."""
    found = CliRunner().invoke(app, call, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_stack_takes_the_rule_and_costs(tmp_path) -> None:
    run = toy_run(tmp_path / "toy", n_classes=2)
    costs = tmp_path / "costs.csv"
    costs.write_text("true,class0,class1\nclass0,0,1\nclass1,5,0\n")
    asked = ["stack", "--run", str(run.path), "--method", "vote", "--resamples", "50", "--json"]
    call = [*asked, "--set", "pool=max", "--costs", str(costs), "--set", "decide_by_cost=true"]
    plain = json.loads(output(asked))
    answer = json.loads(output(call))
    one, before = answer["methods"]["mean"], plain["methods"]["mean"]
    assert one["costs"]["class1"]["class0"] == 5
    assert one["test"]["expected_cost"]["value"] is not None
    assert one["test"]["log_loss"]["value"] == before["test"]["log_loss"]["value"]
    assert any("least expected cost" in note for note in answer["notes"])


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(UsageError, match="Did you mean 'fitted'"):
        Protocol(pool="fited")


def test_patients_are_decided_by_cost_where_images_are() -> None:
    table = foci(40)
    costs = CostMatrix(("0", "1"), ((0, 1), (20, 0)))
    matrix = np.array(costs.rows)
    proba, truth, _, _, _ = parts_of(table)
    mean = pooled(decided(proba), np.asarray(table.labels), table.groups)[0].proba
    for by_cost in (False, True):
        asked = Protocol(n_resamples=50, costs=costs, decide_by_cost=by_cost)
        found = evaluate(MeanProba(), table, protocol=asked).per_group["cross_fitted"].figures
        answer = (mean @ matrix).argmin(axis=1) if by_cost else mean.argmax(axis=1)
        assert found["accuracy"].value == pytest.approx((answer == truth).mean())
        assert found["expected_cost"].value == pytest.approx(matrix[truth, answer].mean())
