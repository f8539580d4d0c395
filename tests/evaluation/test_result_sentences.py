"""The result of `stack` as sentences: best method, against the best member, against the mean."""

from __future__ import annotations

import html
import json

import numpy as np
import pytest

from ensemble_kit.combiners import make_combiner
from ensemble_kit.evaluation.compare import all_notes
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.ensemble_files import metrics_json
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.evaluation.scores.verdict import too_few
from ensemble_kit.evaluation.tables.chance import above_chance, chance_of
from ensemble_kit.evaluation.tables.recommendation import (
    chosen_of,
    method_to_use,
    recommendation,
)
from ensemble_kit.evaluation.tables.result_sentences import (
    chance_sentence,
    constant_class,
    paper_sentence,
    result_sentences,
    verdict_sentence,
)
from ensemble_kit.evaluation.winner import ranked, winner
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.report.content import gather
from ensemble_kit.report.page import write_report
from ensemble_kit.testing import toy_predictions, toy_run


def found(*names: str, test: bool = True, metric: str = "balanced_accuracy"):
    oof = toy_predictions(160, 4, 3, n_groups=16)
    other = toy_predictions(90, 4, 3, kind="test", seed=1, n_groups=9) if test else None
    methods = {n: make_combiner(n) for n in names}
    protocol = Protocol(metric=metric, n_resamples=100)
    evaluated = evaluate_all(methods, oof, other, protocol=protocol)
    return evaluated, {name: metrics_json(one, oof) for name, one in evaluated.items()}


def warnings_of(stored) -> list[str]:
    return [line for line in result_sentences(stored) if line.startswith("Warning")]


@pytest.mark.parametrize("metric", ["balanced_accuracy", "log_loss", "auroc"])
def test_the_winner_is_the_method_of_the_best_cross_fitted_metric(metric: str) -> None:
    evaluated, stored = found("vote", "median", "mean-logits", metric=metric)
    values = {n: evaluated[n].cross_fitted[metric].value for n in ("vote", "median", "mean-logits")}
    best = (min if metric == "log_loss" else max)(values.values())
    assert values[chosen_of(stored)] == best


def test_of_equal_methods_the_simpler_one_wins_in_any_order() -> None:
    for names in (("mlp", "greedy", "vote"), ("vote", "mlp", "greedy")):
        assert winner(dict.fromkeys(names, 0.8), "accuracy") == "vote"
    assert ranked({"b": None, "vote": 0.1, "a": None}, "log_loss") == ["vote", "a", "b"]


def test_the_result_has_values_of_the_chosen_method_and_of_the_best_member() -> None:
    evaluated, stored = found("vote", "median")
    printed = result_sentences(stored)
    best = evaluated[chosen_of(stored)]
    gain = next(v for v in best.verdicts if (v.part, v.against) == ("test", "best-member")).effect
    assert f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]" in " ".join(printed)
    assert stored["best-member"]["best_member"] in printed[0]
    assert "90 images of 9" in printed[1]


def test_without_a_test_part_the_result_has_the_corrected_value() -> None:
    evaluated, stored = found("vote", "median", test=False)
    corrected = evaluated[chosen_of(stored)].corrected
    assert (
        f"corrected for choosing the best method: {corrected.value:.3f}"
        in result_sentences(stored)[1]
    )


def test_with_a_test_part_the_corrected_cross_fitted_value_is_the_last_sentence() -> None:
    evaluated, stored = found("vote", "median")
    best = evaluated[chosen_of(stored)]
    printed = result_sentences(stored)[-1]
    assert f"{best.cross_fitted['balanced_accuracy'].value:.3f}" in printed
    assert f"corrected for choosing the best method: {best.corrected.value:.3f}" in printed


def test_a_method_whose_interval_contains_chance_has_a_warning() -> None:
    _, stored = found("vote", "median")
    best = stored[chosen_of(stored)]
    assert chance_sentence(stored) == "Chance level: 0.333 (1 / 3 classes)."
    assert not warnings_of(stored)
    best["test"]["balanced_accuracy"]["low"] = 0.3
    assert "chance, 0.333" in warnings_of(stored)[0]
    assert chosen_of(stored) in warnings_of(stored)[0]


def test_without_a_test_part_the_corrected_interval_is_compared_with_chance() -> None:
    _, stored = found("vote", "median", test=False)
    best = stored[chosen_of(stored)]
    for other in {"vote", "median"} - {best["method"]}:
        stored[other]["cross_fitted"]["balanced_accuracy"]["value"] = 0.1
    best["cross_fitted"]["balanced_accuracy"] |= {"value": 0.6, "low": 0.35, "high": 0.8}
    best["corrected_for_choice"]["value"] = 0.59
    assert not warnings_of(stored)
    best["corrected_for_choice"]["value"] = 0.57
    assert warnings_of(stored)


