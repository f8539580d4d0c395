"""What `stack` stored of each method, `metrics.json`, as tidy tables.

Reads those files alone; judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from ensemble_kit.errors import command, first_few
from ensemble_kit.evaluation.runs.stored_ensembles import read_metrics, stored_methods, what_changed
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run

MEMBER_METRICS = ("balanced_accuracy", "accuracy", "auroc", "log_loss")
DIFFERENCES = {
    "in_sample_minus_cross_fitted": "in-sample - cross-fitted",
    "cross_fitted_minus_test": "cross-fitted - test",
}
Stored = Mapping[str, dict[str, Any]]


def current_metrics(
    run: Run, oof: Predictions, test: Predictions | None
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Every method's `metrics.json` by its name, and a caveat on those that are out of date.

    Methods that were stacked over other predictions than the run's are left out.

    Raises
    ------
    IntegrityError
        A stored file is damaged or was changed.
    """
    stored = {method: read_metrics(run, method) for method in stored_methods(run)}
    changed = {m: what_changed(run, m, metrics, oof, test) for m, metrics in stored.items()}
    old = {method: what for method, what in changed.items() if what}
    notes = []
    if old:
        what = first_few(dict.fromkeys(old.values()))
        notes.append(
            f"Not shown: {first_few(old, len(old))}. The run's predictions changed since they were "
            f"stacked ({what}). Run {command('stack', '--run', run.path)} again."
        )
    return {method: one for method, one in stored.items() if not changed[method]}, notes


def coupling_frame(stored: Stored) -> pd.DataFrame:
    """Cross-fitted minus nested by method and metric."""
    rows = [
        {"method": method, "part": "cross-fitted - nested", "metric": name, **interval}
        for method, metrics in stored.items()
        for name, interval in (metrics.get("cross_fitted_minus_nested") or {}).items()
        if name in MEMBER_METRICS
    ]
    return pd.DataFrame(rows, columns=["method", "part", "metric", "value", "low", "high"])


def optimism_frame(stored: Stored) -> pd.DataFrame:
    """Differences between the three figures: `method, part, metric, value, low, high`."""
    rows = [
        {"method": method, "part": title, "metric": name, "value": block[name]}
        for method, metrics in stored.items()
        for name in MEMBER_METRICS
        for key, title in DIFFERENCES.items()
        if name in (block := (metrics.get("differences") or {}).get(key) or {})
    ]
    return pd.DataFrame(rows, columns=["method", "part", "metric", "value", "low", "high"])
