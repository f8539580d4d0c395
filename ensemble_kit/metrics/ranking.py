"""Ranking metrics: area under the ROC curve and average precision, one class against the rest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints


def midranks(values: Array) -> Array:
    """Ranks from 1; equal values get their mean rank; shape (n_samples,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2.0)[inverse])


def auroc(positive: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Probability that a positive has a higher score than a negative, ties counting half.

    NaN if there are no positives or no negatives.

    Examples
    --------
    >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    is_positive = np.asarray(positive, dtype=bool)
    n_positive = int(is_positive.sum())
    n_negative = len(is_positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    ranks = midranks(np.asarray(scores))
    above = ranks[is_positive].sum() - n_positive * (n_positive + 1) / 2.0
    return float(above / (n_positive * n_negative))


def ranked_classes(labels: Ints, n_classes: int) -> list[int]:
    """Classes with a one-against-rest curve; with two classes only the second."""
    present = [c for c in range(n_classes) if 0 < int((labels == c).sum()) < len(labels)]
    return present[-1:] if n_classes == 2 else present


def macro_auroc(labels: Ints, proba: Array) -> float:
    """Mean over the classes present of one-against-rest AUROC."""
    values = [auroc(labels == c, proba[:, c]) for c in ranked_classes(labels, proba.shape[1])]
    return float(np.mean(values)) if values else float("nan")


def auroc_placements(positive: npt.NDArray[np.bool_], scores: Array) -> Array:
    """Placement of each sample: the share of the other class that is ranked correctly against it.

    Shape (n_samples,). The mean over positives and the mean over negatives are both the AUROC.

    References
    ----------
    DeLong, E. R., DeLong, D. M., & Clarke-Pearson, D. L. (1988). Comparing the areas under two or
    more correlated ROC curves. Biometrics 44(3), 837-845.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    overall = midranks(scores)
    out = np.empty(len(scores))
    out[positive] = (overall[positive] - midranks(scores[positive])) / n_negative
    out[~positive] = 1.0 - (overall[~positive] - midranks(scores[~positive])) / n_positive
    return out


def auroc_influence(positive: npt.NDArray[np.bool_], scores: Array, groups: Ints) -> Array:
    """First-order change of the AUROC by the weight of each group; shape (n_groups,), sums to 0.

    References
    ----------
    Obuchowski, N. A. (1997). Nonparametric analysis of clustered ROC curve data. Biometrics 53(2),
    567-578.
    """
    placed = auroc_placements(positive, scores)
    area = placed[positive].mean()
    share = np.where(positive, 1.0 / positive.sum(), 1.0 / (~positive).sum())
    return np.bincount(groups, weights=(placed - area) * share, minlength=int(groups.max()) + 1)


def auroc_pairs(positive: npt.NDArray[np.bool_], scores: Array, groups: Ints) -> Array:
    """Correctly ranked pairs of a positive of the row's group and a negative of the column's group.

    Shape (n_groups, n_groups). With group weights w the AUROC is w'Aw / w'Nw.
    """
    n_groups = int(groups.max()) + 1
    out = np.zeros((n_groups, n_groups))
    ours, owner = scores[positive], groups[positive]
    for h in range(n_groups):
        theirs = np.sort(scores[~positive & (groups == h)])
        if len(theirs):
            won = np.searchsorted(theirs, ours, "left") + np.searchsorted(theirs, ours, "right")
            out[:, h] = np.bincount(owner, weights=won / 2.0, minlength=n_groups)
    return out


def average_precision(positive: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Mean precision over the positives in the order of their scores; NaN without positives.

    Examples
    --------
    >>> round(average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]), 4)
    0.8333
    """
    is_positive = np.asarray(positive, dtype=bool)
    if not is_positive.any():
        return float("nan")
    values, inverse = np.unique(-np.asarray(scores, dtype=np.float64), return_inverse=True)
    hits = np.bincount(inverse, weights=is_positive, minlength=len(values))
    seen = np.cumsum(np.bincount(inverse, minlength=len(values)))
    return float((hits * np.cumsum(hits) / seen).sum() / is_positive.sum())


def macro_average_precision(labels: Ints, proba: Array) -> float:
    """Mean one-against-rest average precision of the classes present; of two classes, the second.

    NaN if all labels are of one class.
    """
    classes = ranked_classes(labels, proba.shape[1])
    values = [average_precision(labels == c, proba[:, c]) for c in classes]
    return float(np.mean(values)) if values else float("nan")
