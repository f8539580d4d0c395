"""How the images of a new patient become one prediction: by the rule by which `stack` evaluated patients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.combiners.base import Combined
from ensemble_kit.evaluation.runs.ensemble_folder import METRICS
from ensemble_kit.evaluation.runs.stored_ensembles import read_metrics
from ensemble_kit.evaluation.scores.fitted_pooling import PoolingRule
from ensemble_kit.evaluation.scores.per_group import POOLING, pooled
from ensemble_kit.run import Run

MEAN = "mean"


@dataclasses.dataclass(frozen=True, eq=False)
class Pooling:
    """A rule, or a fitted one in its place.

    Parameters
    ----------
    rule : {"mean", "vote", "max"}
    fitted : PoolingRule, optional
    """

    rule: str = MEAN
    fitted: PoolingRule | None = None

    def apply(
        self, images: Combined, groups: npt.NDArray[np.str_]
    ) -> tuple[Combined, npt.NDArray[np.str_]]:
        """One prediction a patient, and the patients' names in its order.

        Parameters
        ----------
        images : Combined
        groups : array of str, shape (n_images,)
        """
        names, numbered = np.unique(groups, return_inverse=True)
        if self.fitted is not None and len(names):
            return self.fitted.apply(images.proba, numbered.astype(np.int64)), names
        none = np.zeros(len(groups), dtype=np.int64)  # labels are not known, and not used
        combined, _, names = pooled(images, none, groups, self.rule)
        return combined, names

    def as_mapping(self) -> dict[str, Any]:
        """The rule as JSON values."""
        fitted = None if self.fitted is None else self.fitted.as_mapping()
        return {"rule": self.rule, "fitted": fitted}

    @classmethod
    def from_mapping(cls, stored: Mapping[str, Any]) -> Pooling:
        """The rule of `as_mapping`, or of the block `per_group` in `metrics.json`."""
        fitted = stored.get("fitted")
        if fitted is not None:
            offsets = np.array(fitted["offsets"], dtype=np.float64)
            return cls(fitted=PoolingRule(float(fitted["share"]), float(fitted["scale"]), offsets))
        rule = stored.get("rule", MEAN)
        return cls(rule if rule in POOLING else MEAN)


def pooling_of(run: Run, name: str) -> Pooling:
    """The rule by which a method's patients were evaluated; the mean where it was not stacked."""
    if not (run.ensemble_dir(name) / METRICS).is_file():
        return Pooling()
    metrics = read_metrics(run, name)
    return Pooling.from_mapping((metrics["cross_fitted"] or {}).get("per_group", {}))
