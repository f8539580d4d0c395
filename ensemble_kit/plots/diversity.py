"""The kappa-error diagram: how alike two members decide, against how often they err.

Points come from `metrics.diversity`; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.style import INK, color, grid, plain

MAX_NAMED = 15


def diversity_figure(points: Array, names: Sequence[str]) -> Figure:
    """One point per pair of members; good pairs lie low (right) and left (different).

    Parameters
    ----------
    points : array, shape (n_pairs, 2)
        Kappa of the pair, and their mean error.
    names : sequence of str
        Of the pairs; written beside the points where they are few.
    """
    figure, (axes,) = grid(1, width=7.4, height=4.2)
    axes.scatter(points[:, 0], points[:, 1], s=22, color=color(0))
    if len(points) <= MAX_NAMED:
        for (kappa, error), name in zip(points.tolist(), names, strict=True):
            axes.annotate(
                name, (kappa, error), xytext=(5, 0), textcoords="offset points",
                fontsize=6.5, color=INK, va="center",
            )  # fmt: skip
        axes.margins(x=0.22, y=0.08)
    plain(axes, x="kappa of the two members' answers (1: always the same)", y="their mean error")
    return figure
