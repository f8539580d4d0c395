"""Warnings about a finished training, read from its curve."""

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
    """Warnings about a finished training; empty if there is no problem.

    A best last epoch is a warning only if the learning rate stays up (schedules `constant`,
    `plateau`, `step`) and there are four epochs or more. Other schedules end near a rate of 0,
    so their last epoch should be the best one.

    Parameters
    ----------
    history : sequence of mapping
        One row per epoch: `val_log_loss, val_balanced_accuracy, val_predicted_classes`, ...
    labels : array of int, shape (n_validation,)
        Labels of the validation images.
    chosen_epoch : int
        The selected epoch, 0-based; the last one by default.
    """
    warnings = []
    n_present = len(np.unique(labels))
    selected = history[chosen_epoch]
    epoch = "last" if recipe.select_on == "none" else "selected"
    images = "validation split" if recipe.select_on == "inner" else "held-out fold"
    # Histories of earlier versions lack this column.
    if n_present > 1 and selected.get("val_predicted_classes") == 1:
        warnings.append(
            f"The {epoch} epoch predicts one class for all images of the {images}. Train more epochs, "
            "or lower the learning rate."
        )
    elif n_present > 1 and selected["val_balanced_accuracy"] < 1 / n_present + 0.02:
        warnings.append(
            f"The {epoch} epoch is not above chance on the {images} (balanced accuracy "
            f"{selected['val_balanced_accuracy']:.3f}, {n_present} classes)."
        )
    losses = [row["val_log_loss"] for row in history]
    if len(losses) >= 4 and all(b > a for a, b in itertools.pairwise(losses)):
        warnings.append(
            "The validation loss rose from the first epoch on: the learning rate may be too high."
        )
    if (
        len(losses) >= 4
        and losses[-1] == min(losses)
        and recipe.schedule in {"constant", "plateau", "step"}
    ):
        warnings.append(
            "The last epoch was the best one: the training may be unfinished. Try more epochs."
        )
    return warnings
