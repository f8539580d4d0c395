"""A pooling rule from images to patients, fitted out-of-fold.

A patient's score for a class is the mean log-probability of its top share of images. A penalised
logistic regression (scale and offsets) turns scores into probabilities. The share is chosen on
inner folds of patients.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, log_softmax, softmax
from ensemble_kit.combiners.base import Combined, decided
from ensemble_kit.metrics.proper_scores import log_loss_per_sample

Ints = npt.NDArray[np.int64]
# Shares of a patient's images: from the top few, which suits slides that are partly tumour, to all.
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
PENALTY = 1.0
N_INNER = 5
SMALLEST_PROBA = 1e-6


@dataclasses.dataclass(frozen=True, eq=False)
class PoolingRule:
    """A fitted pooling rule.

    Parameters
    ----------
    share : float
        Share of each patient's images that count for a class, the highest first; at least one.
    scale : float
    offsets : array, shape (n_classes,)

    References
    ----------
    Campanella, G., et al. (2019). Clinical-grade computational pathology using weakly supervised
    deep learning on whole slide images. Nature Medicine 25, 1301-1309.
    """

    share: float
    scale: float
    offsets: Array

    def apply(self, proba: Array, groups: Ints) -> Combined:
        """One prediction per group, in the order of their numbers."""
        return decided(self._proba(pooled_scores(proba, groups, self.share)))

    def _proba(self, scores: Array) -> Array:
        return softmax(self.scale * scores + self.offsets)

    def as_mapping(self) -> dict[str, float | list[float]]:
        """The rule as JSON values."""
        return {"share": self.share, "scale": self.scale, "offsets": self.offsets.tolist()}

    def __str__(self) -> str:
        images = "all images" if self.share == 1 else f"top {self.share:.0%} of images"
        return f"fitted: {images}"


def pooled_scores(proba: Array, groups: Ints, share: float) -> Array:
    """Mean of each group's highest log-probabilities per class, shape (n_groups, n_classes).

    Parameters
    ----------
    proba : array, shape (n_samples, n_classes)
    groups : array of int, shape (n_samples,)
        Numbered `0 .. n_groups - 1`.
    share : float
        Share of a group's images that count, rounded up.

    Examples
    --------
    >>> proba = np.array([[0.5, 0.5], [0.9, 0.1]])
    >>> np.exp(pooled_scores(proba, np.array([0, 0]), 0.5)).round(2).tolist()
    [[0.9, 0.5]]
    """
    logs = np.log(np.maximum(proba, SMALLEST_PROBA))
    sizes = np.bincount(groups)
    kept = np.ceil(share * sizes - 1e-9).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    out = np.empty((len(sizes), proba.shape[1]))
    for c in range(proba.shape[1]):
        order = np.lexsort((-logs[:, c], groups))
        place = np.arange(len(logs)) - starts[groups[order]]
        counts = place < kept[groups[order]]
        out[:, c] = np.bincount(groups[order], weights=logs[order, c] * counts) / kept
    return out


def fit_pooling(proba: Array, labels: Ints, groups: Ints) -> PoolingRule:
    """The pooling rule with the lowest log loss on held-out patients.

    Parameters
    ----------
    proba : array, shape (n_samples, n_classes)
        Cross-fitted probabilities of images.
    labels : array of int, shape (n_groups,)
    groups : array of int, shape (n_samples,)
        Numbered `0 .. n_groups - 1`.
    """
    scores = {share: pooled_scores(proba, groups, share) for share in SHARES}
    losses = {share: _left_out_loss(some, labels) for share, some in scores.items()}
    # Of shares with equal loss, the one that uses the most images.
    best = max(share for share in SHARES if losses[share] <= min(losses.values()) + 1e-9)
    return PoolingRule(best, *_logistic(scores[best], labels))


def _left_out_loss(scores: Array, labels: Ints) -> float:
    inner = _inner(labels)
    total = 0.0
    for k in np.unique(inner):
        kept = inner == k
        rule = PoolingRule(1.0, *_logistic(scores[~kept], labels[~kept]))
        total += float(log_loss_per_sample(labels[kept], rule._proba(scores[kept])).sum())
    return total / len(labels)


def _inner(labels: Ints) -> Ints:
    """Deterministic folds of patients, stratified by class."""
    fold = np.empty(len(labels), dtype=np.int64)
    order = np.argsort(labels, kind="stable")
    fold[order] = np.arange(len(labels)) % min(N_INNER, len(labels))
    return fold


def _logistic(scores: Array, labels: Ints) -> tuple[float, Array]:
    """Scale and offsets by Newton's method on the log loss, with a penalty towards scale 1, offsets 0."""
    n_classes = scores.shape[1]
    centred = scores - scores.mean(axis=1, keepdims=True)
    # Columns: the scale, then an offset for each class.
    at = np.concatenate([[1.0], np.zeros(n_classes)])
    pull = np.concatenate([[1.0], np.zeros(n_classes)])
    design = np.concatenate(
        [
            centred[:, :, None],
            np.broadcast_to(np.eye(n_classes), (len(scores), n_classes, n_classes)),
        ],
        axis=2,
    )  # (n_groups, n_classes, 1 + n_classes)
    truth = np.eye(n_classes)[labels]
    loss = _penalised(design, truth, at, pull)
    for _ in range(50):
        proba = softmax(design @ at)
        gradient = np.einsum("ncd,nc->d", design, proba - truth) + PENALTY * (at - pull)
        mean = np.einsum("ncd,nc->nd", design, proba)
        hessian = np.einsum("ncd,nc,nce->de", design, proba, design) - mean.T @ mean
        step = np.linalg.solve(hessian + PENALTY * np.eye(len(at)), gradient)
        length = 1.0
        while length > 1e-4 and _penalised(design, truth, at - length * step, pull) > loss:
            length /= 2
        at = at - length * step
        before, loss = loss, _penalised(design, truth, at, pull)
        if before - loss < 1e-10:
            break
    return float(max(at[0], 0.0)), at[1:]


def _penalised(design: Array, truth: Array, at: Array, pull: Array) -> float:
    fit = -float((truth * log_softmax(design @ at)).sum())
    return fit + PENALTY / 2 * float(((at - pull) ** 2).sum())


def cross_fitted_pooling(proba: Array, labels: Ints, groups: Ints, fold: Ints) -> Combined:
    """Predictions of each fold's groups by the rule fitted to the other folds.

    Parameters
    ----------
    proba : array, shape (n_samples, n_classes)
    labels, fold : array of int, shape (n_groups,)
    groups : array of int, shape (n_samples,)
        Numbered `0 .. n_groups - 1`.
    """
    out = np.empty((len(labels), proba.shape[1]))
    for k in np.unique(fold):
        kept = fold == k
        others = ~kept
        rows, held = others[groups], kept[groups]
        rule = fit_pooling(proba[rows], labels[others], _renumbered(groups[rows]))
        out[kept] = rule.apply(proba[held], _renumbered(groups[held])).proba
    return decided(out)


def _renumbered(groups: Ints) -> Ints:
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)
