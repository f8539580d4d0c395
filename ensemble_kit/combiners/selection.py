"""Greedy selection: a weighted mean of the members that help, weights from repeated picks.

The picking itself is in `greedy`.
"""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.combiners.base import Combined, Combiner, decided
from ensemble_kit.combiners.greedy import AnyLoss, ErrorRate, LogLoss, Picks, pick
from ensemble_kit.combiners.kernels import chunks
from ensemble_kit.combiners.rules import normalised
from ensemble_kit.combiners.splits import Ints
from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.seeding import derive_seed, generator

LOSSES = ("log_loss", "accuracy", "balanced_accuracy", "brier")


def weighted_mean_proba(logits: Array, weights: Array) -> Array:
    """Mean probability under `weights` (n_members,); float64 of shape (n_samples, n_classes)."""
    used = np.flatnonzero(weights)
    out = np.empty((len(logits), logits.shape[2]))
    for rows in chunks(*logits.shape):
        out[rows] = np.tensordot(softmax(logits[rows][:, used]), weights[used], axes=([1], [0]))
    return normalised(out)


class GreedySelection(Combiner):
    """Mean of members picked greedily with replacement (Caruana 2004), best prefix kept.

    Parameters
    ----------
    metric : {"log_loss", "accuracy", "balanced_accuracy", "brier"}
    n_picks : int
    n_first : int
        Start from so many of the best members (sorted initialisation).
    n_bags : int
        Repeat on so many resamples of whole groups and average the weights; 0 for none.
    max_members : int, optional
        Keep at most so many different members, those of most weight.
    seed : int

    References
    ----------
    Caruana, R., Niculescu-Mizil, A., Crew, G., & Ksikes, A. (2004). Ensemble selection from
    libraries of models. ICML.

    Examples
    --------
    >>> logits = np.log([[[0.9, 0.1], [0.5, 0.5]], [[0.1, 0.9], [0.6, 0.4]]])
    >>> GreedySelection().fit(logits, [0, 1]).weights_
    array([1., 0.])
    """

    is_fitted_to_labels = True
    fitted_names = ("weights_",)

    def __init__(
        self,
        metric: str = "log_loss",
        n_picks: int = 50,
        n_first: int = 0,
        n_bags: int = 0,
        max_members: int | None = None,
        seed: int = 0,
    ) -> None:
        self.metric = metric
        self.n_picks = n_picks
        self.n_first = n_first
        self.n_bags = n_bags
        self.max_members = max_members
        self.seed = seed

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:
        if self.metric not in LOSSES:
            raise UsageError(
                "Selection needs a loss it knows",
                f"got '{self.metric}'",
                did_you_mean(self.metric, LOSSES),
            )
        proba = softmax(logits).transpose(1, 0, 2)  # (n_members, n_samples, n_classes)
        n_members = logits.shape[1]
        bags = [np.arange(len(labels))]
        if self.n_bags:
            rng = generator(self.seed, "bags")
            bags = [_group_resample(groups, rng) for _ in range(self.n_bags)]
        weights = np.mean(
            [self._picks(proba[:, rows], labels[rows]).weights(n_members) for rows in bags], axis=0
        )
        self.weights_ = _heaviest(weights, self.max_members)

    def _picks(self, proba: Array, labels: Ints) -> Picks:
        seed = derive_seed(self.seed, "picks") % 2**32
        loss = _loss(self.metric, proba, labels)
        return pick(loss, max(self.n_picks, 1), n_first=self.n_first, seed=seed).best_prefix()

    def _combine(self, logits: Array) -> Combined:
        return decided(weighted_mean_proba(logits, self.weights_))


def _loss(metric: str, proba: Array, labels: Ints) -> LogLoss | ErrorRate | AnyLoss:
    rows = np.arange(len(labels))
    if metric == "log_loss":
        return LogLoss(proba[:, rows, labels])
    if metric == "brier":
        truth = np.eye(proba.shape[2])[labels]
        return AnyLoss(proba, lambda mixed: float(((mixed - truth) ** 2).sum(axis=1).mean()))
    if metric == "accuracy":
        return ErrorRate(proba, labels)
    counts = np.bincount(labels)
    return ErrorRate(proba, labels, 1.0 / (counts[labels] * (counts > 0).sum()))


def _group_resample(groups: Ints, rng: np.random.Generator) -> Ints:
    """Rows of as many groups as there are, drawn with replacement."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(int(groups.max()) + 2))
    drawn = rng.integers(0, len(starts) - 1, len(starts) - 1)
    return np.concatenate([order[starts[g] : starts[g + 1]] for g in drawn])


def _heaviest(weights: Array, max_members: int | None) -> Array:
    if max_members is None or (weights > 0).sum() <= max_members:
        return weights
    kept = np.argsort(-weights, kind="stable")[: max(max_members, 1)]
    out = np.zeros_like(weights)
    out[kept] = weights[kept]
    return np.asarray(out / out.sum())
