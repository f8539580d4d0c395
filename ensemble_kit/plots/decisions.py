"""Plots of stored decisions: probabilities with a threshold, and coverage of prediction sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.lettering import in_legend, name_ticks, short
from ensemble_kit.plots.style import INK, MUTED, color, grid, plain


def threshold_figure(
    proba: Mapping[str, tuple[Array, Array]], threshold: float, class_name: str
) -> Figure:
    """Histograms of the probability of a class, with the threshold; one pane per part.

    Parameters
    ----------
    proba : mapping of part to (positive, other)
        Probabilities of the images of the class, and of all others.
    threshold : float
    class_name : str
    """
    figure, axes = grid(len(proba), n_columns=2, width=3.9, height=2.7)
    edges = np.linspace(0, 1, 21).tolist()
    name = short(class_name, 18)
    for one, (part, (positive, other)) in zip(axes, proba.items(), strict=True):
        one.hist(
            [positive, other], edges, color=[color(0), color(4)], label=[in_legend(name), "other"]
        )
        one.axvline(threshold, color=INK, linewidth=1.2, linestyle="--")
        plain(one, title=part, x=f"probability of {name} (dashed: {threshold:.3f})", y="images")
        one.grid(axis="x", visible=False)
        one.legend(fontsize=7.5, frameon=False, loc="best")
    return figure


def set_coverage_figure(
    coverage: Mapping[str, Mapping[str, Sequence[float]]], nominal: float
) -> Figure:
    """Coverage of prediction sets by class, with intervals; one pane per part.

    Parameters
    ----------
    coverage : mapping of part to mapping of class to (value, low, high)
        NaN if there is no interval.
    nominal : float
        The target coverage, a dashed line.
    """
    rows = max(len(of) for of in coverage.values())
    figure, axes = grid(len(coverage), n_columns=2, width=3.9, height=0.3 * rows + 1.2)
    for one, (part, of_class) in zip(axes, coverage.items(), strict=True):
        places = np.arange(len(of_class))[::-1]
        for place, (value, low, high) in zip(places, of_class.values(), strict=True):
            one.plot([low, high], [place, place], color=color(0), linewidth=1.6)
            one.plot([value], [place], "o", color=color(0), markersize=4.5)
        one.axvline(nominal, color=MUTED, linewidth=1.0, linestyle="--")
        plain(one, title=part, x=f"coverage (dashed: target {nominal:.0%})")
        name_ticks(one.yaxis, places, [short(name, 18) for name in of_class])
        one.tick_params(axis="y", labelcolor=INK)
        one.grid(axis="y", visible=False)
        one.set_ylim(-0.7, len(of_class) - 0.3)
        one.set_xlim(right=1.02)
    return figure
