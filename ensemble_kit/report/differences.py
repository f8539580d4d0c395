"""Differences between the metrics of a method in `metrics.json`, as tidy tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

SHOWN = ("balanced_accuracy", "accuracy", "auroc", "log_loss")
DIFFERENCES = {
    "in_sample_minus_cross_fitted": "in-sample - cross-fitted",
    "cross_fitted_minus_test": "cross-fitted - test",
}
COLUMNS = ["row", "part", "metric", "value", "low", "high"]
Stored = Mapping[str, dict[str, Any]]


def leakage_frame(stored: Stored) -> pd.DataFrame:
    """Cross-fitted minus nested by method and metric."""
    rows = [
        {"row": method, "part": "cross-fitted - nested", "metric": name, **interval}
        for method, metrics in stored.items()
        for name, interval in (metrics.get("cross_fitted_minus_nested") or {}).items()
        if name in SHOWN
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def optimism_frame(stored: Stored) -> pd.DataFrame:
    """In-sample minus cross-fitted, and cross-fitted minus test; without the oracle."""
    rows = [
        {"row": method, "part": title, "metric": name, "value": block[name]}
        for method, metrics in stored.items()
        if method != "oracle"
        for name in SHOWN
        for key, title in DIFFERENCES.items()
        if name in (block := (metrics.get("differences") or {}).get(key) or {})
    ]
    return pd.DataFrame(rows, columns=COLUMNS)
