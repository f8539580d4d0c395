"""Pooling the images of a new patient into one prediction, by the rule that `stack` used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.protocol import POOLING
from ensemble_kit.evaluation.runs.ensemble_folder import METRICS
from ensemble_kit.evaluation.runs.stored_ensembles import read_metrics
from ensemble_kit.evaluation.scores.per_group import pooled
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.run import Run

MEAN = "mean"


@dataclasses.dataclass(frozen=True)
class Pooling:
    """A pooling rule.

    Parameters
    ----------
    rule : {"mean", "vote", "max"}
    """

    rule: str = MEAN

    def apply(
        self, images: Combined, groups: npt.NDArray[np.str_]
    ) -> tuple[Combined, npt.NDArray[np.str_]]:
        """One prediction per patient, and the patients' names in the same order.

        Parameters
        ----------
        images : Combined
        groups : array of str, shape (n_images,)
        """
        none = np.zeros(len(groups), dtype=np.int64)  # the labels are unknown and not used
        combined, _, names = pooled(images, none, groups, self.rule)
        return combined, names

    def as_mapping(self) -> dict[str, Any]:
        """The rule as JSON values."""
        return {"rule": self.rule}

    @classmethod
    def from_mapping(cls, stored: Mapping[str, Any]) -> Pooling:
        """The rule of `as_mapping`, or of the block `per_group` in `metrics.json`.

        Raises
        ------
        DataError
            The rule was fitted by an earlier version. This version has no fitted rules.
        """
        rule = stored.get("rule", MEAN)
        if stored.get("fitted") is not None:
            raise DataError(
                f"The method pools the images of a patient by a fitted rule ('{rule}')",
                f"this version pools by {', '.join(POOLING)}",
                "Stack the run again, and export it again",
            )
        return cls(rule if rule in POOLING else MEAN)


def pooling_of(run: Run, name: str) -> Pooling:
    """The rule of the method's evaluation per patient. The mean if the method was not stacked."""
    if not (run.ensemble_dir(name) / METRICS).is_file():
        return Pooling()
    metrics = read_metrics(run, name)
    return Pooling.from_mapping((metrics["cross_fitted"] or {}).get("per_group", {}))
