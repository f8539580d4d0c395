"""All values of all methods as one long table, for `ensembles/scores.csv` and the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

COLUMNS = [
    "method", "part", "unit", "class", "metric", "value", "low", "high", "n", "n_groups", "n_ties",
]  # fmt: skip
PARTS = ("in_sample", "cross_fitted", "nested", "test")


def long_scores(methods: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One row per method, part, unit, class and metric.

    Parameters
    ----------
    methods : mapping of method to dict
        Each as in `metrics.json`.

    Returns
    -------
    pandas.DataFrame
        `unit` is "image" or the name of a group, e.g. "patient". `class` is "" for metrics of all
        classes. `n` is the number of images. Undefined values are NaN.
    """
    rows = [
        {"method": method, "part": part} | row
        for method, one in methods.items()
        for part in PARTS
        if one.get(part)
        for row in _rows(one[part], one["group_kind"])
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.astype({"value": float, "low": float, "high": float})


def _rows(values: Mapping[str, Any], unit: str) -> Iterator[dict[str, Any]]:
    sizes = {key: values[key] for key in ("n", "n_groups", "n_ties")}
    yield from _metrics(values, {"unit": "image", "class": ""} | sizes)
    pooled = values.get("per_group", {})
    yield from _metrics(
        pooled, {"unit": unit, "class": "", "n": values["n"], "n_groups": pooled.get("n_groups")}
    )
    for name, block in values.get("per_class", {}).items():
        yield from _metrics(block, {"unit": "image", "class": name, "n": block["n"]})


def _metrics(block: Mapping[str, Any], about: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, interval in block.items():
        if isinstance(interval, dict) and {*interval} == {"value", "low", "high"}:
            yield about | {"metric": name} | interval
