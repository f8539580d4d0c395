"""Greedy ensemble selection with replacement: the picks, and limits on them."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.combiners.weights.greedy_losses import AnyLoss, ErrorRate, LogLoss

DECIMALS = 6


@dataclasses.dataclass(frozen=True)
class Picks:
    """Members in the order in which they were picked, and the loss after each pick."""

    order: tuple[int, ...]
    losses: tuple[float, ...]

    def best_prefix(self) -> Picks:
        """The picks up to the lowest loss."""
        end = min(range(len(self.losses)), key=self.losses.__getitem__) + 1
        return Picks(self.order[:end], self.losses[:end])

    def weights(self, n_members: int) -> Array:
        """How often each member was picked, as shares that sum to 1; shape (n_members,)."""
        return np.bincount(self.order, minlength=n_members) / len(self.order)


@dataclasses.dataclass(frozen=True)
class Limit:
    """Limits on the different members of the picks.

    Parameters
    ----------
    costs : tuple of float, shape (n_members,)
    budget : float
        Largest total cost.
    max_members : int
    """

    costs: tuple[float, ...]
    budget: float
    max_members: int

    def allowed(self, order: list[int]) -> npt.NDArray[np.bool_]:
        """Which members may be picked next, shape (n_members,); picked members always may.

        Examples
        --------
        >>> Limit((1.0, 2.0, 4.0), budget=5.0, max_members=2).allowed([0]).tolist()
        [True, True, True]
        >>> Limit((1.0, 2.0, 4.0), budget=4.0, max_members=2).allowed([0]).tolist()
        [True, True, False]
        """
        used = sorted(set(order))
        costs = np.array(self.costs)
        fits = costs[used].sum() + costs <= self.budget
        if len(used) >= self.max_members:
            fits[:] = False
        fits[used] = True
        return np.asarray(fits)


def pick(
    loss: LogLoss | ErrorRate | AnyLoss,
    n_picks: int,
    *,
    n_first: int = 0,
    seed: int = 0,
    limit: Limit | None = None,
) -> Picks:
    """Add, `n_picks` times, the member that lowers the loss of the mean the most.

    Losses are rounded to 6 decimals. Of tied members, one that was picked before is preferred, which
    keeps the ensemble small; then a seeded draw decides. These are the rules of AutoGluon.

    Parameters
    ----------
    loss : LogLoss, ErrorRate or AnyLoss
    n_picks : int
    n_first : int
        Number of best members to start from, best first (Caruana's sorted initialisation).
    seed : int
    limit : Limit, optional

    References
    ----------
    Caruana, R., Niculescu-Mizil, A., Crew, G., & Ksikes, A. (2004). Ensemble selection from
    libraries of models. ICML.

    Examples
    --------
    >>> pick(LogLoss(np.array([[0.9, 0.2], [0.2, 0.9], [0.4, 0.4]])), n_picks=4).order
    (0, 1, 1, 0)
    """
    rng = np.random.RandomState(seed)
    order: list[int] = []
    losses: list[float] = []
    alone = loss.with_each()
    first = np.argsort(alone, kind="stable")[:n_first].tolist() if limit is None else []
    rounding = False
    for step in range(n_picks):
        scores = alone if step == 0 else loss.with_each()
        if rounding:
            scores = scores.round(DECIMALS)
        if limit is not None:
            scores = np.where(limit.allowed(order), scores, np.inf)
        best = first[step] if step < len(first) else _choose(scores, order, rng)
        score = float(scores[best])
        if step == 0 and abs(score) > 1e-4:
            rounding, score = True, round(score, DECIMALS)
        loss.add(best)
        order.append(best)
        losses.append(score)
    return Picks(tuple(order), tuple(losses))


def _choose(scores: Array, order: list[int], rng: np.random.RandomState) -> int:
    tied = np.flatnonzero(np.isclose(scores, scores.min(), atol=0, rtol=1e-12))
    used = [m for m in tied.tolist() if m in set(order)]
    return int(rng.choice(used if len(tied) > 1 and used else tied))
