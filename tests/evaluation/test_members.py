"""Contributions of members: brute force over orders, axioms of Shapley's value, planted members."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ensemble_kit.arrays import softmax
from ensemble_kit.cli import app
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.diversity.member_study import study_members
from ensemble_kit.evaluation.diversity.shapley import shapley
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.metrics import metric
from ensemble_kit.metrics.sufficient_statistics import sums_of
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.testing import toy_predictions, toy_run

QUICK = Protocol(n_resamples=200)


def with_member(table: Predictions, name: str, logits: np.ndarray) -> Predictions:
    return dataclasses.replace(
        table,
        logits=np.concatenate([table.logits, logits[:, None]], axis=1),
        member_names=(*table.member_names, name),
    )


def test_shapley_is_the_mean_gain_over_all_orders() -> None:
    worth = np.random.default_rng(0).normal(size=(16, 3))
    want = np.zeros((4, 3))
    for order in itertools.permutations(range(4)):
        subset = 0
        for m in order:
            want[m] += (worth[subset | 1 << m] - worth[subset]) / 24
            subset |= 1 << m
    np.testing.assert_allclose(shapley(worth, 4), want)


@pytest.mark.parametrize("name", ["balanced_accuracy", "log_loss", "auroc"])
def test_values_are_those_of_the_means_and_shapley_values_sum_to_the_gain(name: str) -> None:
    table = toy_predictions(120, 3, 3, n_groups=24)
    found = study_members(table, Protocol(metric=name, n_resamples=50))
    proba, labels = softmax(table.logits.astype(np.float64)), np.asarray(table.labels)
    one = metric(name)
    sign = 1.0 if one.higher_is_better else -1.0

    def value(p: np.ndarray) -> float:
        return float(one.of_sums(sums_of(labels, p)) if one.of_sums else one.of_table(labels, p))

    whole = value(proba.mean(axis=1))
    assert found.whole.value == pytest.approx(whole)
    for m, row in enumerate(found.members.to_dict("records")):
        assert row["alone"] == pytest.approx(value(proba[:, m]))
        rest = value(np.delete(proba, m, axis=1).mean(axis=1))
        assert row["left_out"] == pytest.approx(sign * (whole - rest))
        assert row["left_out_low"] <= row["left_out"] <= row["left_out_high"]
        best = table.member_names.index(found.best)
        pair = value(proba[:, [best, m]].mean(axis=1)) if m != best else value(proba[:, best])
        assert row["added"] == pytest.approx(sign * (pair - value(proba[:, best])))
    shares = np.bincount(labels) / len(labels)
    chance = {
        "balanced_accuracy": 1 / 3,
        "auroc": 0.5,
        "log_loss": -(shares @ np.log(shares)),
    }
    assert found.members["shapley"].sum() == pytest.approx(sign * (whole - chance[name]))


def test_a_noise_member_harms_and_a_copy_is_not_shown_to_help() -> None:
    table = toy_predictions(400, 3, 3, n_groups=80)
    noise = 8 * np.random.default_rng(1).normal(size=(400, 3)).astype(np.float32)
    assert study_members(with_member(table, "noise", noise), QUICK).sentence.startswith(
        "noise makes the mean worse"
    )
    same = table.select(table.member_names[:1])
    twice = study_members(with_member(same, "copy", same.logits[:, 0]), QUICK)
    assert "not shown to help" in twice.sentence
    assert twice.members["left_out"].tolist() == [0.0, 0.0]
    assert twice.pairs["error_correlation"].tolist() == pytest.approx([1.0])


def test_pairs_are_the_hand_worked_ones() -> None:
    # Right: a 1100, b 1010 of four images.
    labels = np.zeros(4, dtype=int)
    sure = {1: [5.0, 0.0], 0: [0.0, 5.0]}
    logits = {"a": [sure[r] for r in (1, 1, 0, 0)], "b": [sure[r] for r in (1, 0, 1, 0)]}
    (pair,) = study_members(
        Predictions.from_arrays(logits, labels), Protocol(metric="accuracy", n_resamples=20)
    ).pairs.to_dict("records")
    assert (pair["disagreement"], pair["double_fault"]) == (0.5, 0.25)
    assert (pair["q_statistic"], pair["error_correlation"]) == (0.0, 0.0)
    assert (pair["kappa"], pair["mean_error"]) == (0.0, 0.5)


def test_more_than_twelve_members_have_all_values_except_shapley() -> None:
    found = study_members(toy_predictions(60, 13, 2), Protocol(n_resamples=20)).members
    assert found["shapley"].isna().all()
    assert found.loc[found["left_out"] != 0, "left_out_low"].notna().all()


def test_one_member_is_refused() -> None:
    with pytest.raises(DataError, match="1 member"):
        study_members(toy_predictions(60, 1, 2), QUICK)


def test_the_command_prints_and_writes_the_same_values(tmp_path) -> None:
    run = toy_run(tmp_path / "toy")
    argv = ["diversity", "--run", str(run.path), "--resamples", "100"]
    printed = CliRunner().invoke(app, argv, catch_exceptions=False).output
    assert "Brier score" in printed
    assert "for 4 members, over 32 patients, out-of-fold)" in printed
    assert max(map(len, printed.split("\n\n")[1].splitlines()[:-2])) <= 120
    folder = run.path / "diversity"
    assert len(pd.read_csv(folder / "pairs.csv")) == 6
    assert (folder / "kappa-error.png").read_bytes()[:4] == b"\x89PNG"
    found = json.loads(CliRunner().invoke(app, [*argv, "--json"], catch_exceptions=False).output)
    assert found == json.loads((folder / "diversity.json").read_text())
    stored = pd.read_csv(folder / "members.csv")
    assert stored["shapley"].tolist() == pytest.approx([m["shapley"] for m in found["members"]])
    assert [m["member"] for m in found["members"]] == list(run.store.members())


def test_without_resamples_the_sentence_has_no_interval(tmp_path) -> None:
    run = toy_run(tmp_path / "toy")
    argv = ["diversity", "--run", str(run.path), "--resamples", "0"]
    printed = CliRunner().invoke(app, argv, catch_exceptions=False).output
    assert "no interval" in printed
    assert "nan" not in printed.lower()


def test_a_metric_that_should_be_near_one_has_no_gains() -> None:
    with pytest.raises(UsageError, match="calibration_slope"):
        study_members(toy_predictions(60, 2, 2), Protocol(metric="calibration_slope"))
