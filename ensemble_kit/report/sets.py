"""Prediction sets of stacked methods: calibrated cross-fitted, their coverage measured on the test.

Computes with `evaluation.conformal`; reads no files.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ensemble_kit.arrays import Bools
from ensemble_kit.evaluation.decisions.conformal import calibrate, coverage
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.shares import shares
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.report.method_curves import PredictionsByPart

MISS = (0.1, 0.05)
COLUMNS = [
    "method",
    "promised",
    "coverage",
    "low",
    "high",
    "mean_size",
    "single",
    "empty",
    "is_all",
]


def set_table(
    answers: PredictionsByPart, methods: Sequence[str], *, by_group: bool
) -> pd.DataFrame:
    """Split-conformal sets (score LAC) of each method, one row per method and promise.

    Parameters
    ----------
    answers : mapping of (method, part) to MethodPredictions
    methods : sequence of str
        Those without test answers are left out.
    by_group : bool
        Let every patient weigh the same in calibration.

    Returns
    -------
    DataFrame
        `method, promised, coverage, low, high, mean_size, single, empty, is_all`; coverage as it
        is promised, each patient weighing the same, with its interval over patients; the last
        where there were too few patients to promise anything less than all classes.
    """
    rows = []
    for method in methods:
        inside, outside = answers.get((method, "cross-fitted")), answers.get((method, "test"))
        if inside is None or outside is None:
            continue
        for miss in MISS:
            groups = inside.groups if by_group else None
            fitted = calibrate(inside.proba, inside.labels, miss=miss, groups=groups)
            sets = fitted.predict(outside.proba)
            held = _coverage(sets, outside, by_group)
            found = coverage(sets, outside.labels) | {
                "coverage": held.value, "low": held.low, "high": held.high,
            }  # fmt: skip
            rows.append(
                {"method": method, "promised": 1 - miss, **found, "is_all": bool(sets.all())}
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def _coverage(sets: Bools, outside: MethodPredictions, by_group: bool) -> Interval:
    """Of the truth, each patient weighing the same (or each image)."""
    held = sets[np.arange(len(sets)), outside.labels].astype(np.float64)
    weight = np.ones(len(sets))
    if by_group:
        _, numbered, sizes = np.unique(outside.groups, return_inverse=True, return_counts=True)
        weight = 1.0 / sizes[numbered]
    parts = {"held": (held * weight, weight)}
    return shares(parts, outside.labels, outside.groups, sets.shape[1])["held"]
