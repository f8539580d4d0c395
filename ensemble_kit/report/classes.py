"""Chooses the classes of the page if there are many, and merges the others in confusion counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ensemble_kit.arrays import Ints
from ensemble_kit.predictions.method_predictions import MethodPredictions

# Up to this many classes, the page shows all of them.
MAX_SHOWN = 20
N_WORST = N_LARGEST = 10
N_ROC = 8


@dataclasses.dataclass(frozen=True)
class ShownClasses:
    """The classes in the tables and figures of the page.

    Parameters
    ----------
    names : tuple of str
        All classes.
    indices : tuple of int
        The classes shown, in their own order.
    in_roc : tuple of int
        The classes with a ROC curve, in their own order.
    method : str
        The method whose sensitivity was used for the choice.
    """

    names: tuple[str, ...]
    indices: tuple[int, ...]
    in_roc: tuple[int, ...]
    method: str

    @property
    def is_all(self) -> bool:
        return len(self.indices) == len(self.names)

    @property
    def shown_names(self) -> tuple[str, ...]:
        return tuple(self.names[c] for c in self.indices)

    @property
    def axis_names(self) -> tuple[str, ...]:
        """The names of the rows of `merged` counts."""
        n_others = len(self.names) - len(self.indices)
        return (*self.shown_names, f"{n_others} others") if n_others else self.names

    @property
    def note(self) -> str:
        """A sentence on the choice; empty if all classes are shown."""
        if self.is_all:
            return ""
        return (
            f"{len(self.indices)} of {len(self.names)} classes are shown: the {N_WORST} classes with "
            f"the lowest sensitivity ({self.method}, cross-fitted) and the {N_LARGEST} classes with "
            "the most images."
        )

    def merged(self, counts: Ints) -> Ints:
        """Counts (n_classes, n_classes) with all other classes merged into a last row and column."""
        if self.is_all:
            return counts
        place = np.full(len(self.names), len(self.indices))
        place[list(self.indices)] = np.arange(len(self.indices))
        out = np.zeros((len(self.indices) + 1,) * 2, dtype=np.int64)
        np.add.at(out, (place[:, None], place[None, :]), counts)
        return out


def shown_classes(
    names: Sequence[str], method: str, predictions: MethodPredictions
) -> ShownClasses:
    """All classes; if there are many, those with the lowest sensitivity and those with the most images.

    Parameters
    ----------
    names : sequence of str
    method : str
    predictions : MethodPredictions
        The cross-fitted predictions of that method.
    """
    n_classes = len(names)
    everything = tuple(range(n_classes))
    if n_classes <= MAX_SHOWN:
        return ShownClasses(tuple(names), everything, everything, method)
    n_images = np.bincount(predictions.labels, minlength=n_classes)
    n_found = np.bincount(
        predictions.labels[predictions.labels == predictions.predicted], minlength=n_classes
    )
    sensitivity = np.where(n_images > 0, n_found / np.maximum(n_images, 1), np.inf)
    worst = np.argsort(sensitivity, kind="stable")
    worst = worst[np.isfinite(sensitivity[worst])][:N_WORST].tolist()
    others = [c for c in np.argsort(-n_images, kind="stable").tolist() if c not in worst]
    shown = tuple(sorted(worst + others[:N_LARGEST]))
    return ShownClasses(tuple(names), shown, tuple(sorted(worst[:N_ROC])), method)
