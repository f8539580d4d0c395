"""The kappa-error diagram: how alike two members decide, against how often they err.

Points come from `metrics.diversity`; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.style import INK, MUTED, color, grid, plain

MAX_NAMED = 15


def diversity_figure(points: Array, names: Sequence[str]) -> Figure:
    """One point per pair of members; good pairs lie low (right) and left (different).

    Parameters
    ----------
    points : array, shape (n_pairs, 2)
        Kappa of the pair, and their mean error.
    names : sequence of str
        Of the pairs; written beside the figure, in the order of their errors, where they are few.
    """
    figure, (axes,) = grid(1, width=7.4, height=4.2)
    axes.margins(x=0.06, y=0.08)
    axes.scatter(points[:, 0], points[:, 1], s=22, color=color(0), zorder=3)
    if len(points) <= MAX_NAMED:
        places = spread(_heights(points[:, 1]), gap=0.055)
        for (kappa, error), name, place in zip(points.tolist(), names, places, strict=True):
            axes.annotate(
                name, (kappa, error), xytext=(1.03, place), textcoords="axes fraction",
                fontsize=7, color=INK, va="center",
                arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "relpos": (0, 0.5)},
            )  # fmt: skip
    plain(axes, x="kappa of the two members' answers (1: always the same)", y="their mean error")
    return figure


def _heights(values: Array) -> Array:
    """Where values stand between the lowest (0) and the highest (1)."""
    span = float(np.ptp(values))
    return np.full(len(values), 0.5) if span == 0 else (values - values.min()) / span


def spread(places: Array, *, gap: float) -> Array:
    """Places between 0 and 1 moved as little as keeps `gap` between neighbours, in their order.

    Examples
    --------
    >>> spread(np.array([0.5, 0.5, 0.0]), gap=0.2).round(2).tolist()
    [0.5, 0.7, 0.0]
    """
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    upwards = np.maximum.accumulate(places[order] - steps) + steps
    ceiling = 1.0 - steps[::-1]
    out = np.empty(len(places))
    out[order] = np.minimum(upwards, ceiling)
    return out
