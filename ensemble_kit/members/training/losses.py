"""The training loss (cross-entropy or focal, label smoothing, class weights), mixup and CutMix.

Class weights are computed from the training rows only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax, one_hot

from ensemble_kit.images.loading.to_device import to_device
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.recipe_sections import Regularize

EFFECTIVE_BETA = 0.999
# Lower limit of 1 - p in the focal loss: powers below 1 have no finite slope at 0.
LEAST_LEFT = 1e-6


def class_weights(
    labels: npt.NDArray[np.int64], n_classes: int, kind: str = "balanced"
) -> npt.NDArray[np.float32]:
    """Weights per class, shape (n_classes,); the mean weight of a sample is 1.

    Parameters
    ----------
    kind : {"balanced", "effective"}
        n_samples / (n_classes * count) (King & Zeng 2001; scikit-learn's "balanced"), or
        proportional to (1 - beta) / (1 - beta^count) with beta .999 (Cui et al. 2019,
        "Class-balanced loss based on effective number of samples").

    Examples
    --------
    >>> class_weights(np.array([0, 0, 0, 1]), 2).tolist()
    [0.6666666865348816, 2.0]
    """
    counts = np.bincount(labels, minlength=n_classes).astype(np.float64)
    with np.errstate(divide="ignore"):
        raw = (
            1.0 / counts
            if kind == "balanced"
            else (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**counts)
        )
    raw = np.where(counts > 0, raw, 0.0)  # an absent class has weight 0
    return (raw * len(labels) / (raw * counts).sum()).astype(np.float32)


class Loss(nn.Module):
    """Mean loss of logits (n, n_classes) against labels (n,) or class probabilities (n, n_classes)."""

    weight: Tensor | None

    def __init__(self, weight: Tensor | None, label_smoothing: float, focal_gamma: float) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.label_smoothing, self.focal_gamma = label_smoothing, focal_gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if not self.focal_gamma:
            return cross_entropy(logits, target, self.weight, label_smoothing=self.label_smoothing)
        soft = self._soft(target, logits.shape[1]).to(logits.dtype)
        log_proba = log_softmax(logits, dim=1)
        left = (-torch.expm1(log_proba)).clamp_min(LEAST_LEFT)
        terms = -soft * left**self.focal_gamma * log_proba
        if self.weight is not None:
            terms = terms * self.weight
        return terms.sum() / self.weight_of(target)

    def weight_of(self, target: Tensor) -> Tensor | float:
        """The divisor of the mean loss: the sum of class weights, or the number of labels."""
        # As in torch: the number of labels for class probabilities, even with class weights.
        if self.weight is None or target.ndim == 2:
            return float(len(target))
        return self.weight[target].sum()

    def _soft(self, target: Tensor, n_classes: int) -> Tensor:
        """Smoothed class probabilities, shape (n, n_classes)."""
        soft = target if target.ndim == 2 else one_hot(target, n_classes)
        return soft * (1 - self.label_smoothing) + self.label_smoothing / n_classes


def make_loss(
    recipe: Recipe, labels: npt.NDArray[np.int64], n_classes: int, device: torch.device
) -> Loss:
    """The loss of a recipe, for the training labels given."""
    weight = None
    if recipe.class_weights != "none":
        weight = torch.from_numpy(class_weights(labels, n_classes, recipe.class_weights)).to(device)
    return Loss(weight, recipe.label_smoothing, recipe.regularize.focal_gamma)


def mixed(
    images: Tensor,
    labels: Tensor,
    n_classes: int,
    regularize: Regularize,
    draws: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Images mixed with others of the batch, and their class probabilities.

    Mixup (Zhang et al. 2018) blends whole images, CutMix (Yun et al. 2019) pastes a box. If both
    are on, each batch uses one of them at even odds. Each batch has one mixing ratio, drawn from
    Beta(alpha, alpha).

    Parameters
    ----------
    images : tensor, shape (n, channels, height, width)
    labels : tensor of int, shape (n,), or of class probabilities, shape (n, n_classes)
    regularize : Regularize
        `mixup` and `cutmix` are the alphas; one of them is on.
    draws : torch.Generator
        On the CPU, so that the draws are the same for every device.
    """
    cut = regularize.cutmix > 0 and (
        regularize.mixup == 0 or bool(torch.rand((), generator=draws) < 0.5)
    )
    keep = _beta(regularize.cutmix if cut else regularize.mixup, draws)
    partner = to_device(torch.randperm(len(images), generator=draws), images.device)
    if cut:
        images, keep = _pasted(images, partner, keep, draws)
    else:
        images = images * keep + images[partner] * (1 - keep)
    soft = (labels if labels.ndim == 2 else one_hot(labels, n_classes)).to(images.dtype)
    return images, soft * keep + soft[partner] * (1 - keep)


def _beta(alpha: float, draws: torch.Generator) -> float:
    # A Beta(a, a) draw as a ratio of two Gamma(a) draws; torch's Gamma takes a generator.
    gammas = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=draws)
    return float(gammas[0] / gammas.sum().clamp_min(1e-30))


def _pasted(
    images: Tensor, partner: Tensor, keep: float, draws: torch.Generator
) -> tuple[Tensor, float]:
    height, width = images.shape[2:]
    side = (1 - keep) ** 0.5
    middle = torch.rand(2, generator=draws).tolist()
    edges = []
    for length, center in ((height, middle[0]), (width, middle[1])):
        half = side * length / 2
        low, high = center * length - half, center * length + half
        edges.append((max(round(low), 0), min(round(high), length)))
    (top, bottom), (left, right) = edges
    out = images.clone()
    out[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
    return out, 1 - (bottom - top) * (right - left) / (height * width)
