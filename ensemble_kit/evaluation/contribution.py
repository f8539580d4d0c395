"""What each member adds: leaving one out, adding one, and exact Shapley values.

For the plain mean of probabilities, by any loss of it. Fits nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import comb

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError

MAX_MEMBERS = 12


def member_values(proba: Array, value: Callable[[Array], float], empty: float) -> dict[str, Array]:
    """Contributions of each member, each of shape (n_members,).

    Parameters
    ----------
    proba : array, shape (n_samples, n_members, n_classes)
    value : callable
        Figure of a mixture (n_samples, n_classes), higher is better.
    empty : float
        The figure without any member, e.g. that of guessing.

    Returns
    -------
    dict
        `alone`; `left_out`: what is lost without it; `shapley`: its mean gain over all orders,
        which sums to the whole ensemble's gain.

    Raises
    ------
    DataError
        More than 12 members: 2 to their power mixtures are too many.

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
            f"Exact Shapley values need at most {MAX_MEMBERS} members",
            f"got {n_members}",
            "Select fewer members first",
        )
    worth = np.full(1 << n_members, empty)
    total = np.zeros((len(proba), proba.shape[2]))
    previous = 0
    for step in range(1, 1 << n_members):
        team = step ^ (step >> 1)  # Gray code: neighbours differ by one member
        changed = (team ^ previous).bit_length() - 1
        total += proba[:, changed] if team > previous else -proba[:, changed]
        worth[team] = value(total / team.bit_count())
        previous = team
    teams = np.arange(1 << n_members)
    sizes = np.array([int(t).bit_count() for t in teams])
    share = np.array([1.0 / (n_members * comb(n_members - 1, s)) for s in range(n_members)])
    shapley = np.empty(n_members)
    for m in range(n_members):
        without = teams[(teams >> m) & 1 == 0]
        shapley[m] = (share[sizes[without]] * (worth[without | (1 << m)] - worth[without])).sum()
    everyone = (1 << n_members) - 1
    alone = worth[[1 << m for m in range(n_members)]]
    left_out = worth[everyone] - worth[[everyone ^ (1 << m) for m in range(n_members)]]
    return {"alone": alone, "left_out": left_out, "shapley": shapley}
