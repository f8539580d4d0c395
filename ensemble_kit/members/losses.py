"""The training loss: cross-entropy with label smoothing and class weights.

Weights are counted on the rows that train, never on those that are kept out.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ensemble_kit.members.recipe import Recipe


def class_weights(labels: npt.NDArray[np.int64], n_classes: int) -> npt.NDArray[np.float32]:
    """Weights n_samples / (n_classes * count), shape (n_classes,); the mean weight of a sample is 1.

    Source: King & Zeng 2001, "Logistic regression in rare events data"; scikit-learn's "balanced".

    Examples
    --------
    >>> class_weights(np.array([0, 0, 0, 1]), 2).tolist()
    [0.6666666865348816, 2.0]
    """
    counts = np.bincount(labels, minlength=n_classes)
    return (len(labels) / (n_classes * np.maximum(counts, 1))).astype(np.float32)


def make_loss(
    recipe: Recipe, labels: npt.NDArray[np.int64], n_classes: int, device: torch.device
) -> nn.Module:
    """The loss of a recipe, for the training labels given; takes logits (n, n_classes) and labels (n,)."""
    weight = None
    if recipe.class_weights == "balanced":
        weight = torch.from_numpy(class_weights(labels, n_classes)).to(device)
    return nn.CrossEntropyLoss(weight=weight, label_smoothing=recipe.label_smoothing)
