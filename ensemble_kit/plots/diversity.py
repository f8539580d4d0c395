"""The kappa-error diagram: the agreement of two members against their mean error."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.labels import named_beside
from ensemble_kit.plots.style import color, grid, plain

MAX_NAMED = 15


def diversity_figure(points: Array, names: Sequence[str]) -> Figure:
    """One point per pair of members; pairs that are accurate and different are at the lower left.

    Parameters
    ----------
    points : array, shape (n_pairs, 2)
        Kappa of the pair, and their mean error.
    names : sequence of str
        Names of the pairs; written beside the plot if there are few.
    """
    figure, (axes,) = grid(1, width=7.4, height=4.2)
    axes.margins(x=0.06, y=0.08)
    axes.scatter(points[:, 0], points[:, 1], s=22, color=color(0), zorder=3)
    if len(points) <= MAX_NAMED:
        named_beside(axes, points, names)
    plain(axes, x="kappa of the two members' predictions (1: always equal)", y="their mean error")
    return figure
