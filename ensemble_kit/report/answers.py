"""What each method answered to each image, read from a run's `predictions.csv` files.

Judges and draws nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.evaluation.runs.ensemble_folder import PREDICTIONS
from ensemble_kit.evaluation.runs.stored_ensembles import read_ensemble_predictions
from ensemble_kit.metrics.calibration import reliability_table
from ensemble_kit.metrics.selective import aurc, ranked_decisions, risk_coverage
from ensemble_kit.metrics.sufficient_statistics import sums_of
from ensemble_kit.predictions.method_predictions import decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """Probabilities and predicted classes of one method for one part, with the true labels.

    Parameters
    ----------
    labels : array of int, shape (n_samples,)
    proba : array, shape (n_samples, n_classes)
    predicted : array of int, shape (n_samples,)
        -1 where the method abstained.
    groups : array of str, shape (n_samples,)
    """

    labels: Array
    proba: Array
    predicted: Array
    groups: npt.NDArray[np.str_]

    def reliability(self) -> Array:
        """Rows (count, mean confidence, hit rate) of bins of equal count, shape (n_bins, 3)."""
        return reliability_table(sums_of(self.labels, self.proba, self.predicted).mass_bins)

    def risk_coverage(self) -> Array:
        """Rows (coverage, error among the covered), the surest first, shape (n_levels, 2)."""
        return risk_coverage(*ranked_decisions(self.labels, self.proba, self.predicted))

    def aurc(self) -> float:
        """Area under that curve: the mean error over all coverages."""
        return aurc(*ranked_decisions(self.labels, self.proba, self.predicted))

    def confusion(self) -> Array:
        """Counts of (true, predicted) over the rows that were decided, shape (n_classes, n_classes)."""
        n_classes = self.proba.shape[1]
        counts = np.zeros((n_classes, n_classes), dtype=np.int64)
        made = self.predicted >= 0
        np.add.at(counts, (self.labels[made], self.predicted[made]), 1)
        return counts


AnswersByPart = Mapping[tuple[str, str], Answers]


def read_answers(
    run: Run, methods: Iterable[str], tables: Mapping[str, Predictions]
) -> dict[tuple[str, str], Answers]:
    """These stacked methods' predictions, without the oracle's; the plain mean's where there are none."""
    out: dict[tuple[str, str], Answers] = {}
    for method in methods:
        folder = run.ensemble_dir(method)
        if method == "oracle" or not (folder / PREDICTIONS).is_file():
            continue
        frame = read_ensemble_predictions(folder)
        for part, table in tables.items():
            rows = frame[frame["split"] == table.kind]
            if len(rows):
                out[method, part] = _from_frame(rows, table.class_names)
    if not out:
        for part, table in tables.items():
            whole = table.predicted_by_all()
            proba = softmax(whole.logits).mean(axis=1)
            out["mean", part] = Answers(whole.labels, proba, decided(proba).predicted, whole.groups)
    return out


def _from_frame(rows: pd.DataFrame, class_names: tuple[str, ...]) -> Answers:
    index = {name: i for i, name in enumerate(class_names)}
    labels = rows["label"].map(index).to_numpy(dtype=np.int64)
    predicted = rows["predicted"].map(lambda name: index.get(name, -1)).to_numpy(dtype=np.int64)
    proba = rows[[f"p_{c}" for c in class_names]].to_numpy()
    return Answers(labels, proba, predicted, rows["group"].to_numpy(dtype=np.str_))
