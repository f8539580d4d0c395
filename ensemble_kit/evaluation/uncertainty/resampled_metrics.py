"""AUROC, average precision and AURC under group weights: they are not sums over samples.

A resampler maps weights (n_resamples, n_groups) to values (n_resamples,). Up to
`MAX_PAIRED_GROUPS` groups it is exact, but average precision and AURC with more than `MAX_LEVELS`
score levels are computed on `THINNED_LEVELS` levels and shifted to the exact value. With more
groups it is a first-order approximation, clipped to [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints
from ensemble_kit.metrics.ranking import (
    auroc_influence,
    auroc_pairs,
    average_precision,
    macro_auroc,
    ranked_classes,
)
from ensemble_kit.metrics.selective import aurc, ranked_decisions
from ensemble_kit.predictions.method_predictions import decided

Resampler = Callable[[Array], Array]
MAX_PAIRED_GROUPS = 200
MAX_LEVELS, THINNED_LEVELS = 160, 64
# Below every positive weight of a group.
SMALLEST_WEIGHT = 1e-9


def auroc_resampler(labels: Ints, proba: Array, groups: Ints) -> Resampler:
    """Resampler of macro AUROC."""
    classes = ranked_classes(labels, proba.shape[1])
    n_groups = int(groups.max()) + 1
    if n_groups > MAX_PAIRED_GROUPS:
        value = macro_auroc(labels, proba)
        moves = [auroc_influence(labels == c, proba[:, c], groups) for c in classes]
        move = np.mean(moves, axis=0) if moves else np.zeros(n_groups)
        return _linear(value, move)
    terms = []
    for c in classes:
        positive = labels == c
        n_positive = np.bincount(groups, weights=positive, minlength=n_groups)
        n_negative = np.bincount(groups, weights=~positive, minlength=n_groups)
        pairs = auroc_pairs(positive, proba[:, c], groups)
        terms.append((pairs.astype(np.float32), n_positive, n_negative))

    def resample(weights: Array) -> Array:
        values = np.full((len(terms), len(weights)), np.nan)
        light = weights.astype(np.float32)
        for row, (pairs, n_positive, n_negative) in zip(values, terms, strict=True):
            below = (weights @ n_positive) * (weights @ n_negative)
            won = np.einsum("rg,rg->r", light @ pairs, weights)
            np.divide(won, below, out=row, where=below > 0)
        return _mean_of_defined(values)

    return resample


def _mean_of_defined(values: Array) -> Array:
    """Mean over axis 0 of the finite values; NaN if there are none."""
    finite = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(finite, values, 0.0).sum(axis=0) / finite.sum(axis=0)
    return mean


def average_precision_resampler(labels: Ints, proba: Array, groups: Ints) -> Resampler:
    """Resampler of macro average precision."""
    n_groups = int(groups.max()) + 1
    classes = ranked_classes(labels, proba.shape[1])
    some = [_precision_resampler(labels == c, proba[:, c], groups, n_groups) for c in classes]

    def resample(weights: Array) -> Array:
        if not some:
            return np.full(len(weights), np.nan)
        return _mean_of_defined(np.stack([one(weights) for one in some]))

    return resample


def _precision_resampler(
    positive: npt.NDArray[np.bool_], scores: Array, groups: Ints, n_groups: int
) -> Resampler:
    value, hit = average_precision(positive, scores), positive.astype(np.float64)
    if n_groups > MAX_PAIRED_GROUPS:
        # The mean over the positives of the precision at each.
        return _linear(value, _move(hit, hit, -scores, groups, n_groups))
    # Precision is needed at the positives only: samples between two of them join the lower level.
    at = np.unique(-scores[positive])
    level = _thinned(np.searchsorted(at, -scores, side="left"), len(at))
    n_levels = int(level.max()) + 1
    hits_by = _down_to(level, groups, n_groups, n_levels, hit)
    samples_by = _down_to(level, groups, n_groups, n_levels)

    def binned(weights: Array) -> Array:
        light = weights.astype(np.float32)
        hits, samples = light @ hits_by, light @ samples_by
        precision = hits / np.maximum(samples, SMALLEST_WEIGHT)
        at_level = np.diff(hits, axis=1, prepend=np.float32(0.0))
        above = np.einsum("rl,rl->r", at_level, precision).astype(np.float64)
        below = hits[:, -1].astype(np.float64)
        return np.divide(above, below, out=np.full(len(weights), np.nan), where=below > 0)

    return _shifted(binned, value, n_groups)


def aurc_resampler(
    labels: Ints, proba: Array, groups: Ints, predicted: Ints | None = None
) -> Resampler:
    """Resampler of the area under the risk-coverage curve of decisions ranked by probability."""
    n_groups = int(groups.max()) + 1
    chosen = decided(proba).predicted if predicted is None else predicted
    right, top = ranked_decisions(labels, proba, chosen)
    wrong = (~right).astype(np.float64)
    value = aurc(right, top)
    if n_groups > MAX_PAIRED_GROUPS:
        return _linear(value, _move(wrong, np.ones(len(labels)), -top, groups, n_groups))
    at = np.unique(-top)
    level = _thinned(np.searchsorted(at, -top, side="left"), len(at))
    n_levels = int(level.max()) + 1
    errors_by = _down_to(level, groups, n_groups, n_levels, wrong)
    samples_by = _down_to(level, groups, n_groups, n_levels)

    def binned(weights: Array) -> Array:
        light = weights.astype(np.float32)
        n_after = (light @ samples_by).astype(np.float64)
        e_after = (light @ errors_by).astype(np.float64)
        n, e = (np.diff(one, axis=1, prepend=0.0) for one in (n_after, e_after))
        e_before = e_after - e
        rate = e / np.maximum(n, SMALLEST_WEIGHT)
        # Equals in random order: sum over j = 1..n of (e_before + j rate) / (n_before + j).
        passed = _harmonic(n_after)
        steps = np.diff(passed, axis=1, prepend=0.0)
        area = np.einsum("rl,rl->r", e_before - (n_after - n) * rate, steps) + e.sum(axis=1)
        total = n_after[:, -1]
        return np.divide(area, total, out=np.full(len(weights), np.nan), where=total > 0)

    return _shifted(binned, value, n_groups)


def _harmonic(n: Array) -> Array:
    """1 + 1/2 + ... + 1/n, linear between whole numbers (jackknife weights are fractions)."""
    table = np.concatenate([[0.0], np.cumsum(1.0 / np.arange(1, int(n.max(initial=0)) + 2))])
    low = n.astype(np.int64)
    return np.asarray(table[low] + (n - low) * (table[low + 1] - table[low]))


def _thinned(level: Ints, n_levels: int) -> Ints:
    """Levels with neighbours merged if there are too many, shape (n_samples,)."""
    if n_levels <= MAX_LEVELS:
        return level
    return np.minimum(level * THINNED_LEVELS // n_levels, THINNED_LEVELS)


def _down_to(
    level: Ints, groups: Ints, n_groups: int, n_levels: int, weights: Array | None = None
) -> Array:
    """Sums per group down to each level, shape (n_groups, n_levels).

    float32 is exact for counts up to 16 million, and twice as fast.
    """
    cell = groups * n_levels + level
    sums = np.bincount(cell, weights=weights, minlength=n_groups * n_levels)
    return np.cumsum(sums.reshape(n_groups, n_levels), axis=1).astype(np.float32)


def _shifted(binned: Resampler, value: float, n_groups: int) -> Resampler:
    """Add to every value the error of binning on the whole table."""
    error = value - float(binned(np.ones((1, n_groups)))[0])
    return lambda weights: np.clip(binned(weights) + error, 0.0, 1.0)


def _linear(value: float, move: Array) -> Resampler:
    return lambda weights: np.clip(value + weights @ move, 0.0, 1.0)


def _move(event: Array, counted: Array, ranked: Array, groups: Ints, n_groups: int) -> Array:
    """Influence of each group on the mean, over `counted`, of the rate of `event` down to each sample.

    With sums E and N over all samples that rank no later, the metric is A = sum c E/N / C. Sample j
    moves it by (c_j (E_j / N_j - A) + sum over i no earlier than j of c_i (e_j - E_i / N_i) / N_i) / C.
    """
    levels, level = np.unique(ranked, return_inverse=True)
    n_levels = len(levels)

    def at(weights: Array | None) -> Array:
        return np.bincount(level, weights=weights, minlength=n_levels).astype(np.float64)

    rate = np.cumsum(at(event)) / np.cumsum(at(None))
    count, n = at(counted), np.cumsum(at(None))
    later = np.cumsum((count / n)[::-1])[::-1]
    later_rate = np.cumsum((count * rate / n)[::-1])[::-1]
    total = count.sum()
    rated = (count * rate).sum() / total
    moved = counted * (rate[level] - rated) + event * later[level] - later_rate[level]
    return np.bincount(groups, weights=moved / total, minlength=n_groups)


def _of_scores(make: Callable[[Ints, Array, Ints], Resampler]) -> Callable[..., Resampler]:
    """A resampler of a metric of probabilities, which ignores the predicted classes."""
    return lambda labels, proba, groups, _=None: make(labels, proba, groups)


# Functions of (labels, proba, groups, predicted); `predicted` defaults to the most probable classes.
RESAMPLERS: dict[str, Callable[..., Resampler]] = {
    "auroc": _of_scores(auroc_resampler),
    "average_precision": _of_scores(average_precision_resampler),
    "aurc": aurc_resampler,
}
