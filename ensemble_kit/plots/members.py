"""Plots of members: correlation of their errors, and their gains in the mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.lettering import name_ticks, short
from ensemble_kit.plots.style import INK, MUTED, color, grid, plain

# Up to this many members, the cells of the matrix have numbers.
MAX_NUMBERED = 10


def members_figure(names: Sequence[str], correlation: Array, gains: Array, *, gain: str) -> Figure:
    """A matrix of error correlations, and each member's gain with its interval.

    Parameters
    ----------
    names : sequence of str
    correlation : array, shape (n_members, n_members)
        Correlation of the errors of two members; NaN if one is always right or always wrong.
    gains : array, shape (n_members, 3)
        Rows (value, low, high).
    gain : str
        Name of the gain, e.g. "Shapley value (balanced accuracy)".
    """
    height = max(2.6, 0.34 * len(names) + 1.2)
    figure, (matrix, bars) = grid(2, n_columns=2, width=3.9, height=height)
    labels = [short(name, 18) for name in names]
    _matrix(matrix, correlation, labels)
    places = np.arange(len(names))[::-1]
    for place, (value, low, high) in zip(places, gains, strict=True):
        bars.plot([low, high], [place, place], color=color(0), linewidth=1.6)
        bars.plot([value], [place], "o", color=color(0), markersize=4.5)
    bars.axvline(0, color=MUTED, linewidth=0.8, linestyle=":")
    plain(bars, title="Gain of the mean by each member", x=gain)
    name_ticks(bars.yaxis, places, labels)
    bars.tick_params(axis="y", labelcolor=INK)
    bars.grid(axis="y", visible=False)
    bars.set_ylim(-0.7, len(names) - 0.3)
    return figure


def _matrix(axes: Axes, correlation: Array, labels: Sequence[str]) -> None:
    shown = np.where(np.eye(len(labels), dtype=bool), np.nan, correlation)
    axes.pcolormesh(shown, cmap="RdBu_r", vmin=-1, vmax=1, edgecolors="white", linewidth=1)
    axes.invert_yaxis()
    for (row, column), value in np.ndenumerate(shown):
        if np.isfinite(value) and len(labels) <= MAX_NUMBERED:
            axes.text(
                column + 0.5, row + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=8,
                color="white" if abs(value) > 0.65 else INK,
            )  # fmt: skip
    plain(axes, title="Correlation of the errors")
    axes.grid(False)
    middles = np.arange(len(labels)) + 0.5
    name_ticks(axes.xaxis, middles, labels)
    name_ticks(axes.yaxis, middles, labels)
    if sum(map(len, labels)) > 30:
        for text in axes.get_xticklabels():
            text.set(rotation=45, ha="right")
