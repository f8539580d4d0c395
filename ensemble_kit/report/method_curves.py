"""The predictions of each method for each image, read from a run, and the curves drawn of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.evaluation.runs.ensemble_folder import PREDICTIONS
from ensemble_kit.evaluation.runs.method_predictions import of_frame
from ensemble_kit.evaluation.runs.stored_ensembles import read_ensemble_predictions
from ensemble_kit.metrics.calibration import reliability_table
from ensemble_kit.metrics.selective import aurc, ranked_decisions, risk_coverage
from ensemble_kit.metrics.sufficient_statistics import sums_of
from ensemble_kit.predictions.method_predictions import MethodPredictions, decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run

PredictionsByPart = Mapping[tuple[str, str], MethodPredictions]


def read_predictions(
    run: Run, methods: Iterable[str], tables: Mapping[str, Predictions]
) -> dict[tuple[str, str], MethodPredictions]:
    """These stacked methods' predictions, without the oracle's; the plain mean's where there are none."""
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
    """Rows (count, mean confidence, hit rate) of bins of equal count, shape (n_bins, 3)."""
    return reliability_table(sums_of(one.labels, one.proba, one.predicted).mass_bins)


def risk_coverage_curve(one: MethodPredictions) -> Array:
    """Rows (coverage, error among the covered), the surest first, shape (n_levels, 2)."""
    return risk_coverage(*ranked_decisions(one.labels, one.proba, one.predicted))


def area_under_risk_coverage(one: MethodPredictions) -> float:
    """Area under that curve: the mean error over all coverages."""
    return aurc(*ranked_decisions(one.labels, one.proba, one.predicted))


def confusion_counts(one: MethodPredictions) -> Array:
    """Counts of (true, predicted) over the rows that were decided, shape (n_classes, n_classes)."""
    counts = np.zeros((one.n_classes, one.n_classes), dtype=np.int64)
    made = one.predicted >= 0
    np.add.at(counts, (one.labels[made], one.predicted[made]), 1)
    return counts
