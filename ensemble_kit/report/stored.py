"""What `stack` stored of each method, `metrics.json`, as tidy tables.

Reads those files alone; judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

MEMBER_METRICS = ("balanced_accuracy", "accuracy", "auroc", "log_loss")
DIFFERENCES = {
    "in_sample_minus_cross_fitted": "in-sample - cross-fitted",
    "cross_fitted_minus_test": "cross-fitted - test",
}
Stored = Mapping[str, dict[str, Any]]


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