@pytest.mark.parametrize(
    ("metric", "level"),
    [("balanced_accuracy", 0.5), ("accuracy", 0.75), ("auroc", 0.5), ("mcc", 0.0), ("log_loss", 0.5623)],
)  # fmt: skip
def test_chance_levels_of_thirty_and_ten_images(metric: str, level: float) -> None:
    block = {"per_class": {"a": {"n": 30}, "b": {"n": 10}, "absent": {"n": 0}}}
    assert chance_of(metric, block).level == pytest.approx(level, abs=1e-4)
    assert chance_of(metric, {"per_class": {"a": {"n": 30}}}) is None


def test_a_lower_log_loss_is_a_negative_difference() -> None:
    _, stored = found("vote", "median", metric="log_loss")
    best = stored[chosen_of(stored)]
    at = next(v for v in best["verdicts"] if (v["part"], v["against"]) == ("test", "best-member"))
    at |= {"word": "better", "gain": {"value": 0.2, "low": 0.1, "high": 0.3}}
    assert "difference -0.200 [-0.300, -0.100]" in " ".join(result_sentences(stored))
    assert verdict_sentence(stored).startswith(f"The ensemble ({chosen_of(stored)}) is better than")


def test_why_nothing_can_be_shown_names_both_methods_and_the_part() -> None:
    few = too_few(1, 5, "patient", pair=("mlp", "best-member"), part="test")
    assert "mlp and the best member differ in only 1 of 5 patients (test)" in few
    same = too_few(0, 5, "patient", pair=("mlp", "mean"), part="cross_fitted")
    assert "mlp and the mean of all members are equal for all 5 patients (cross-fitted)" in same
    assert not too_few(6, 10)


def test_a_run_of_one_member_has_its_value_instead_of_a_comparison() -> None:
    oof = toy_predictions(160, 1, 3, n_groups=16)
    test = toy_predictions(90, 1, 3, kind="test", seed=1, n_groups=9)
    evaluated = evaluate_all(
        {"mean": make_combiner("mean")}, oof, test, protocol=Protocol(n_resamples=100)
    )
    stored = {name: metrics_json(one, oof) for name, one in evaluated.items()}
    printed = result_sentences(stored)
    assert printed[0].partition(":")[0] == f"Use the only member, {oof.member_names[0]}"
    assert str(evaluated["mean"].test["balanced_accuracy"]) in printed[1]
    assert "90 images of 9" in printed[1]


def test_methods_of_a_single_member_are_not_compared() -> None:
    oof = toy_predictions(160, 1, 3, n_groups=16)
    evaluated = evaluate_all(
        {"vote": make_combiner("vote")}, oof, protocol=Protocol(n_resamples=50)
    )
    printed = result_sentences({name: metrics_json(one, oof) for name, one in evaluated.items()})
    assert oof.member_names[0] in printed[0]
    assert str(evaluated["best-member"].cross_fitted["balanced_accuracy"]) in printed[1]
    assert len(printed) == 2


def test_the_report_ranks_by_the_metric_of_stack(tmp_path) -> None:
    run = toy_run(tmp_path / "toy")
    done = stack_run(
        run, ["vote", "median", "product"], protocol=Protocol(metric="auroc", n_resamples=50)
    )
    content = gather(run)
    stored = {m: metrics_json(one, done.oof) for m, one in done.evaluations.items()}
    assert content.metric == "auroc"
    assert content.verdicts == tuple(result_sentences(json.loads(json.dumps(stored))))
    assert content.for_a_paper == paper_sentence(stored)
    assert content.for_a_paper.partition(":")[0] in html.unescape(write_report(run).read_text())


def test_an_interval_without_zero_and_without_a_verdict_is_explained() -> None:
    _, stored = found("vote", "median")
    best = stored[chosen_of(stored)]
    at = next(v for v in best["verdicts"] if (v["part"], v["against"]) == ("test", "best-member"))
    at |= {"word": "not shown", "gain": {"value": 0.3, "low": 0.1, "high": 0.5}}
    plain = result_sentences(stored)[2]
    assert "+0.300 [+0.100, +0.500]" in plain
    at["too_few"] = "no difference can be shown: 4 of 5"
    assert "not shown to differ: 4 of 5." in paper_sentence(stored)
    assert len(result_sentences(stored)[2]) > len(plain)


def verdict_on(stored, word: str, name: str | None = None):
    one = stored[name or chosen_of(stored)]
    at = next(v for v in one["verdicts"] if (v["part"], v["against"]) == ("test", "best-member"))
    at["word"] = word


