"""Names of points in the right margin of a figure, moved apart so that they stay readable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from ensemble_kit.arrays import Array
from ensemble_kit.plots.style import INK, MUTED

GAP = 0.055


def named_beside(axes: Axes, points: Array, names: Sequence[str]) -> None:
    """Write the names of points beside the axes, from bottom to top, with a line to each.

    Parameters
    ----------
    points : array, shape (n_points, 2)
    names : sequence of str
    """
    low, high = axes.get_ylim()
    places = spread((points[:, 1] - low) / (high - low), gap=GAP)
    for (x, y), name, place in zip(points.tolist(), names, places, strict=True):
        axes.annotate(
            name, (x, y), xytext=(1.03, place), textcoords="axes fraction",
            fontsize=7, color=INK, va="center",
            arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.5, "relpos": (0, 0.5)},
        )  # fmt: skip


def spread(places: Array, *, gap: float) -> Array:
    """Positions between 0 and 1, moved as little as possible to keep `gap` between neighbours.

    Examples
    --------
    >>> spread(np.array([0.5, 0.5, 0.0]), gap=0.2).round(2).tolist()
    [0.5, 0.7, 0.0]
    """
    order = np.argsort(places, kind="stable")
    steps = gap * np.arange(len(places))
    upwards = np.maximum.accumulate(places[order] - steps) + steps
    highest = 1.0 - steps[::-1]
    out = np.empty(len(places))
    out[order] = np.minimum(upwards, highest)
    return out
