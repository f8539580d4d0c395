"""Greedy selection: a weighted mean of members, with weights from repeated picks."""

from __future__ import annotations

import numpy as np

from ensemble_kit.arrays import Array, Ints, softmax
from ensemble_kit.combiners.metric_loss import ErrorCosts, metric_loss
from ensemble_kit.combiners.weights.greedy_losses import AnyLoss, ErrorRate, LogLoss
from ensemble_kit.combiners.weights.greedy_picks import Limit, Picks, pick
from ensemble_kit.combiners.weights.weighted_mean import WeightedMean
from ensemble_kit.errors import UsageError
from ensemble_kit.predictions.method_predictions import decided
from ensemble_kit.seeding import derive_seed, generator


class GreedySelection(WeightedMean):
    """Mean of members picked greedily with replacement (Caruana 2004), up to the lowest loss.

    Parameters
    ----------
    metric : str
        Any metric where higher, or lower, is always better. Log loss, accuracy and balanced accuracy
        are fast. Other metrics (AUROC, macro F1, MCC, quadratic weighted kappa, ...) are computed in
        full for every member at every pick: a third of a second per pick for 20 members and 100,000
        rows, about a hundred times as long.
    n_picks : int
    n_first : int
        Number of best members to start from (sorted initialisation).
    n_bags : int
        Number of resamples of whole groups over which weights are averaged; 0: no resampling.
    max_members : int, optional
        Largest number of different members.
    costs : tuple of float, shape (n_members,), optional
        Inference cost of each member, in any unit.
    budget : float, optional
        Largest total cost of the different members.
    error_costs : tuple of tuples of float, shape (n_classes, n_classes), optional
        Costs of errors, true class by predicted class, for the metric `expected_cost`.
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

    fitted_names = ("weights_",)

    def __init__(
        self,
        metric: str = "log_loss",
        n_picks: int = 50,
        n_first: int = 0,
        n_bags: int = 0,
        max_members: int | None = None,
        costs: tuple[float, ...] | None = None,
        budget: float | None = None,
        error_costs: ErrorCosts | None = None,
        seed: int = 0,
    ) -> None:
        self.metric = metric
        self.n_picks = n_picks
        self.n_first = n_first
        self.n_bags = n_bags
        self.max_members = max_members
        self.costs = costs
        self.budget = budget
        self.error_costs = error_costs
        self.seed = seed

    @property
    def can_fall_back(self) -> bool:
        """Whether there is no limit: the mean of all members would exceed it."""
        return self.max_members is None and self.budget is None

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:
        self._check_counts()
        limit = self._limit(logits.shape[1])
        proba = softmax(logits).transpose(1, 0, 2)  # (n_members, n_samples, n_classes)
        n_members = logits.shape[1]
        bags = [np.arange(len(labels))]
        if self.n_bags:
            rng = generator(self.seed, "bags")
            bags = [_group_resample(groups, rng) for _ in range(self.n_bags)]
        weights = np.mean(
            [self._picks(proba[:, rows], labels[rows], limit).weights(n_members) for rows in bags],
            axis=0,
        )
        self.weights_ = weights if limit is None else _heaviest(weights, limit)

    def _check_counts(self) -> None:
        for name, least in (("n_picks", 1), ("n_first", 0), ("n_bags", 0)):
            if getattr(self, name) < least:
                raise UsageError(
                    f"{name}={getattr(self, name)} is too small",
                    f"{name} must be at least {least}",
                    "Use e.g. n_picks=50, n_first=0, n_bags=20",
                )

    def _limit(self, n_members: int) -> Limit | None:
        if self.max_members is None and self.budget is None:
            return None
        if self.budget is None:
            return Limit((0.0,) * n_members, np.inf, max(self.max_members or n_members, 1))
        costs = tuple(self.costs or ())
        if len(costs) != n_members:
            raise UsageError(
                f"{len(costs)} costs were given for {n_members} members",
                "a budget needs the cost of each member",
                "Pass costs in the members' order",
            )
        if min(costs) > self.budget:
            raise UsageError(
                f"The budget {self.budget:g} is below the cost of the cheapest member, {min(costs):g}",
                "a budget must allow at least one member",
                "Raise the budget",
            )
        return Limit(costs, self.budget, max(self.max_members or n_members, 1))

    def _picks(self, proba: Array, labels: Ints, limit: Limit | None) -> Picks:
        seed = derive_seed(self.seed, "picks") % 2**32
        loss = _loss(self.metric, proba, labels, self.error_costs)
        picks = pick(loss, self.n_picks, n_first=self.n_first, seed=seed, limit=limit)
        return picks.best_prefix()


def _loss(
    metric: str, proba: Array, labels: Ints, error_costs: ErrorCosts | None
) -> LogLoss | ErrorRate | AnyLoss:
    if metric == "log_loss":
        return LogLoss(proba[:, np.arange(len(labels)), labels])
    if metric == "accuracy":
        return ErrorRate(proba, labels)
    if metric == "balanced_accuracy":
        counts = np.bincount(labels)
        return ErrorRate(proba, labels, 1.0 / (counts[labels] * (counts > 0).sum()))
    if metric == "brier":
        truth = np.eye(proba.shape[2])[labels]
        return AnyLoss(proba, lambda mixed: float(((mixed - truth) ** 2).sum(axis=1).mean()))
    loss = metric_loss(metric, labels, error_costs)
    return AnyLoss(proba, lambda mixed: loss(decided(mixed)))


def _group_resample(groups: Ints, rng: np.random.Generator) -> Ints:
    """Rows of as many groups as there are, drawn with replacement."""
    order = np.argsort(groups, kind="stable")
    starts = np.searchsorted(groups[order], np.arange(int(groups.max()) + 2))
    drawn = rng.integers(0, len(starts) - 1, len(starts) - 1)
    return np.concatenate([order[starts[g] : starts[g + 1]] for g in drawn])


def _heaviest(weights: Array, limit: Limit) -> Array:
    """Weights of the heaviest members within the limit; several bags together may exceed it."""
    used: list[int] = []
    for m in np.argsort(-weights, kind="stable").tolist():
        if weights[m] > 0 and limit.allowed(used)[m]:
            used.append(m)
    out = np.zeros_like(weights)
    out[used] = weights[used]
    return np.asarray(out / out.sum())