def test_the_first_sentence_recommends_the_best_member_unless_the_best_ensemble_is_better() -> None:
    _, stored = found("vote", "median")
    member, best = stored["best-member"]["best_member"], chosen_of(stored)
    other = ({"vote", "median"} - {best}).pop()
    for word, used in (("not shown", member), ("worse", member), ("better", best)):
        verdict_on(stored, word)
        assert result_sentences(stored)[0] == recommendation(stored)
        assert used in recommendation(stored).partition(":")[0]
    verdict_on(stored, "not shown")
    verdict_on(stored, "better", other)  # in the table: "no ensemble is better" would contradict it
    assert best in recommendation(stored)


def test_the_mean_is_recommended_if_it_is_better_and_the_best_method_is_not() -> None:
    _, stored = found("vote", "median")
    best, member = chosen_of(stored), stored["best-member"]["best_member"]
    for word, used in (("not shown", "mean"), ("worse", "mean"), ("better", best)):
        verdict_on(stored, word)
        verdict_on(stored, "better", "mean")
        assert method_to_use(stored) == used
        assert used in recommendation(stored).partition(":")[0]
    verdict_on(stored, "not shown")
    verdict_on(stored, "not shown", "mean")
    assert method_to_use(stored) == "best-member"
    assert member in recommendation(stored).partition(":")[0]


def test_the_mean_alone_is_compared_with_the_best_member() -> None:
    evaluated, stored = found("mean")
    assert chosen_of(stored) == "mean"
    printed = result_sentences(stored)
    assert str(evaluated["mean"].test["balanced_accuracy"]) in printed[1]
    gain = next(v for v in evaluated["mean"].verdicts if v.part == "test").effect
    assert f"{gain.low:+.3f}, {gain.high:+.3f}" in printed[2]


def test_the_verdict_on_the_mean_does_not_widen_those_of_other_methods() -> None:
    evaluated, _ = found("vote", "median", "product")
    mean = next(v for v in evaluated["mean"].verdicts if v.part == "cross_fitted")
    alone = found("mean")[0]["mean"]
    assert mean.effect == next(v for v in alone.verdicts if v.part == "cross_fitted").effect
    assert mean.n_compared == 1
    assert {v.n_compared for v in evaluated["vote"].verdicts} == {3}


@pytest.mark.parametrize("metric", ["balanced_accuracy", "log_loss"])
def test_the_sentence_for_a_paper_has_both_values_and_the_plain_difference(metric: str) -> None:
    evaluated, stored = found("vote", "median", metric=metric)
    best, member = evaluated[chosen_of(stored)], evaluated["best-member"]
    printed = paper_sentence(stored)
    assert str(best.test[metric]) in printed
    assert str(member.test[metric]) in printed
    assert stored["best-member"]["best_member"] in printed
    assert f"{best.test[metric].value - member.test[metric].value:+.3f}" in printed
    assert "90 images of 9" in printed


def test_the_sentence_for_a_paper_of_one_member_has_the_value_of_that_member() -> None:
    oof = toy_predictions(160, 1, 3, n_groups=16)
    methods = {name: make_combiner(name) for name in ("logistic", "temperature")}
    protocol = Protocol(metric="log_loss", n_resamples=50, fallback=False)
    evaluated = evaluate_all(methods, oof, protocol=protocol)
    printed = paper_sentence({name: metrics_json(one, oof) for name, one in evaluated.items()})
    assert str(evaluated["best-member"].cross_fitted["log_loss"]) in printed
    assert oof.member_names[0] in printed


def test_the_sentence_for_a_paper_follows_the_recommendation() -> None:
    evaluated, stored = found("vote", "median")
    verdict_on(stored, "better", "mean")
    assert str(evaluated["mean"].test["balanced_accuracy"]) in paper_sentence(stored)
    _, stored = found("vote", "median", test=False)
    best = stored[chosen_of(stored)]
    at = next(v for v in best["verdicts"] if v["against"] == "best-member")
    for one in (best, stored["best-member"]):
        one["nested"] = {**one["cross_fitted"], "n": 157}
    best["verdicts"].append({**at, "part": "nested", "word": "worse"})
    printed = paper_sentence(stored)
    assert "157 images" in printed
    assert "worse" in printed


def test_a_stored_mean_without_a_verdict_asks_for_another_stack() -> None:
    _, stored = found("mean")
    stored["mean"]["verdicts"] = []
    assert "stack again" in recommendation(stored)


def test_the_sentence_for_a_paper_without_a_test_part_is_corrected_for_the_choice() -> None:
    evaluated, stored = found("vote", "median", test=False)
    best = evaluated[chosen_of(stored)]
    printed = paper_sentence(stored)
    assert str(best.cross_fitted["balanced_accuracy"]) in printed
    assert f"{best.corrected.value:.3f}" in printed


