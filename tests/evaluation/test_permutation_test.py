"""The permutation test: combiners are at chance, and one that leaks is found."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble_kit.arrays import softmax
from ensemble_kit.cli import app
from ensemble_kit.combiners import COMBINERS, combiner_class, make_combiner
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import UsageError
from ensemble_kit.evaluation.permutation_test import (
    PermutationTest,
    PermutedMetrics,
    permutation_test,
    with_noise_members,
    with_permuted_labels,
)
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.tables.permutation_test import permutation_rows
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.testing import toy_predictions, toy_run

pytestmark = pytest.mark.slow


class Leaky(Combiner):
    """Leaks: fitted to some rows, it stores the labels of all rows."""

    is_fitted_to_labels = True

    def fit_many(self, logits, labels, groups, row_sets):
        known = dict(zip((row.tobytes() for row in np.asarray(logits)), labels, strict=True))
        made = super().fit_many(logits, labels, groups, row_sets)
        for one in made:
            one.known_ = known
        return made

    def _combine(self, logits) -> Combined:
        proba = softmax(logits[:, 0].astype(np.float64))
        for i, row in enumerate(logits):
            proba[i] = np.eye(logits.shape[2])[self.known_[row.tobytes()]] * 0.98 + 0.01
        return decided(proba / proba.sum(axis=1, keepdims=True))


METHODS = ("vote", "mean", "simplex", "greedy", "logistic")


@pytest.mark.parametrize("metric", ["balanced_accuracy", "auroc", "log_loss"])
def test_combiners_are_at_chance_without_information(metric: str) -> None:
    table = toy_predictions(180, 3, 3, n_groups=60)
    methods = {name: make_combiner(name) for name in METHODS}
    found = permutation_test(methods, table, protocol=Protocol(metric=metric))
    assert found.above_chance == {}
    assert {one.p_value for one in found.methods.values()} == {0.05}
    assert found.sentence.startswith("all 5 methods are at chance")
    if metric == "balanced_accuracy":
        for one in found.methods.values():
            assert one.permuted.mean() == pytest.approx(1 / 3, abs=0.06)
            assert one.noise.mean() == pytest.approx(1 / 3, abs=0.06)


def test_a_leaking_combiner_is_detected_on_permuted_labels_and_noise() -> None:
    methods = {"leaky": Leaky(), "mean": make_combiner("mean")}
    found = permutation_test(methods, toy_predictions(120, 3, 3, n_groups=24), n_draws=9)
    assert found.above_chance == {"leaky": ["labels permuted", "members of noise"]}
    assert "leaky" in found.sentence
    assert found.methods["leaky"].p_value == 1.0


def test_noise_members_have_no_small_p_value() -> None:
    table = with_noise_members(toy_predictions(180, 3, 3, n_groups=60), np.random.default_rng(0))
    found = permutation_test({"mean": make_combiner("mean")}, table, n_draws=19)
    assert found.methods["mean"].p_value > 0.05


def test_a_groups_label_stays_with_the_whole_group() -> None:
    table = toy_predictions(120, 2, 2, n_groups=24)
    labels = (np.arange(120) // 5) % 2
    table = dataclasses.replace(table, labels=labels)
    permuted = with_permuted_labels(table, np.random.default_rng(0))
    per_group = [np.unique(permuted.labels[table.groups == g]) for g in np.unique(table.groups)]
    assert all(len(found) == 1 for found in per_group)
    assert np.bincount(np.concatenate(per_group)).tolist() == [12, 12]
    assert (permuted.labels != table.labels).any()
    np.testing.assert_array_equal(permuted.logits, table.logits)


def test_groups_of_several_labels_keep_their_blocks_and_all_labels() -> None:
    table = toy_predictions(120, 2, 3, n_groups=24)
    permuted = with_permuted_labels(table, np.random.default_rng(0))
    assert np.bincount(permuted.labels).tolist() == np.bincount(table.labels).tolist()

    def blocks(one) -> list[tuple[int, ...]]:
        return sorted(tuple(one.labels[one.groups == g]) for g in np.unique(one.groups))

    assert blocks(permuted) == blocks(table)
    assert (permuted.labels != table.labels).any()


def test_a_member_of_noise_has_the_members_own_rows_in_another_order() -> None:
    table = toy_predictions(60, 2, 3)
    noise = with_noise_members(table, np.random.default_rng(0))
    for m in range(2):
        np.testing.assert_array_equal(
            np.sort(noise.logits[:, m], axis=0), np.sort(table.logits[:, m], axis=0)
        )
    first = [row.tolist() for row in table.logits[:, 0]]
    moved = [first.index(row.tolist()) for row in noise.logits[:, 0]]
    second = [row.tolist() for row in table.logits[:, 1]]
    assert moved != [second.index(row.tolist()) for row in noise.logits[:, 1]]


def test_combiners_on_features_are_at_chance_on_noise_features() -> None:
    table = toy_predictions(120, 2, 3, n_groups=60, n_features=4)
    blind = dataclasses.replace(table, logits=np.zeros_like(table.logits))
    noise = with_noise_members(blind, np.random.default_rng(0))
    np.testing.assert_array_equal(noise.features.spaces, table.features.spaces)
    assert abs(np.corrcoef(noise.features.values[0].ravel(), table.features.values[0].ravel())[0, 1]) < 0.2  # fmt: skip
    name = next(k for k in COMBINERS if combiner_class(k).needs_features)
    found = permutation_test({name: make_combiner(name)}, blind, n_draws=3)
    assert found.methods[name].value > 0.5
    assert found.methods[name].noise.mean() < 0.5


def test_a_check_without_draws_is_refused() -> None:
    with pytest.raises(UsageError, match=r"draws.*0"):
        permutation_test({"mean": make_combiner("mean")}, toy_predictions(), n_draws=0)


def test_one_draw_cannot_be_tested() -> None:
    methods = {"mean": make_combiner("mean")}
    found = permutation_test(methods, toy_predictions(120, 3, 3, n_groups=24), n_draws=1)
    assert (found.untested, found.above_chance) == (["mean"], {})
    assert "19 draws" in found.sentence
    assert "at chance" not in found.sentence
    assert permutation_rows(found)[1][-1] == "not tested"


def test_a_leak_is_found_although_some_draws_have_no_value() -> None:
    gains = np.array([np.nan, 0.4, 0.5, 0.45, 0.5])
    one = PermutedMetrics(0.9, gains, gains, gains, gains, True)
    found = PermutationTest({"leaky": one}, "auroc", 5, "labels permuted")
    assert found.above_chance == {"leaky": ["labels permuted", "members of noise"]}
    undefined = dataclasses.replace(one, noise_gain=np.full(5, np.nan))
    assert PermutationTest({"odd": undefined}, "auroc", 5, "").untested == ["odd"]


def test_expected_cost_can_be_permutation_tested(tmp_path) -> None:
    run, costs = toy_run(tmp_path / "toy"), tmp_path / "costs.csv"
    costs.write_text("true,class0,class1,class2\nclass0,0,1,1\nclass1,1,0,1\nclass2,9,4,0\n")
    argv = ["stack", "--run", str(run.path), "--method", "vote", "--resamples", "20", "--costs",
            str(costs), "--metric", "expected_cost", "--permutation-test", "3", "--pareto"]  # fmt: skip
    for name in run.store.members():
        folder = run.member_dir(name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "member.json").write_text('{"gmacs": 1.0}')
    printed = json.loads(CliRunner().invoke(app, [*argv, "--json"], catch_exceptions=False).output)
    found = printed["permutation_test"]
    mean = printed["methods"]["mean"]["cross_fitted"]["expected_cost"]["value"]
    assert found["metric"] == "expected_cost"
    assert found["methods"]["mean"]["value"] == pytest.approx(mean)
    assert min(found["methods"]["mean"]["permuted_labels"]) > mean
    front = [row["value"] for row in printed["pareto"] if row["on_front"]]
    assert front == sorted(front, reverse=True)


def test_stack_prints_a_line_per_method_and_stores_the_draws(tmp_path) -> None:
    run = toy_run(tmp_path / "toy")
    argv = ["stack", "--run", str(run.path), "--method", "vote", "--resamples", "20"]
    printed = (
        CliRunner().invoke(app, [*argv, "--permutation-test", "4"], catch_exceptions=False).output
    )
    assert "of 4 draws" in printed
    assert "all 3 methods are at chance" in printed
    assert [
        line for line in printed.splitlines() if line.startswith("vote") and "at chance" in line
    ]
    stored = json.loads((run.path / "ensembles" / "permutation-test.json").read_text())
    assert {k: len(v["permuted_labels"]) for k, v in stored["methods"].items()} == {
        "best-member": 4, "mean": 4, "vote": 4,
    }  # fmt: skip
    usual = CliRunner().invoke(app, [*argv, "--permutation-test", "--json"], catch_exceptions=False)
    assert json.loads(usual.output)["permutation_test"]["n_draws"] == 19
    plain = CliRunner().invoke(app, [*argv, "--json"], catch_exceptions=False)
    assert json.loads(plain.output)["permutation_test"] is None
