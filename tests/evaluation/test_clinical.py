"""The clinical block: against formulas by hand, scikit-learn, and limit cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import ensemble_kit as ek
from ensemble_kit.errors import UsageError
from ensemble_kit.evaluation.clinical.block import ClinicalOptions, clinical_json, clinical_of
from ensemble_kit.evaluation.clinical.calibration_curve import calibration_of
from ensemble_kit.evaluation.clinical.net_benefit import THRESHOLDS, benefit_gains, decision_curve
from ensemble_kit.evaluation.clinical.one_class import OneClass
from ensemble_kit.evaluation.clinical.predictive_values import predictive_values, ratio_ends
from ensemble_kit.evaluation.clinical.subgroups import NOT_GIVEN, column_of, subgroups
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.evaluation.scores.per_class import metrics_per_class
from ensemble_kit.evaluation.tables.clinical import clinical_tables
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run
from ensemble_kit.testing import toy_run

RNG = np.random.default_rng(0)
N = 240
GROUPS = np.arange(N) // 8
LABELS = (GROUPS % 3 == 0).astype(np.int64)  # 10 of 30 patients are positive
PROBA = 1 / (1 + np.exp(-(2 * LABELS - 1.2 + RNG.normal(0, 1, N) + RNG.normal(0, 0.5, 30)[GROUPS])))


def two(p: np.ndarray) -> Combined:
    return decided(np.stack([1 - p, p], axis=1))


def table_of(
    p: np.ndarray = PROBA, labels: np.ndarray = LABELS, groups: np.ndarray = GROUPS, **options: Any
) -> OneClass:
    return OneClass.of(two(p), labels, groups, 1, **options)


def has_width(one: Interval) -> bool:
    return one.low is not None and one.high is not None and one.low < one.high


# -- net benefit ---------------------------------------------------------------------------


def test_net_benefit_is_true_positives_minus_weighted_false_positives_per_image() -> None:
    for point in decision_curve(table_of()).points:
        t, called = point.threshold, point.threshold <= PROBA
        tp, fp = (called & (LABELS == 1)).sum(), (called & (LABELS == 0)).sum()
        assert point.value.value == pytest.approx(tp / N - fp / N * t / (1 - t))
        assert point.treat_all == pytest.approx(1 / 3 - 2 / 3 * t / (1 - t))
        assert point.value.low < point.value.value < point.value.high <= 1 / 3 + 1e-12


def test_net_benefit_by_hand() -> None:
    """Called at .2: two of three positives and one of two negatives. 2/5 - 1/5 x .25 = .35."""
    labels, p = np.array([1, 1, 1, 0, 0]), np.array([0.9, 0.2, 0.1, 0.3, 0.0])
    (point,) = ek.net_benefit(labels, np.stack([1 - p, p], 1), np.arange(5), [0.2], positive=1)
    assert point.value.value == pytest.approx(0.35)
    assert point.treat_all == pytest.approx(0.6 - 0.4 * 0.25)


def test_net_benefit_without_each_group_keeps_the_share_of_positive_images() -> None:
    curve = decision_curve(table_of(), [0.3])
    rest = GROUPS != 0  # patient 0 is positive
    called = PROBA >= 0.3
    se = (called & rest & (LABELS == 1)).sum() / (rest & (LABELS == 1)).sum()
    sp = (~called & (LABELS == 0)).sum() / (LABELS == 0).sum()
    by_hand = se / 3 - 2 / 3 * 0.3 / 0.7 * (1 - sp)
    assert np.isclose(curve.left_out, by_hand).any()
    assert len(curve.left_out) == 30


def test_a_perfect_model_has_the_share_of_positives_as_net_benefit_and_an_interval() -> None:
    for point in decision_curve(table_of(LABELS.astype(float))).points:
        assert point.value.value == pytest.approx(1 / 3)
        assert has_width(point.value)
        assert point.value.high == pytest.approx(1 / 3)


def test_a_constant_of_one_half_is_treat_all_up_to_one_half_and_treat_none_above() -> None:
    points = decision_curve(table_of(np.full(N, 0.5)), [0.1, 0.5, 0.6]).points
    assert [p.value.value for p in points[:2]] == pytest.approx([p.treat_all for p in points[:2]])
    assert points[2].value.value == pytest.approx(0.0)


@pytest.mark.parametrize("label", [0, 1])
def test_a_part_of_one_class_has_a_defined_net_benefit(label: int) -> None:
    p, labels = np.full(20, 0.3), np.full(20, label)
    (point,) = decision_curve(table_of(p, labels, np.arange(20) // 2), [0.2]).points
    assert point.value.value == pytest.approx(1.0 if label else -0.25)


def test_the_gain_on_the_best_member_is_paired() -> None:
    ours, same = (decision_curve(table_of()) for _ in range(2))
    for gain in benefit_gains(ours, same, table_of()):
        assert gain == Interval(0.0)  # equal predictions: no interval
    worse = decision_curve(table_of(np.roll(PROBA, 8)))
    found = benefit_gains(ours, worse, table_of())
    for a, b, gain in zip(ours.points, worse.points, found, strict=True):
        assert gain.value == pytest.approx(a.value.value - b.value.value)
        assert has_width(gain)


@pytest.mark.parametrize("wrong", [(0.0,), (1.0,), (-0.1, 0.2), (), (float("nan"),)])
def test_thresholds_are_between_0_and_1(wrong: tuple[float, ...]) -> None:
    with pytest.raises(UsageError):
        decision_curve(table_of(), wrong)


def test_without_intervals_only_values_are_computed() -> None:
    bare = table_of(intervals=False)
    for point in decision_curve(bare).points:
        assert point.value.low is None
    values = predictive_values(bare, [0.15])
    assert values.at[1].ppv.low is None
    assert values.at[1].ppv.value is not None
    assert calibration_of(bare).intercept.low is None


# -- calibration ---------------------------------------------------------------------------


def test_slope_is_that_of_logistic_regression_on_log_odds() -> None:
    log_odds = np.log(PROBA / (1 - PROBA))[:, None]
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(log_odds, LABELS)
    found = calibration_of(table_of())
    assert found.slope.value == pytest.approx(fit.coef_[0, 0], abs=1e-5)
    assert has_width(found.slope)


def test_the_intercept_makes_expected_and_observed_counts_equal() -> None:
    found = calibration_of(table_of())
    log_odds = np.log(PROBA / (1 - PROBA))
    moved = 1 / (1 + np.exp(-(log_odds + found.intercept.value)))
    assert moved.sum() == pytest.approx(LABELS.sum())
    assert found.observed_to_expected.value == pytest.approx(LABELS.sum() / PROBA.sum())
    assert has_width(found.intercept)
    assert has_width(found.observed_to_expected)


def test_slope_and_its_interval_are_those_of_the_metric_of_two_classes() -> None:
    proba = np.stack([1 - PROBA, PROBA], axis=1)
    metric = ek.metric_interval(LABELS, proba, GROUPS, metric="calibration_slope")
    found = calibration_of(table_of()).slope
    for name in ("value", "low", "high"):
        assert getattr(found, name) == pytest.approx(getattr(metric, name), abs=1e-6)


def test_a_constant_has_an_intercept_and_no_slope() -> None:
    found = calibration_of(table_of(np.full(N, 0.5)))
    assert found.slope == Interval(None)
    assert found.intercept.value == pytest.approx(np.log(0.5))  # log odds of 1/3
    assert found.observed_to_expected.value == pytest.approx(2 / 3)
    assert len(found.bins) == 1


def test_a_perfect_model_has_no_slope_and_observed_over_expected_is_1() -> None:
    found = calibration_of(table_of(LABELS.astype(float)))
    assert found.slope == Interval(None)
    assert found.intercept.value is None
    assert found.observed_to_expected.value == 1.0
    assert [b.observed.value for b in found.bins] == [0.0, 1.0]
    assert all(has_width(b.observed) for b in found.bins)


def test_the_curve_counts_every_image_once_in_ascending_bins() -> None:
    bins = calibration_of(table_of()).bins
    assert sum(b.n for b in bins) == N
    assert [b.predicted for b in bins] == sorted(b.predicted for b in bins)
    total = sum(b.n * b.observed.value for b in bins)
    assert total == pytest.approx(LABELS.sum())


@pytest.mark.parametrize("label", [0, 1])
def test_a_part_of_one_class_has_no_slope_and_no_intercept(label: int) -> None:
    found = calibration_of(table_of(np.linspace(0.1, 0.9, 20), np.full(20, label), np.arange(20)))
    assert found.slope == found.intercept == Interval(None)
    assert found.observed_to_expected.value == pytest.approx(2.0 * label)


# -- predictive values ---------------------------------------------------------------------


def rated() -> OneClass:
    """Sensitivity 9 of 10, specificity 16 of 20."""
    labels = np.repeat([1, 0], [10, 20])
    p = np.concatenate([np.full(9, 0.8), [0.2], np.full(4, 0.8), np.full(16, 0.2)])
    return table_of(p, labels, np.arange(30))


def test_predictive_values_at_a_stated_prevalence_by_hand() -> None:
    """.15 x .9 / (.15 x .9 + .85 x .2) = .135 / .305, and .85 x .8 / (.68 + .15 x .1)."""
    found = predictive_values(rated(), [0.15])
    assert (found.sensitivity.value, found.specificity.value) == (0.9, 0.8)
    study, stated = found.at
    assert study.is_of_study
    assert study.ppv.value == pytest.approx(9 / 13)
    assert study.npv.value == pytest.approx(16 / 17)
    assert stated.ppv.value == pytest.approx(0.135 / 0.305)
    assert stated.npv.value == pytest.approx(0.68 / 0.695)
    for one in (study.ppv, study.npv, stated.ppv, stated.npv):
        assert one.low < one.value < one.high


def test_values_at_the_prevalence_of_the_study_agree_with_the_observed_ones() -> None:
    study, stated = predictive_values(table_of(), [LABELS.mean()]).at
    for a, b in ((study.ppv, stated.ppv), (study.npv, stated.npv)):
        assert a.value == pytest.approx(b.value)
        assert a.low == pytest.approx(b.low, abs=0.06)
        assert a.high == pytest.approx(b.high, abs=0.06)


def test_a_perfect_model_has_wider_intervals_at_a_low_prevalence() -> None:
    _, rare, common = predictive_values(table_of(LABELS.astype(float)), [0.02, 0.5]).at
    assert rare.ppv.value == common.ppv.value == 1.0
    assert rare.ppv.low < 0.3 < common.ppv.low


def test_mover_limits_of_a_ratio_put_the_end_of_the_difference_at_0() -> None:
    above, below = Interval(0.2, 0.1, 0.35), Interval(0.8, 0.6, 0.95)
    for correlation in (0.0, -0.5):
        low, high = ratio_ends(above, below, correlation)
        for end, dx, dy in ((low, 0.1, 0.15), (high, 0.15, 0.2)):
            gap = 0.2 - end * 0.8
            reach = dx**2 + (end * dy) ** 2 - 2 * correlation * dx * end * dy
            assert gap**2 == pytest.approx(reach)
        assert low < 0.25 < high


def test_rates_are_those_of_each_class_against_the_rest_with_abstentions_as_errors() -> None:
    labels = np.arange(90) % 3
    proba = np.random.default_rng(1).dirichlet([1, 1, 1], 90)
    predicted = np.where(np.arange(90) % 7 == 0, -1, decided(proba).predicted)
    combined = Combined(proba, predicted, predicted < 0)
    table = Predictions.from_arrays(
        {"a": np.log(proba)}, labels, groups=np.array([f"p{i // 6}" for i in range(90)])
    )
    want = metrics_per_class({"a": combined}, table)["a"][2]
    found = predictive_values(OneClass.of(combined, labels, table.groups, 2))
    for name, one in (
        ("sensitivity", found.sensitivity),
        ("specificity", found.specificity),
        ("precision", found.at[0].ppv),
    ):
        assert one.value == pytest.approx(want[name].value)
        assert one.low == pytest.approx(want[name].low, abs=0.03)


def test_ppv_is_undefined_without_positive_decisions_and_a_note_says_so() -> None:
    found = predictive_values(table_of(np.full(N, 0.2)), [0.15])
    assert [one.ppv for one in found.at] == [Interval(None)] * 2
    assert found.at[0].npv.value == pytest.approx(2 / 3)
    assert found.at[1].npv.value == pytest.approx(0.85)
    block = clinical_of("mean", parts_of(np.full(N, 0.2)), manifest(), Protocol(positive="tumour"))
    assert any(
        "PPV is undefined" in note
        for _, _, note in clinical_tables(clinical_json(block), "patient")
    )


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.2, 15.0, float("nan")])
def test_a_prevalence_is_above_0_and_below_1(wrong: float) -> None:
    with pytest.raises(UsageError):
        predictive_values(table_of(), [wrong])
    with pytest.raises(UsageError):
        ClinicalOptions(prevalences=(wrong,))


# -- subgroups -----------------------------------------------------------------------------


def manifest(**columns: Any) -> Manifest:
    rows = [
        (f"s{i}", f"s{i}.png", ("benign", "tumour")[LABELS[i]], f"p{GROUPS[i]}") for i in range(N)
    ]
    made = Manifest.from_records(rows, group_kind="patient")
    return made.with_columns(**columns) if columns else made


def predictions() -> Predictions:
    logits = np.log(np.stack([1 - PROBA, PROBA], axis=1))
    return Predictions.from_arrays(
        {"a": logits}, LABELS, sample_ids=[f"s{i}" for i in range(N)],
        groups=[f"p{g}" for g in GROUPS], class_names=("benign", "tumour"),
    )  # fmt: skip


def parts_of(p: np.ndarray = PROBA) -> dict[str, Any]:
    return {"cross_fitted": (predictions(), two(p), two(np.roll(p, 8)))}


def test_each_subgroup_has_the_metrics_of_its_rows() -> None:
    site = np.where(GROUPS < 12, "north", "south")
    protocol = Protocol(positive="tumour", metric="accuracy")
    north, south = subgroups(site, two(PROBA), predictions(), protocol)
    assert (north.name, north.n, north.n_groups) == ("north", 96, 12)
    assert (south.n, south.n_groups, south.remark) == (144, 18, "")
    right = (PROBA >= 0.5) == LABELS
    assert north.metric.value == pytest.approx(right[site == "north"].mean())
    positive = (LABELS == 1) & (site == "north")
    assert north.sensitivity.value == pytest.approx((PROBA[positive] >= 0.5).mean())
    assert has_width(north.metric)


def test_a_subgroup_of_one_class_or_of_few_patients_has_a_remark() -> None:
    site = np.where(GROUPS == 0, "one", np.where(LABELS == 1, "positive", "rest"))
    protocol = Protocol(positive="tumour")
    one, positive, rest = subgroups(site, two(PROBA), predictions(), protocol)
    assert one.sensitivity.value is not None
    assert one.sensitivity.low is None
    assert one.remark
    assert positive.missing_classes == ("benign",)
    assert positive.metric == positive.specificity == Interval(None)
    assert has_width(positive.sensitivity)
    assert "'benign'" in positive.remark
    assert rest.missing_classes == ("tumour",)


def test_a_column_is_matched_by_sample_and_numbers_are_in_their_order() -> None:
    magnification = np.array([40.0, 100.0, np.nan, 400.0])[np.arange(N) % 4]
    made = manifest(magnification=magnification)
    ids = made.sample_ids[::-1]
    values = column_of(made, "magnification", ids)
    assert values[-1] == "40"
    found = subgroups(values[::-1], two(PROBA), predictions(), Protocol())
    assert [one.name for one in found] == ["40", "100", "400", NOT_GIVEN]
    assert sum(one.n for one in found) == N


def test_named_values_are_in_natural_order() -> None:
    site = np.array(["p10", "p2", "p1"])[np.arange(N) % 3]
    found = subgroups(site, two(PROBA), predictions(), Protocol())
    assert [one.name for one in found] == ["p1", "p2", "p10"]


def test_unknown_columns_and_columns_with_many_values_are_refused() -> None:
    made = manifest(scanner="A")
    with pytest.raises(UsageError, match="scanner"):
        column_of(made, "scaner", [])
    with pytest.raises(UsageError, match=str(N)):
        column_of(made, "sample_id", [])


# -- the block -----------------------------------------------------------------------------


def test_without_a_positive_class_the_block_names_the_option() -> None:
    found = clinical_of(
        "mean", parts_of(), manifest(site="A"), Protocol(), ClinicalOptions(by=("site",))
    )
    assert not found.parts
    assert "--positive" in found.why_not
    assert found.by["site"]["cross_fitted"][0].sensitivity is None
    assert clinical_json(found)["positive"] is None


def test_an_unknown_positive_class_is_refused() -> None:
    with pytest.raises(UsageError, match="tumour"):
        clinical_of("mean", parts_of(), manifest(), Protocol(positive="tumor"))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return toy_run(tmp_path_factory.mktemp("runs") / "two", n_samples=160, n_classes=2)


def test_the_metrics_of_the_best_method_have_the_block_of_both_parts(run: Run) -> None:
    protocol = Protocol(positive="class0", n_resamples=50)
    options = ClinicalOptions(prevalences=(0.15,), by=("split",))
    done = stack_run(run, ["vote", "mean-logits"], protocol=protocol, clinical=options)
    stored = {
        name: json.loads((run.ensemble_dir(name) / "metrics.json").read_text())
        for name in ("vote", "mean-logits")
    }
    with_block = [one for one in stored.values() if one["clinical"] is not None]
    assert len(with_block) == 1
    block = with_block[0]["clinical"]
    assert block["positive"] == with_block[0]["positive"] == "class0"
    oof = done.oof
    best = done.evaluations[with_block[0]["method"]]
    is_class = np.asarray(oof.labels) == 0
    called = best.oof_combined.proba[:, 0] >= 0.2
    nb = (called & is_class).mean() - (called & ~is_class).mean() * 0.25
    at = block["cross_fitted"]["net_benefit"][2]
    assert at["threshold"] == 0.2
    assert at["method"]["value"] == pytest.approx(nb)
    assert [one["threshold"] for one in block["test"]["net_benefit"]] == list(THRESHOLDS)
    assert block["test"]["predictive_values"][1]["prevalence"] == 0.15
    assert block["subgroups"]["split"]["test"][0]["name"] == "test"


def test_average_precision_of_two_classes_is_of_the_positive_one(run: Run) -> None:
    from sklearn.metrics import average_precision_score

    for positive, c in (("class0", 0), ("class1", 1), (None, 1)):
        protocol = Protocol(positive=positive, n_resamples=50, metric="average_precision")
        done = stack_run(run, ["vote"], protocol=protocol, write=False)
        one = done.evaluations["vote"]
        want = average_precision_score(done.oof.labels == c, one.oof_combined.proba[:, c])
        found = one.cross_fitted["average_precision"]
        assert found.value == pytest.approx(want)
        assert found.low < found.value < found.high
        of_class = one.per_class["cross_fitted"][c]["average_precision"]
        assert (found.low, found.high) == pytest.approx((of_class.low, of_class.high), abs=1e-6)
        assert one.ranked_class == f"class{c}"


def test_more_classes_are_evaluated_by_the_positive_one_against_the_rest(tmp_path: Path) -> None:
    three = toy_run(tmp_path / "three", n_samples=120, n_classes=3, n_groups=24)
    options = Protocol(positive="class1", n_resamples=20)
    block = stack_run(three, ["vote"], protocol=options, write=False).clinical
    part = block.parts["test"]
    assert part.n_positive < part.n
    assert part.calibration.slope is not None
    assert stack_run(
        three, ["vote"], protocol=Protocol(n_resamples=20), write=False
    ).clinical.why_not


def test_bad_columns_are_refused_before_anything_is_fitted(run: Run) -> None:
    with pytest.raises(UsageError, match="splt"):
        stack_run(run, ["vote"], clinical=ClinicalOptions(by=("splt",)), write=False)


def test_clinical_flags_print_the_block(run: Run, cli: Any) -> None:
    words = ("stack", "--run", run.path, "--method", "vote", "--resamples", 50)
    assert "net benefit" not in cli(*words)[1]
    code, printed = cli(*words, "--positive", "class0", "--prevalence", "15%", "--thresholds", ".4")
    assert code == 0
    assert "0.150 stated" in printed
    assert "\n0.4 " in printed
    code, printed = cli(*words, "--by", "split")
    assert code == 0
    assert "--positive CLASS" in printed
    for wrong in (
        ("--prevalence", "0"),
        ("--prevalence", "1"),
        ("--thresholds", "1.5"),
        ("--by", "x"),
    ):
        assert cli(*words, *wrong)[0] == 2
    code, printed = cli(*words, "--positive", "class0", "--json")
    found = json.loads(printed)
    assert (found["positive"], found["clinical_method"]) == ("class0", "vote")
    assert found["methods"]["vote"]["clinical"]["test"]["n"] > 0
