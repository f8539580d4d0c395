"""What a training curve gives away: sentences for the end of a job.

Judges a finished history; changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.members.recipe import Recipe


def guard(
    history: Sequence[Mapping[str, Any]], labels: npt.NDArray[np.int64], recipe: Recipe
) -> list[str]:
    """Plain warnings about a finished training; empty where nothing stands out.

    Parameters
    ----------
    history : sequence of mapping
        One row per epoch: `val_log_loss, val_balanced_accuracy, val_answered_classes`, ...
    labels : array of int, shape (n_watched,)
        Of the rows that the validation figures are from.
    """
    said = []
    n_present = len(np.unique(labels))
    last = history[-1]
    # An epoch that an earlier version trained has no such column.
    if n_present > 1 and last.get("val_answered_classes") == 1:
        said.append(
            "It ended by giving every watched image one class: nothing was learnt, or the rate is too high."
        )
    elif n_present > 1 and last["val_balanced_accuracy"] < 1 / n_present + 0.02:
        said.append(
            f"It ended at chance on the watched rows (balanced accuracy {last['val_balanced_accuracy']:.3f} "
            f"with {n_present} classes)."
        )
    losses = [row["val_log_loss"] for row in history]
    if len(losses) >= 4 and all(b > a for a, b in itertools.pairwise(losses)):
        said.append("The validation loss rose from the start: the rate may be too high.")
    if (
        len(losses) >= 4
        and losses[-1] == min(losses)
        and recipe.schedule in {"constant", "plateau", "step"}
    ):
        said.append(
            "The last epoch was the best one: the training may be unfinished; try more epochs."
        )
    return said
