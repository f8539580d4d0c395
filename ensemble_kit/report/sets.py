"""Prediction sets of stacked methods: calibrated cross-fitted, their coverage measured on the test.

Computes with `evaluation.conformal`; reads no files.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ensemble_kit.evaluation.conformal import calibrate, coverage
from ensemble_kit.report.answers import AnswersByPart

MISS = (0.1, 0.05)
COLUMNS = ["method", "promised", "coverage", "mean_size", "single", "empty", "is_all"]


def set_table(answers: AnswersByPart, methods: Sequence[str], *, by_group: bool) -> pd.DataFrame:
    """Split-conformal sets (score LAC) of each method, one row per method and promise.

    Parameters
    ----------
    answers : mapping of (method, part) to Answers
    methods : sequence of str
        Those without test answers are left out.
    by_group : bool
        Let every patient weigh the same in calibration.

    Returns
    -------
    DataFrame
        `method, promised, coverage, mean_size, single, empty, is_all`; the last where there were
        too few patients to promise anything less than all classes.
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
            found = coverage(sets, outside.labels)
            rows.append(
                {"method": method, "promised": 1 - miss, **found, "is_all": bool(sets.all())}
            )
    return pd.DataFrame(rows, columns=COLUMNS)
