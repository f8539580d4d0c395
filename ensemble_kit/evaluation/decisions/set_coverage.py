"""Measured coverage and size of prediction sets, per patient and per image."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.arrays import Array, Bools
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.evaluation.uncertainty.shares import shares
from ensemble_kit.predictions.method_predictions import MethodPredictions


@dataclasses.dataclass(frozen=True)
class SetOptions:
    """Settings of prediction sets.

    Parameters
    ----------
    score : {"lac", "aps", "raps"}
    alpha : float
        Error rate, between 0 and 1; the nominal coverage is `1 - alpha`.
    per_class : bool
        Calibrate for each class separately (class-conditional coverage).
    cross : bool
        Cross-conformal prediction: new samples are compared with each fold by that fold's models.
    n_resamples : int
        0: no intervals.
    level : float
        Confidence level of the intervals over whole patients, e.g. 0.95.
    seed : int
    """

    score: str = "lac"
    alpha: float = 0.1
    per_class: bool = False
    cross: bool = False
    n_resamples: int = 2000
    level: float = 0.95
    seed: int = 0

    @property
    def proven(self) -> float:
        """The guaranteed coverage; the nominal coverage is `1 - alpha`."""
        return max(0.0, 1.0 - (2.0 if self.cross else 1.0) * self.alpha)


@dataclasses.dataclass(frozen=True)
class SetMetrics:
    """Coverage and size of the sets of one class, or of all images.

    Parameters
    ----------
    n, n_groups : int
        Images, and patients with such images.
    covered : Interval
        Coverage with equal weight per patient. The guarantee is for this coverage.
    covered_per_image : Interval
        Coverage with equal weight per image.
    mean_size : float
        Mean number of classes in a set.
    single, empty, full : float
        Share of sets with one class, with none, with all.
    right_of_single : float or None
        Share of the one-class sets that contain the true class. The guarantee does not cover
        these sets alone.
    """

    n: int
    n_groups: int
    covered: Interval
    covered_per_image: Interval
    mean_size: float
    single: float
    empty: float
    full: float
    right_of_single: float | None


@dataclasses.dataclass(frozen=True, eq=False)
class PredictionSets:
    """Prediction sets of a method, and their measured coverage.

    Parameters
    ----------
    method : str
    options : SetOptions
    unit : str
        Unit with equal weight in calibration, e.g. "patient" or "image".
    thresholds : mapping of class to float, or None
        A class is in the set if its nonconformity score is at most this; None for cross-conformal
        sets.
    n_calibrated, n_units : int
    metrics : mapping of part to mapping of class (or "all") to SetMetrics
        `cross_fitted` (each fold with thresholds of the other folds) and `test`. A part with too
        few patients for the guarantee is missing.
    frame : DataFrame
        One row per image, as in `sets.csv`.
    notes : tuple of str
    """

    method: str
    options: SetOptions
    unit: str
    thresholds: Mapping[str, float] | None
    n_calibrated: int
    n_units: int
    metrics: Mapping[str, Mapping[str, SetMetrics]]
    frame: pd.DataFrame
    notes: tuple[str, ...]


def set_metrics(
    table: MethodPredictions, sets: Bools, options: SetOptions
) -> dict[str, SetMetrics]:
    """Coverage and sizes of all images, and of the images of each class."""
    labels = table.labels
    rows = {"all": np.ones(len(labels), dtype=bool)}
    rows |= {name: labels == c for c, name in enumerate(table.class_names)}
    covered = sets[np.arange(len(labels)), labels].astype(np.float64)
    parts: dict[str, tuple[Array, Array]] = {}
    for name, those in rows.items():
        weight = np.zeros(len(labels))
        weight[those] = _one_per_group(table.groups[those])
        parts[f"patient {name}"] = (covered * weight, weight)
        parts[f"image {name}"] = (covered * those, those.astype(np.float64))
    found = shares(
        parts, labels, table.groups, table.n_classes,
        level=options.level, intervals=options.n_resamples > 0,
    )  # fmt: skip
    size = sets.sum(axis=1)
    return {
        name: SetMetrics(
            n=int(those.sum()),
            n_groups=len(np.unique(table.groups[those])),
            covered=found[f"patient {name}"],
            covered_per_image=found[f"image {name}"],
            mean_size=float(size[those].mean()),
            single=float((size[those] == 1).mean()),
            empty=float((size[those] == 0).mean()),
            full=float((size[those] == table.n_classes).mean()),
            right_of_single=_mean(covered[those & (size == 1)]),
        )
        for name, those in rows.items()
        if those.any()
    }


def _mean(values: Array) -> float | None:
    return float(values.mean()) if len(values) else None


def _one_per_group(groups: npt.NDArray[np.str_]) -> Array:
    _, numbered, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / sizes[numbered])


def sets_frame(parts: Mapping[str, tuple[MethodPredictions, Bools]]) -> pd.DataFrame:
    """`sample_id, group, split, label, set, size, covered, in_<class> ...`, one row per image."""
    frames = []
    for one, sets in parts.values():
        names = np.array(one.class_names)
        columns: dict[str, Any] = {
            "sample_id": one.ids,
            "group": one.groups,
            "split": one.part,
            "label": names[one.labels],
            "set": [" | ".join(names[row]) for row in sets],
            "size": sets.sum(axis=1),
            "covered": sets[np.arange(len(sets)), one.labels].astype(int),
        }
        columns |= {f"in_{name}": sets[:, c].astype(int) for c, name in enumerate(one.class_names)}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def sets_json(found: PredictionSets) -> dict[str, Any]:
    """Everything in `sets.json`."""
    return {
        "schema_version": 1,
        "method": found.method,
        **dataclasses.asdict(found.options),
        "proven": found.options.proven,
        "unit": found.unit,
        "n_calibrated": found.n_calibrated,
        "n_units": found.n_units,
        "thresholds": found.thresholds,
        "figures": {
            part: {
                name: {
                    **dataclasses.asdict(one),
                    "covered": dataclasses.asdict(one.covered),
                    "covered_per_image": dataclasses.asdict(one.covered_per_image),
                }
                for name, one in of_class.items()
            }
            for part, of_class in found.metrics.items()
        },
        "notes": list(found.notes),
    }
