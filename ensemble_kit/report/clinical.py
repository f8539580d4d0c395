"""The clinical block of the report: values that `stack` stored for the best method, and two figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.evaluation.clinical.net_benefit import decision_curve
from ensemble_kit.evaluation.clinical.one_class import OneClass
from ensemble_kit.evaluation.tables.clinical import CALIBRATED, Rows, clinical_tables
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.predictions.method_predictions import MethodPredictions

# Thresholds of the drawn curve.
THRESHOLDS = tuple(np.arange(1, 100) / 100)
STORED = {"cross-fitted": "cross_fitted", "test": "test"}
BEST_MEMBER = "best-member"


@dataclasses.dataclass(frozen=True, eq=False)
class ClinicalContent:
    """The block of one method, and the predictions that its figures are drawn from.

    Parameters
    ----------
    method : str
    block : mapping
        The block `clinical` of `metrics.json`.
    tables : mapping of (method, part) to OneClass
        For the method and the best member; parts are `cross-fitted` and `test`.
    """

    method: str
    block: Mapping[str, Any]
    tables: Mapping[tuple[str, str], OneClass]

    @property
    def parts(self) -> list[str]:
        return [part for part, key in STORED.items() if key in self.block]

    @property
    def title(self) -> str:
        """The positive class against the rest, in words."""
        return f"'{self.block['positive']}' against the rest"

    def text_tables(self, unit: str) -> list[tuple[str, Rows, str]]:
        """Title, rows with a header, and a sentence."""
        return list(clinical_tables(self.block, unit))

    def curves(self) -> dict[str, dict[str, Array]]:
        """By part and method, rows (threshold, net benefit, low, high)."""
        found: dict[str, dict[str, Array]] = {}
        for part in self.parts:
            for method in (self.method, BEST_MEMBER):
                if (method, part) in self.tables:
                    points = decision_curve(self.tables[method, part], THRESHOLDS).points
                    rows = [(p.threshold, *numbers_of(p.value)) for p in points]
                    found.setdefault(part, {})[method] = np.array(rows)
        return found

    def treat_all(self) -> dict[str, Array]:
        """By part, rows (threshold, net benefit) if every image is called positive."""
        at = np.array(THRESHOLDS)
        share = {part: self.tables[self.method, part].prevalence for part in self.parts}
        return {
            part: np.stack([at, p - (1.0 - p) * at / (1.0 - at)], axis=1)
            for part, p in share.items()
        }

    def bins(self) -> dict[str, Array]:
        """By part, rows (mean probability, observed share, low, high)."""
        return {
            part: np.array(
                [
                    (one["predicted"], *numbers_of(Interval(**one["observed"])))
                    for one in self.block[STORED[part]]["calibration"]["bins"]
                ]
            )
            for part in self.parts
        }

    def proba(self) -> dict[str, tuple[Array, Array]]:
        """By part, the probabilities of the positive images and of the others."""
        tables = {part: self.tables[self.method, part] for part in self.parts}
        return {p: (t.proba[t.positive], t.proba[~t.positive]) for p, t in tables.items()}

    def measures(self) -> dict[str, list[str]]:
        """By part, slope, intercept and observed over expected as lines of text."""
        return {
            part: [
                f"{name} {_words(Interval(**self.block[STORED[part]]['calibration'][key]))}"
                for key, (name, _) in CALIBRATED.items()
            ]
            for part in self.parts
        }


def clinical_content(
    methods: Sequence[str],
    stored: Mapping[str, Mapping[str, Any]],
    predictions: Mapping[tuple[str, str], MethodPredictions],
    class_names: Sequence[str],
) -> ClinicalContent | None:
    """The block of the first of these methods that has one; None if there is none.

    Parameters
    ----------
    methods : sequence of str
        The best first.
    stored : mapping of method to its `metrics.json`
    predictions : mapping of (method, part) to MethodPredictions
    class_names : sequence of str
    """
    method = next((m for m in methods if stored.get(m, {}).get("clinical")), None)
    if method is None:
        return None
    block = stored[method]["clinical"]
    if block["positive"] is None:
        return ClinicalContent(method, block, {})
    c = list(class_names).index(block["positive"])
    tables = {
        key: _one_class(one, c, block)
        for key, one in predictions.items()
        if key[0] in (method, BEST_MEMBER)
    }
    return ClinicalContent(method, block, tables)


def _one_class(predictions: MethodPredictions, c: int, block: Mapping[str, Any]) -> OneClass:
    points = [p for part in STORED.values() if part in block for p in block[part]["net_benefit"]]
    return OneClass.of(
        predictions, predictions.labels, predictions.groups, c,
        level=block["level"], intervals=any(p["method"]["low"] is not None for p in points),
    )  # fmt: skip


def numbers_of(interval: Interval) -> tuple[float, float, float]:
    """Value and ends of an interval; NaN if undefined."""
    ends = (interval.value, interval.low, interval.high)
    value, low, high = (np.nan if one is None else one for one in ends)
    return value, low, high


def _words(interval: Interval) -> str:
    if interval.value is None:
        return "n/a"
    if interval.low is None or interval.high is None:
        return f"{interval.value:.2f}"
    return f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"
