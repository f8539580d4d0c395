"""The predictions of each method for each image, read from a run, and curves computed from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.evaluation.runs.ensemble_folder import PREDICTIONS
from ensemble_kit.evaluation.runs.method_predictions import of_frame
from ensemble_kit.evaluation.runs.stored_ensembles import read_ensemble_predictions
from ensemble_kit.metrics import METRICS
from ensemble_kit.metrics.calibration import reliability_table
from ensemble_kit.metrics.selective import aurc, ranked_decisions, risk_coverage
from ensemble_kit.metrics.sufficient_statistics import sums_of
from ensemble_kit.predictions.method_predictions import MethodPredictions, decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run

# Smallest number of images in a bin of a reliability diagram.
MIN_IN_BIN = 20

PredictionsByPart = Mapping[tuple[str, str], MethodPredictions]


def read_predictions(
    run: Run, methods: Iterable[str], tables: Mapping[str, Predictions]
) -> dict[tuple[str, str], MethodPredictions]:
    """Predictions of these stacked methods except the oracle; if there are none, those of the mean."""
    out: dict[tuple[str, str], MethodPredictions] = {}
    for method in methods:
        folder = run.ensemble_dir(method)
        if method == "oracle" or not (folder / PREDICTIONS).is_file():
            continue
        frame = read_ensemble_predictions(folder)
        for part, table in tables.items():
            if (frame["split"] == table.kind).any():
                out[method, part] = of_frame(frame, table, run, method)
    if not out:
        for part, table in tables.items():
            whole = table.predicted_by_all()
            mean = decided(softmax(whole.logits).mean(axis=1))
            out["mean", part] = MethodPredictions.of(mean, whole)
    return out


def reliability(one: MethodPredictions) -> Array:
    """Rows (count, mean confidence, hit rate) of bins of about equal count, shape (n_bins, 3).

    Bins of fewer than 20 images, or of less than a tenth of all, are merged with their neighbours.
    """
    rows = reliability_table(sums_of(one.labels, one.proba, one.predicted).mass_bins)
    return merged_bins(rows, max(MIN_IN_BIN, len(one) // 10))


def merged_bins(rows: Array, at_least: int) -> Array:
    """Neighbouring bins merged until each has this many samples; the rest goes into the last one.

    Parameters
    ----------
    rows : array, shape (n_bins, 3)
        Rows (count, mean confidence, hit rate).

    Examples
    --------
    >>> merged_bins(np.array([[1, 0.2, 0.0], [3, 0.6, 1.0], [2, 0.9, 1.0]]), 2).round(3).tolist()
    [[4.0, 0.5, 0.75], [2.0, 0.9, 1.0]]
    """
    out: list[Array] = []
    for row in rows:
        sums = np.array([row[0], row[0] * row[1], row[0] * row[2]])
        if out and out[-1][0] < at_least:
            out[-1] = out[-1] + sums
        else:
            out.append(sums)
    if len(out) > 1 and out[-1][0] < at_least:
        last = out.pop()
        out[-1] = out[-1] + last
    return np.array([[n, confidence / n, hits / n] for n, confidence, hits in out]).reshape(-1, 3)


def calibration_error(one: MethodPredictions) -> float:
    """Expected calibration error over bins of equal width."""
    return METRICS["ece"].of(one.labels, one.proba, one.predicted)


def errors_after_referral(one: MethodPredictions, share: float) -> tuple[float, float, float]:
    """Error of all images; share of the least certain images that are referred; error of the others.

    Images of equal confidence are referred together, so the share can be smaller than `share`.
    """
    curve = risk_coverage_curve(one)
    covered = curve[curve[:, 0] >= 1.0 - share - 1e-9][0]
    return float(curve[-1, 1]), float(1.0 - covered[0]), float(covered[1])


def risk_coverage_curve(one: MethodPredictions) -> Array:
    """Rows (coverage, error of the covered images), the most certain first, shape (n_levels, 2)."""
    return risk_coverage(*ranked_decisions(one.labels, one.proba, one.predicted))


def area_under_risk_coverage(one: MethodPredictions) -> float:
    """Area under that curve: the mean error over all coverages."""
    return aurc(*ranked_decisions(one.labels, one.proba, one.predicted))


def confusion_counts(one: MethodPredictions) -> Array:
    """Counts of (true, predicted) class without abstentions, shape (n_classes, n_classes)."""
    counts = np.zeros((one.n_classes, one.n_classes), dtype=np.int64)
    is_decided = one.predicted >= 0
    np.add.at(counts, (one.labels[is_decided], one.predicted[is_decided]), 1)
    return counts
