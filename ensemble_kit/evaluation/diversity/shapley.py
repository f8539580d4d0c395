"""Contribution of each member: leaving one out, adding one, and exact Shapley values.

`worth` is the metric of each set of members, by bit mask: bit m is set if member m is in the set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import comb

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError

MAX_MEMBERS = 12


def member_values(proba: Array, value: Callable[[Array], float], empty: float) -> dict[str, Array]:
    """Contributions of each member to the plain mean, each of shape (n_members,).

    Parameters
    ----------
    proba : array, shape (n_samples, n_members, n_classes)
    value : callable
        Metric of mean probabilities (n_samples, n_classes); higher is better.
    empty : float
        The metric without any member, e.g. of the class shares.

    Returns
    -------
    dict
        `alone`; `left_out`: the loss without the member; `shapley`: its mean gain over all orders.
        The Shapley values sum to the gain of the whole ensemble.

    Raises
    ------
    DataError
        More than 12 members.

    References
    ----------
    Shapley, L. S. (1953). A value for n-person games. Rozemberczki, B., & Sarkar, R. (2021). The
    Shapley value of classifiers in ensemble games. CIKM.

    Examples
    --------
    >>> proba = np.array([[[0.9, 0.1], [0.5, 0.5]]])
    >>> found = member_values(proba, lambda p: float(p[0, 0]), empty=0.5)
    >>> found["shapley"].round(3).tolist(), found["left_out"].round(3).tolist()
    ([0.3, -0.1], [0.2, -0.2])
    """
    n_members = proba.shape[1]
    if n_members > MAX_MEMBERS:
        raise DataError(
            f"{n_members} members are too many for exact Shapley values",
            f"at most {MAX_MEMBERS} are possible",
            "Select fewer members first",
        )
    worth = np.full(1 << n_members, empty)
    for subset, mean in means_of(proba, range(1, 1 << n_members)):
        worth[subset] = value(mean)
    singles = worth[[1 << m for m in range(n_members)]]
    return {
        "alone": singles,
        "left_out": left_out(worth, n_members),
        "shapley": shapley(worth, n_members),
    }


def means_of(proba: Array, subsets: Sequence[int]) -> Iterator[tuple[int, Array]]:
    """Each nonempty set, and the mean probabilities of its members, shape (n_samples, n_classes)."""
    by_member = [np.ascontiguousarray(proba[:, m]) for m in range(proba.shape[1])]
    for subset in subsets:
        inside = [one for m, one in enumerate(by_member) if subset >> m & 1]
        yield subset, np.sum(inside, axis=0) / len(inside)


def left_out(worth: Array | Mapping[int, Array], n_members: int) -> Array:
    """Loss of the whole ensemble without each member, shape (n_members, ...)."""
    everyone = (1 << n_members) - 1
    return np.array([worth[everyone] - worth[everyone ^ (1 << m)] for m in range(n_members)])


def added(worth: Array | Mapping[int, Array], n_members: int, first: int) -> Array:
    """Gain of adding each member to member `first`, shape (n_members, ...); 0 for `first`."""
    return np.array([worth[1 << first | 1 << m] - worth[1 << first] for m in range(n_members)])


def shapley(worth: Array, n_members: int) -> Array:
    """Each member's mean gain over all orders in which a set can grow, shape (n_members, ...).

    Parameters
    ----------
    worth : array, shape (2 ** n_members, ...)
        By set, the empty set first; further axes, such as resamples, are preserved.
    """
    subsets = np.arange(1 << n_members)
    sizes = np.array([int(s).bit_count() for s in subsets])
    share = np.array([1.0 / (n_members * comb(n_members - 1, s)) for s in range(n_members)])
    values = []
    for m in range(n_members):
        without = subsets[(subsets >> m) & 1 == 0]
        gains = worth[without | (1 << m)] - worth[without]
        values.append(np.tensordot(share[sizes[without]], gains, axes=1))
    return np.array(values)