@pytest.mark.parametrize(
    ("value", "low", "high", "want"),
    [
        (0.4, None, None, False),
        (0.8, None, None, None),
        (0.8, 0.6, 0.9, True),
        (0.8, 0.4, 0.9, False),
    ],
)
def test_a_value_below_chance_is_not_above_it_even_without_an_interval(
    value: float, low: float | None, high: float | None, want: bool | None
) -> None:
    block = {"per_class": {"a": {"n": 3}, "b": {"n": 3}}}
    block["balanced_accuracy"] = {"value": value, "low": low, "high": high}
    assert above_chance("balanced_accuracy", block) is want
    mirrored = {"value": -value, "low": high and -high, "high": low and -low}
    level = chance_of("log_loss", block).level
    shifted = {k: v and v + level + 0.5 for k, v in mirrored.items()}  # lower is better
    assert above_chance("log_loss", block | {"log_loss": shifted}) is want


def test_nothing_is_recommended_if_neither_is_above_chance() -> None:
    _, stored = found("vote", "median")
    names = ("best-member", chosen_of(stored))
    for name in names:
        stored[name]["test"]["balanced_accuracy"]["low"] = 0.3
    printed = result_sentences(stored)
    assert "0.333" not in printed[0]  # cross-fitted, both are above chance
    assert f"{names[1]} and the best member are" in warnings_of(stored)[0]
    stored[names[1]]["test"]["balanced_accuracy"]["low"] = 0.4
    assert warnings_of(stored)[0].startswith("Warning: the best member is")
    stored[names[1]]["test"]["balanced_accuracy"]["low"] = 0.3
    for name in names:
        stored[name]["cross_fitted"]["balanced_accuracy"]["low"] = 0.3
    assert "0.333" in result_sentences(stored)[0]
    assert not warnings_of(stored)
    stored[names[1]]["cross_fitted"]["balanced_accuracy"]["low"] = 0.4
    assert (
        "0.333" in result_sentences(stored)[0]
    )  # the best member alone, which would be recommended
    assert names[1] not in result_sentences(stored)[0]
    verdict_on(stored, "better")
    assert names[1] in result_sentences(stored)[0].partition(":")[0]


def test_a_constant_prediction_is_a_warning_in_the_result_and_the_first_caveat() -> None:
    labels, rng = np.arange(80) % 2, np.random.default_rng(0)
    good = {m: rng.normal(size=(80, 2)) + 2 * np.eye(2)[labels] for m in "abc"}
    groups = np.arange(80) // 4
    oof = Predictions.from_arrays(good, labels, groups=groups, fold=groups % 4)
    shifted = {m: z + np.array([0.0, 50.0]) for m, z in good.items()}
    test = Predictions.from_arrays(shifted, labels, groups=groups + 100, kind="test")
    methods = {name: make_combiner(name) for name in ("vote", "median")}
    evaluated = evaluate_all(methods, oof, test, protocol=Protocol(n_resamples=50))
    stored = {name: metrics_json(one, oof) for name, one in evaluated.items()}
    assert constant_class(stored["vote"]["test"]) == "1"
    assert constant_class(stored["vote"]["cross_fitted"]) is None
    assert str(evaluated["vote"].test["balanced_accuracy"]) not in paper_sentence(stored)
    assert "'1' for all images" in paper_sentence(stored)
    warning = next(line for line in result_sentences(stored) if line.startswith("Warning"))
    assert "'1'" in warning
    assert "80 images" in warning
    first = all_notes(evaluated)[0]
    assert {"vote", "median", "mean", "best-member"} == set(first.partition(": ")[0].split(", "))
    assert "'1'" in first
    good_test = Predictions.from_arrays(good, labels, groups=groups + 100, kind="test")
    usual = evaluate_all(methods, oof, good_test, protocol=Protocol(n_resamples=50))
    assert not any("one class is predicted" in note for note in all_notes(usual))


def test_without_a_test_part_a_nested_verdict_decides_what_is_recommended() -> None:
    _, stored = found("vote", "median", test=False)
    best, member = stored[chosen_of(stored)], stored["best-member"]["best_member"]
    at = next(v for v in best["verdicts"] if (v["part"], v["against"]) == ("cross_fitted", "best-member"))  # fmt: skip
    at["word"] = "better"
    assert chosen_of(stored) in recommendation(stored).partition(":")[0]
    assert method_to_use(stored) == chosen_of(stored)
    best["verdicts"].append({**at, "part": "nested", "word": "worse"})
    assert member in recommendation(stored).partition(":")[0]
    assert method_to_use(stored) == "best-member"
