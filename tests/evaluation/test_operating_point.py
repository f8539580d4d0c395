"""Decision and referral thresholds: chosen out-of-fold, and evaluated by counting."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import ensemble_kit as ek
from ensemble_kit.arrays import softmax
from ensemble_kit.checked import write_checked
from ensemble_kit.cli import app
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.decisions.threshold_rules import (
    Decisions,
    Rule,
    Threshold,
    choose,
    cross_fitted,
    decide,
    decision_metrics,
)
from ensemble_kit.evaluation.decisions.thresholds import (
    RejectOption,
    ThresholdTarget,
    choose_cut,
    choose_threshold,
)
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.operating_point import (
    DecisionOptions,
    operating_point,
)
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.evaluation.scores.per_group import per_group
from ensemble_kit.evaluation.uncertainty.shares import shares
from ensemble_kit.files import digest_file
from ensemble_kit.inference.stored_decisions import read_decision
from ensemble_kit.predictions.method_predictions import MethodPredictions, decided
from ensemble_kit.testing import toy_logits, toy_predictions, toy_run

TARGETS = ["sensitivity=.9", "sensitivity=1", "specificity=.8", "youden", "cost=5:1", "cost=1:3"]


def slow_threshold(
    positive: np.ndarray, scores: np.ndarray, threshold_target: ThresholdTarget
) -> float:
    """The best threshold, by counting at every candidate."""
    best, best_key = np.inf, None
    for t in [np.inf, *sorted(set(scores.tolist()), reverse=True)]:
        called = scores >= t
        found = (called & positive).sum() / positive.sum()
        cleared = (~called & ~positive).sum() / (~positive).sum()
        misses, alarms = (~called & positive).sum(), (called & ~positive).sum()
        key = {
            "sensitivity": (found >= threshold_target.value, cleared),
            "specificity": (cleared >= threshold_target.value, found),
            "youden": (True, round(found + cleared, 10)),
            "cost": (
                True,
                -(threshold_target.miss_cost * misses + threshold_target.alarm_cost * alarms),
            ),
        }[threshold_target.kind]
        if threshold_target.kind == "sensitivity":
            better = (
                best_key is None or key > best_key
            )  # ties: the higher threshold, which comes first
        else:
            better = best_key is None or key >= best_key  # ties: the lower threshold
        if better:
            best, best_key = t, key
    return float(best)


@pytest.mark.parametrize("text", TARGETS)
def test_thresholds_are_those_of_counting_at_every_candidate(text: str) -> None:
    rng, threshold_target = np.random.default_rng(0), ThresholdTarget.parsed(text)
    for _ in range(50):
        positive = rng.random(30) < rng.uniform(0.2, 0.8)
        positive[:2] = True, False
        scores = np.round(rng.random(30) * 0.7 + 0.3 * positive, 1)
        assert choose_threshold(positive, scores, threshold_target) == slow_threshold(
            positive, scores, threshold_target
        )


def test_rejection_by_share_refers_the_least_certain_up_to_the_share() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        certainty = np.round(rng.random(40), 1)
        cut = choose_cut(np.ones(40, dtype=bool), certainty, RejectOption(share=0.25))
        assert (certainty < cut).mean() <= 0.25
        above = [c for c in set(certainty.tolist()) if c > cut]
        assert not above or (certainty < min(above)).mean() > 0.25


def test_rejection_by_error_decides_as_much_as_the_limit_allows() -> None:
    rng = np.random.default_rng(2)
    for _ in range(50):
        certainty = np.round(rng.random(40), 1)
        right = rng.random(40) < 0.5 + 0.5 * certainty
        cut = choose_cut(right, certainty, RejectOption(max_error=0.2))
        fine = [
            c for c in set(certainty.tolist()) if 1 - right[certainty >= c].mean() <= 0.2 + 1e-9
        ]
        assert cut == (min(fine) if fine else np.inf)


def two_classes(n_groups: int = 30, seed: int = 0):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), 4)
    labels = (groups % 2).astype(np.int64)
    p = 1 / (1 + np.exp(-(1.5 * (2 * labels - 1) + rng.normal(size=len(labels)))))
    return decided(np.stack([1 - p, p], axis=1)), labels, groups


RULES = [
    Rule(1, ThresholdTarget("sensitivity", 0.95)),
    Rule(1, ThresholdTarget("youden"), RejectOption(share=0.2)),
    Rule(reject_option=RejectOption(max_error=0.05)),
]


@pytest.mark.parametrize("rule", RULES)
def test_a_fold_is_decided_by_the_threshold_of_the_others(rule: Rule) -> None:
    combined, labels, groups = two_classes()
    fold = groups % 3
    made, points = cross_fitted(rule, combined, labels, fold)
    for k in range(3):
        point = choose(rule, combined.take(fold != k), labels[fold != k])
        slow = decide(rule, point, combined.take(fold == k), labels[fold == k])
        assert points[k] == point
        np.testing.assert_array_equal(made.called[fold == k], slow.called)
        np.testing.assert_array_equal(made.referred[fold == k], slow.referred)
    turned = np.where(fold == 0, 1 - labels, labels)
    again, others = cross_fitted(rule, combined, turned, fold)
    assert others[0] == points[0]
    np.testing.assert_array_equal(again.referred[fold == 0], made.referred[fold == 0])


def test_cross_fitted_sensitivity_is_below_the_one_chosen_for_in_sample() -> None:
    found = []
    rule = Rule(1, ThresholdTarget("sensitivity", 0.95))
    for seed in range(60):
        combined, labels, groups = two_classes(12, seed)
        point = choose(rule, combined, labels)
        inside = decide(rule, point, combined, labels)
        crossed = cross_fitted(rule, combined, labels, groups % 3)[0]
        found.append([one.called[labels == 1].mean() for one in (inside, crossed)])
    inside, crossed = np.mean(found, axis=0)
    assert inside >= 0.95
    assert crossed < inside - 0.01


def test_near_the_threshold_is_least_certain() -> None:
    combined = decided(np.array([[0.95, 0.05], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9]]))
    labels = np.array([0, 1, 1, 1])
    rule = Rule(1, ThresholdTarget("sensitivity", 1.0), RejectOption(share=0.25))
    made = decide(rule, choose(rule, combined, labels), combined, labels)
    assert made.referred.tolist() == [False, True, False, False]


def test_abstentions_are_referred() -> None:
    combined = dataclasses.replace(
        decided(np.array([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])), predicted=np.array([0, -1, 1])
    )
    labels = np.array([0, 1, 1])
    rule = Rule(reject_option=RejectOption(max_error=0.0))
    made = decide(rule, choose(rule, combined, labels), combined, labels)
    assert made.referred.tolist() == [False, True, False]


def test_a_referred_image_counts_as_not_found_among_all() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1])
    proba = np.array([0.1, 0.2, 0.45, 0.4, 0.55, 0.7, 0.8, 0.9])
    rule = Rule(
        target=1,
        threshold_target=ThresholdTarget("sensitivity", 0.5),
        reject_option=RejectOption(share=0.25),
    )
    made = decide(rule, Threshold(0.5, 0.5), decided(np.stack([1 - proba, proba], axis=1)), labels)
    found = decision_metrics(
        made, labels, np.arange(8), ("benign", "malignant"), has_target=True, intervals=False
    )
    is_decided = ~made.referred
    assert 0 < is_decided.sum() < 8
    n_found = int((is_decided & (labels == 1) & (proba >= 0.5)).sum())
    assert found.shares["sensitivity of all"].value == n_found / 5
    assert found.shares["sensitivity"].value == n_found / int((is_decided & (labels == 1)).sum())


def test_shares_have_the_interval_of_the_same_metric() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(12), rng.integers(1, 6, 12))
    labels = groups % 2
    right = rng.random(len(groups)) < 0.6
    ones = np.ones(len(groups))
    found = shares({"x": (right, ones)}, labels, groups, 2)["x"]
    proba = np.eye(2)[np.where(right, labels, 1 - labels)]
    want = ek.metric_interval(labels, proba, groups, metric="accuracy")
    assert (found.value, found.low, found.high) == pytest.approx((want.value, want.low, want.high))


def test_a_share_of_1_has_an_interval() -> None:
    everything = np.ones(20)
    found = shares({"x": (everything, everything)}, np.zeros(20, dtype=int), np.arange(20) // 4, 2)[
        "x"
    ]
    assert (found.value, found.high) == (1.0, 1.0)
    t = 2.5706  # of 5 groups: 5 of 5 groups, not of 20 rows
    assert found.low == pytest.approx(5 / (5 + t**2), abs=1e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    made = toy_run(tmp_path_factory.mktemp("points") / "toy", n_classes=2)
    stack_run(made, ["mean"], protocol=Protocol(n_resamples=50))
    return made


def call(*args: str):
    return CliRunner().invoke(app, ["operating-point", *args], catch_exceptions=False)


def test_thresholds_do_not_depend_on_test_labels(run, tmp_path) -> None:
    requested = DecisionOptions(
        ThresholdTarget("sensitivity", 0.9), None, RejectOption(share=0.1), n_resamples=50
    )
    before = operating_point(run, "mean", requested, write=False)
    copy = type(run)(shutil.copytree(run.path, tmp_path / "turned"))
    manifest = pd.read_csv(copy.path / "manifest.csv", dtype=str)
    turn = {"class0": "class1", "class1": "class0"}
    in_test = manifest["split"] == "test"
    manifest.loc[in_test, "label"] = manifest.loc[in_test, "label"].map(turn)
    _rewrite(copy, manifest, turn)
    after = operating_point(copy, "mean", requested, write=False)
    assert before.units["image"].point == after.units["image"].point
    assert before.units["image"].by_fold == after.units["image"].by_fold
    for part in ("in_sample", "cross_fitted"):
        assert before.units["image"].parts[part] == after.units["image"].parts[part]
    assert before.units["image"].parts["test"] != after.units["image"].parts["test"]


def _rewrite(run, manifest: pd.DataFrame, turn: dict[str, str]) -> None:
    """The same run over a manifest whose test labels are other ones."""
    from ensemble_kit.manifest.table import Manifest

    manifest.to_csv(run.path / "manifest.csv", index=False, lineterminator="\n")
    about = json.loads((run.path / "run.json").read_text())
    old = about["digests"]["manifest"]
    new = Manifest.read(run.path / "manifest.csv", **about["manifest"]).digest
    for path in (run.path / "run.json", *(run.path / "predictions").glob("*/index.json")):
        write_checked(path, json.loads(path.read_text().replace(old, new)))
    path = run.ensemble_dir("mean") / "predictions.csv"
    frame = pd.read_csv(path)
    in_test = frame["split"] == "test"
    frame.loc[in_test, "label"] = frame.loc[in_test, "label"].map(turn)
    frame.to_csv(path, index=False)
    metrics = json.loads((path.parent / "metrics.json").read_text().replace(old, new))
    metrics["files"]["predictions.csv"] = digest_file(path)
    write_checked(path.parent / "metrics.json", metrics)


def test_the_command_prints_the_values_of_decision_json(run) -> None:
    printed = call("--run", str(run.path), "--at", "sensitivity=95%", "--resamples", "100").output
    stored = json.loads((run.ensemble_dir("mean") / "decision.json").read_text())
    image = stored["units"]["image"]
    assert (
        f"'class1' if the probability of 'class1' is at least {image['threshold']:.3f}" in printed
    )
    assert "'class1' against the rest, sensitivity of at least 0.95" in printed
    assert image["in_sample"]["shares"]["sensitivity"]["value"] >= 0.95
    frame = pd.read_csv(run.ensemble_dir("mean") / "predictions.csv").query("split == 'test'")
    called, positive = frame["p_class1"] >= image["threshold"], frame["label"] == "class1"
    assert image["test"]["true_positive"] == int((called & positive).sum())
    assert image["test"]["shares"]["npv"]["value"] == pytest.approx((~positive)[~called].mean())
    assert set(image["by_fold"]) == {"0", "1", "2", "3"}


def test_the_printed_range_is_referred_and_the_class_is_called_above_it(run) -> None:
    args = ("--run", str(run.path), "--at", "youden", "--refer", "10%", "--resamples", "0")
    printed = next(line for line in call(*args).output.splitlines() if line.startswith("Per image"))
    low, high = map(float, re.findall(r"between (0\.\d+) and (0\.\d+)", printed)[0])
    stored = json.loads((run.ensemble_dir("mean") / "decision.json").read_text())["units"]["image"]
    point = Threshold(stored["threshold"], stored["refer_below"])
    p = np.array([low - 0.002, low + 0.002, high - 0.002, high + 0.002])
    made = decide(Rule(1), point, decided(np.stack([1 - p, p], axis=1)), np.zeros(4, dtype=int))
    assert made.referred.tolist() == [False, True, True, False]
    assert made.called[[0, 3]].tolist() == [0, 1]


def test_a_second_call_names_the_dropped_rule_and_the_command_that_restores_it(tmp_path) -> None:
    run = toy_run(tmp_path / "toy", n_classes=2)
    stack_run(run, ["mean"], protocol=Protocol(n_resamples=50))
    args = ("--run", str(run.path), "--resamples", "0")
    assert "Replaced" not in call(*args, "--at", "sensitivity=.9", "--class", "class1").output
    printed = call(*args, "--refer", "10%").output
    assert "the threshold for 'class1'" in printed
    again = shlex.split(next(li for li in printed.splitlines() if "--at" in li).partition(": ")[2])
    assert again[:2] == ["ensemble-kit", "operating-point"]
    assert "Replaced" not in call(*again[2:]).output
    stored = json.loads((run.ensemble_dir("mean") / "decision.json").read_text())
    assert (stored["class"], stored["aim"]["value"]) == ("class1", 0.9)
    assert stored["referral"]["share"] == 0.1
    assert "the rule for referral" in call(*args, "--at", "youden", "--class", "class1").output
    options = DecisionOptions(ThresholdTarget("youden"), "class0")
    assert operating_point(run, "mean", options).dropped
    assert not operating_point(run, "mean", options).dropped


def test_a_threshold_that_calls_everything_one_class_is_a_caveat_that_predict_repeats(
    tmp_path,
) -> None:
    run = toy_run(tmp_path / "toy", n_classes=2)
    for name in run.store.members():  # all test images are far on the side of class1
        one = run.store.read(name)
        test = {k: z + np.array([0.0, 50.0]) for k, z in one.test.items()}
        run.store.write(name, dataclasses.replace(one, test=test))
    stack_run(run, ["mean"], protocol=Protocol(n_resamples=50))
    found = operating_point(run, "mean", DecisionOptions(ThresholdTarget("youden"), "class1"))
    n = found.units["image"].parts["test"].n
    assert f"test {n})" in found.notes[0]
    now = json.loads((run.ensemble_dir("mean") / "decision.json").read_text())["made_of"]
    stored = read_decision(run.ensemble_dir("mean"), ("class0", "class1"), now)
    assert found.notes[0] in stored.notes
    usual = toy_run(tmp_path / "usual", n_classes=2)
    fine = operating_point(usual, "member0", DecisionOptions(ThresholdTarget("youden"), "class1"))
    assert not any("of no use" in note for note in fine.notes)


def test_a_referred_share_above_the_limit_is_printed(run) -> None:
    printed = call("--run", str(run.path), "--refer", "10%", "--resamples", "0").output
    stored = json.loads((run.ensemble_dir("mean") / "decision.json").read_text())
    for unit in stored["units"].values():
        for part in ("cross_fitted", "test"):
            share = unit[part]["referred"] / unit[part]["n"]
            assert (f"{100 * share:.1f} % are referred, more than 10 %" in printed) == (share > 0.1)


def test_classes_of_which_nothing_is_decided_correctly_are_named() -> None:
    labels = np.array([0, 0, 1, 1, 2])
    made = Decisions(np.array([0, 0, 0, 1, 2]), labels, np.array([False, False, False, True, True]))
    found = decision_metrics(
        made, labels, np.arange(5), ("a", "b", "c", "absent"), has_target=False, intervals=False
    )
    assert found.never_right == ("b", "c")


def test_predictions_per_patient_have_their_own_threshold() -> None:
    labels = np.repeat(np.arange(30) % 2, 5)
    toy = toy_predictions(150, 3, 2, n_groups=30)
    table = dataclasses.replace(toy, labels=labels, logits=toy_logits(labels, 3, 2, skill=0.6))
    combined = decided(softmax(table.logits[:, 0]))
    patients = per_group(MethodPredictions.of(combined, table))
    rule = Rule(1, ThresholdTarget("youden"))
    mean = np.array([combined.proba[table.groups == g, 1].mean() for g in np.unique(table.groups)])
    truth = np.array([table.labels[table.groups == g][0] for g in np.unique(table.groups)]) == 1
    threshold = choose(rule, patients, patients.labels).threshold
    assert threshold == pytest.approx(slow_threshold(truth, mean, ThresholdTarget("youden")))
    crossed = cross_fitted(rule, patients, patients.labels, patients.fold)
    assert crossed is not None
    assert (len(crossed[0].called), set(crossed[1])) == (30, set(np.unique(table.fold)))


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([], "--refer"),
        (["--at", "sens=.9"], "sens=.9"),
        (["--at", "sensitivity=1.5"], "1.5"),
        (["--at", "cost=10"], "cost=10:1"),
        (["--at", "youden", "--class", "clas1"], "clas1"),
        (["--refer", "10%", "--max-error", ".1"], "--max-error"),
        (["--refer", "many"], "'many'"),
        (["--refer", "0"], "0"),
        (["--class", "class1", "--refer", "10%"], "'class1'"),
    ],
)
def test_invalid_options_are_refused_with_the_value(run, args: list[str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        call("--run", str(run.path), *args)


@pytest.mark.parametrize(("positive", "want"), [("class0", "class0"), ("", "class1")])
def test_the_positive_class_of_the_data_is_called_where_none_is_named(
    tmp_path, monkeypatch, positive, want
) -> None:
    run = toy_run(tmp_path / "run", n_samples=80, n_classes=2, n_groups=20)
    known = dataclasses.replace(run.manifest(), positive=positive)
    monkeypatch.setattr(type(run), "manifest", lambda self: known)
    found = operating_point(run, "member0", DecisionOptions(ThresholdTarget("youden")), write=False)
    assert found.class_name == want


def test_a_class_among_several_must_be_named_and_unreachable_limits_are_refused(tmp_path) -> None:
    three = toy_run(tmp_path / "three")
    with pytest.raises(UsageError, match=r"Add e\.g\. --class class2"):
        operating_point(three, "member0", DecisionOptions(ThresholdTarget("youden")))
    found = operating_point(three, "member0", DecisionOptions(ThresholdTarget("youden"), "class1"))
    assert found.class_name == "class1"
    assert "no threshold per patient" in " ".join(found.notes)
    wrong = _confident_and_wrong(three)
    with pytest.raises(DataError, match="--max-error"):
        operating_point(
            wrong, "member0", DecisionOptions(reject_option=RejectOption(max_error=0.0))
        )


def _confident_and_wrong(run):
    path = run.path / "predictions" / "member0"
    logits = np.load(path / "oof.npy")
    logits[0] = 0
    logits[0, (run.predictions().labels[0] + 1) % 3] = 50
    np.save(path / "oof.npy", logits)
    index = json.loads((path / "index.json").read_text())
    index["files"]["oof.npy"] = digest_file(path / "oof.npy")
    write_checked(path / "index.json", index)
    return run
