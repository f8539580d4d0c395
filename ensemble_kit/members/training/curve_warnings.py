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
    history: Sequence[Mapping[str, Any]],
    labels: npt.NDArray[np.int64],
    recipe: Recipe,
    chosen_epoch: int = -1,
) -> list[str]:
    """Plain warnings about a finished training; empty where nothing stands out.

    That the last epoch was the best speaks for more of them only where the rate stays up: a
    cosine, one-cycle or cyclic rate falls to about 0 by plan, and its last epoch should be the
    best. Nor does it say much of fewer than four epochs, one of which is the last by chance.

    Parameters
    ----------
    history : sequence of mapping
        One row per epoch: `val_log_loss, val_balanced_accuracy, val_answered_classes`, ...
    labels : array of int, shape (n_validation,)
        Of the rows that the validation figures are from.
    chosen_epoch : int
        0-based: the one whose weights are kept, which is what is judged; the last by default.
    """
    said = []
    n_present = len(np.unique(labels))
    selected = history[chosen_epoch]
    # An epoch that an earlier version trained has no such column.
    if n_present > 1 and selected.get("val_answered_classes") == 1:
        said.append(
            "Its kept weights give every watched image one class: nothing was learnt, or the rate is too high."
        )
    elif n_present > 1 and selected["val_balanced_accuracy"] < 1 / n_present + 0.02:
        said.append(
            f"Its kept weights are at chance on the watched rows (balanced accuracy {selected['val_balanced_accuracy']:.3f} "
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
