"""Every metric against scikit-learn, a slow second implementation, or an identity."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from ensemble_kit.arrays import Ints, softmax
from ensemble_kit.errors import UsageError
from ensemble_kit.metrics import (
    ALIASES,
    METRICS,
    calibration,
    classification,
    confusion,
    diversity,
    metric,
    ordinal,
    ranking,
    selective,
)
from ensemble_kit.metrics.calibration import N_BINS, bins_equal_mass, mass_bins_without
from ensemble_kit.metrics.sufficient_statistics import sums_by_group, sums_of

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 400)
PROBA = softmax(RNG.normal(size=(400, 4)) + 1.2 * np.eye(4)[LABELS])
CHOSEN = PROBA.argmax(axis=1)
ONE_HOT = np.eye(4)[LABELS]
MASS_METRICS = ("ece_equal_mass", "calibration_error_debiased")
REFERENCE = {
    "accuracy": sk.accuracy_score(LABELS, CHOSEN),
    "balanced_accuracy": sk.balanced_accuracy_score(LABELS, CHOSEN),
    "macro_f1": sk.f1_score(LABELS, CHOSEN, average="macro"),
    "macro_precision": sk.precision_score(LABELS, CHOSEN, average="macro"),
    "mcc": sk.matthews_corrcoef(LABELS, CHOSEN),
    "kappa": sk.cohen_kappa_score(LABELS, CHOSEN),
    "quadratic_weighted_kappa": sk.cohen_kappa_score(LABELS, CHOSEN, weights="quadratic"),
    "mean_absolute_error": sk.mean_absolute_error(LABELS, CHOSEN),
    "adjacent_errors": float((np.abs(LABELS - CHOSEN) == 1).mean()),
    "far_errors": float((np.abs(LABELS - CHOSEN) >= 2).mean()),
    "log_loss": sk.log_loss(LABELS, PROBA),
    "brier": float(((PROBA - ONE_HOT) ** 2).sum(axis=1).mean()),
    "auroc": sk.roc_auc_score(LABELS, PROBA, multi_class="ovr"),
    "average_precision": sk.average_precision_score(ONE_HOT, PROBA),
    "coverage": 1.0,
}


@pytest.mark.parametrize(("name", "want"), REFERENCE.items())
def test_metrics_are_scikit_learns(name: str, want: float) -> None:
    metric = METRICS[name]
    got = (
        metric.of_sums(sums_of(LABELS, PROBA)) if metric.of_sums else metric.of_table(LABELS, PROBA)
    )
    assert float(got) == pytest.approx(want, abs=1e-12)


def test_specificity_is_the_recall_of_the_others() -> None:
    found = classification.specificity_per_class(classification.confusion_matrix(LABELS, CHOSEN, 4))
    want = [sk.recall_score(c != LABELS, c != CHOSEN) for c in range(4)]
    np.testing.assert_allclose(found, want)


def test_ece_is_the_slow_loop_over_bins() -> None:
    top, hit, want = PROBA.max(axis=1), CHOSEN == LABELS, 0.0
    for b in range(15):
        inside = (top > b / 15) & (top <= (b + 1) / 15)
        if inside.any():
            want += inside.mean() * abs(top[inside].mean() - hit[inside].mean())
    assert float(
        calibration.expected_calibration_error(sums_of(LABELS, PROBA).bins)
    ) == pytest.approx(want)


def test_debiased_calibration_error_of_calibrated_probabilities_is_smaller() -> None:
    rng = np.random.default_rng(1)
    top = rng.uniform(0.5, 1.0, 300)
    proba = np.stack([top, 1 - top], axis=1)
    labels = (rng.random(300) > top).astype(int)
    sums = sums_of(labels, proba)
    plain = float(calibration.expected_calibration_error(sums.mass_bins))
    assert float(calibration.debiased_calibration_error(sums.mass_bins)) < 0.8 * plain


def test_calibration_slope_is_1_where_calibrated_and_recovers_a_known_factor() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 3)) * 2
    labels = np.array([rng.choice(3, p=p) for p in softmax(z)])
    assert calibration.calibration_slope(labels, softmax(z)) == pytest.approx(1.0, abs=0.05)
    assert calibration.calibration_slope(labels, softmax(3 * z)) == pytest.approx(1 / 3, abs=0.02)


def test_macro_metrics_are_over_the_classes_present_only() -> None:
    matrix = np.array([[8.0, 2, 0], [0, 0, 0], [1, 0, 9]])
    assert float(classification.balanced_accuracy(matrix)) == pytest.approx(0.85)
    assert np.isnan(classification.sensitivity_per_class(matrix)[1])


@pytest.mark.parametrize("name", ["auroc", "average_precision", "macro_specificity"])
def test_with_one_class_these_metrics_are_undefined(name: str) -> None:
    proba = np.full((5, 2), [0.9, 0.1])
    labels = np.zeros(5, dtype=int)
    assert np.isnan(METRICS[name].of(labels, proba, labels))


def test_average_precision_of_two_classes_is_that_of_the_second() -> None:
    labels, proba = (LABELS == 0).astype(int), np.stack([1 - PROBA[:, 0], PROBA[:, 0]], axis=1)
    want = sk.average_precision_score(labels, proba[:, 1])
    assert METRICS["average_precision"].of_table(labels, proba) == pytest.approx(want)


def _slow_confusion(labels: Ints, predicted: Ints, times: Ints, n_classes: int) -> np.ndarray:
    out = np.zeros((n_classes, n_classes))
    for true, called, n in zip(labels, predicted, times, strict=True):
        if called >= 0:
            out[true, called] += n
        else:
            out[true, np.arange(n_classes) != true] += n / (n_classes - 1)
    return out


@pytest.mark.parametrize("is_sparse", [False, True])
def test_sums_of_resamples_are_those_of_the_copied_samples(
    is_sparse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_sparse:
        monkeypatch.setattr(confusion, "MAX_FULL", 0)
    groups, chosen = np.arange(400) % 7, np.where(np.arange(400) % 11 == 0, -1, CHOSEN)
    by_group = sums_by_group(LABELS, PROBA, chosen, groups)
    weights = np.array([[2, 0, 1, 1, 3, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    drawn = by_group.weighted(weights.astype(float))
    for r, times in enumerate(weights):
        rows = np.repeat(np.arange(400), times[groups])
        # Only the bins of equal mass are those of the whole table.
        want = sums_of(LABELS[rows], PROBA[rows], chosen[rows])
        for name in ("n", "n_decided", "log_loss", "brier", "bins"):
            np.testing.assert_allclose(getattr(drawn, name)[r], getattr(want, name))
        slow = _slow_confusion(LABELS, chosen, times[groups], 4)
        np.testing.assert_allclose(drawn.confusion[r], slow, atol=1e-12)
        for name, one in METRICS.items():
            if one.of_sums is not None and name not in ("expected_cost", *MASS_METRICS):
                assert float(one.of_sums(drawn)[r]) == pytest.approx(float(one.of_sums(want)))
    np.testing.assert_allclose(by_group.total().confusion, drawn.confusion[1], atol=1e-12)


@pytest.mark.parametrize("is_sparse", [False, True])
def test_groups_are_counted_by_true_by_predicted_and_by_other_classes(
    is_sparse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_sparse:
        monkeypatch.setattr(confusion, "MAX_FULL", 0)
    labels, called = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 2])
    counts = confusion.GroupConfusions.of(labels, called, np.array([0, 0, 1, 1, 2]), 4)
    of_class, others, called = counts.of_class(0)
    assert ((of_class > 0).sum(), (others > 0).sum(), (called > 0).sum()) == (2, 2, 1)


def test_confusions_of_many_classes_take_memory_of_the_samples_not_of_groups_times_cells() -> None:
    n, n_classes = 2000, 1000
    labels = np.arange(n) % n_classes
    counts = confusion.GroupConfusions.of(labels, labels, np.arange(n), n_classes)
    assert counts.cells.data.nbytes + counts.margins.data.nbytes < 100 * n
    drawn = counts.weighted(np.ones((3, n)))
    assert classification.cohen_kappa(drawn).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_and_average_precision_take_ties_as_scikit_learn_does(ties: bool) -> None:
    positive = LABELS == 1
    scores = PROBA[:, 1].round(1) if ties else PROBA[:, 1]
    assert ranking.auroc(positive, scores) == pytest.approx(sk.roc_auc_score(positive, scores))
    assert ranking.average_precision(positive, scores) == pytest.approx(
        sk.average_precision_score(positive, scores)
    )
    placed = ranking.auroc_placements(positive, scores)
    assert placed[positive].mean() == pytest.approx(placed[~positive].mean())
    pairs = ranking.auroc_pairs(positive, scores, np.arange(400) % 9)
    assert pairs.sum() / (positive.sum() * (~positive).sum()) == pytest.approx(
        ranking.auroc(positive, scores)
    )


def test_the_mean_cost_of_a_confusion_matrix() -> None:
    costs = np.array([[0.0, 1.0], [5.0, 0.0]])
    assert float(ordinal.cost(np.array([[8.0, 2.0], [1.0, 9.0]]), costs)) == pytest.approx(
        (2 + 5) / 20
    )


def test_perfect_ranking_of_errors_has_the_least_aurc() -> None:
    right = np.array([True] * 90 + [False] * 10)
    best = selective.aurc(right, right.astype(float) + np.linspace(0.5, 0, 100))
    assert best < selective.aurc(right, np.zeros(100)) == pytest.approx(0.1)
    coverage, threshold = selective.coverage_at_error(right, np.linspace(1, 0, 100), 0.0)
    assert coverage == 0.9
    assert (np.linspace(1, 0, 100) >= threshold).sum() == 90


def test_diversity_of_copies_and_opposites() -> None:
    right = RNG.random((300, 1)) < 0.7
    copies = diversity.pairwise(np.repeat(right, 2, axis=1))
    assert copies["disagreement"][0, 1] == 0.0
    assert copies["q_statistic"][0, 1] == pytest.approx(1.0)
    assert copies["error_correlation"][0, 1] == pytest.approx(1.0)
    opposite = diversity.pairwise(np.concatenate([right, ~right], axis=1))
    assert opposite["disagreement"][0, 1] == pytest.approx(1.0)
    assert opposite["q_statistic"][0, 1] == pytest.approx(-1.0)


def test_ambiguity_splits_the_ensembles_loss_exactly() -> None:
    proba = softmax(RNG.normal(size=(400, 5, 4)) + np.eye(4)[LABELS][:, None])
    parts = diversity.ambiguity(proba, LABELS)
    assert parts["members"] - parts["ambiguity"] == pytest.approx(parts["ensemble"])
    points = diversity.kappa_error(proba.argmax(axis=2), LABELS, 4)
    assert points.shape == (10, 2)
    want = sk.cohen_kappa_score(proba[:, 0].argmax(axis=1), proba[:, 1].argmax(axis=1))
    assert points[0, 0] == pytest.approx(want)


def test_bins_of_equal_mass_without_a_block_are_those_of_the_other_rows() -> None:
    rng = np.random.default_rng(0)
    for digits in (1, 2, 8):  # ties of many rows, of few, none
        confidence, hit = np.round(rng.random(70), digits), (rng.random(70) < 0.5).astype(float)
        groups = np.sort(rng.integers(0, 7, 70))
        blocks = [np.array([0]), np.array([2, 6]), np.array([5])]
        found = mass_bins_without(confidence, hit, groups, blocks)
        for row, block in zip(found, blocks, strict=True):
            rest = ~np.isin(groups, block)
            bins = bins_equal_mass(confidence[rest])
            for at, values in enumerate((np.ones(70), confidence, hit)):
                want = np.bincount(bins, weights=values[rest], minlength=N_BINS)
                np.testing.assert_allclose(row[at], want, atol=1e-9)


@pytest.mark.parametrize("name", ["log_loss", "brier", "coverage"])
def test_a_metric_of_no_sample_is_nan_without_a_warning(name: str) -> None:
    empty = dataclasses.replace(one := sums_of(LABELS, PROBA, CHOSEN), others=0 * one.others)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(METRICS[name].of_sums(empty))


@pytest.mark.parametrize(
    ("name", "meant"),
    [("acc", "accuracy"), ("AUC", "auroc"), ("f1", "macro_f1"), ("roc-auc", "auroc")],
)
def test_a_common_name_of_a_metric_suggests_ours(name: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean '{meant}'"):
        metric(name)


def test_all_usual_names_lead_to_metrics() -> None:
    assert set(ALIASES.values()) <= METRICS.keys()
    assert not ALIASES.keys() & METRICS.keys()
