"""Bars of the costs of members, one pane per cost."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ensemble_kit.plots.lettering import name_ticks, short
from ensemble_kit.plots.style import INK, MUTED, color, grid, plain


def costs_figure(costs: Mapping[str, Mapping[str, float]], *, total: str) -> Figure:
    """Bars of each cost by member.

    Parameters
    ----------
    costs : mapping of cost to mapping of member to float
        The name of a cost is the label of its axis. All have the same members.
    total : str
        The row of all members together, in grey.
    """
    names = list(next(iter(costs.values())))
    places = np.arange(len(names))[::-1]
    figure, axes = grid(
        len(costs), n_columns=3, width=2.6, height=0.3 * len(names) + 0.9, sharey=True
    )
    for one, (cost, by_member) in zip(axes, costs.items(), strict=True):
        shades = [MUTED if name == total else color(0) for name in names]
        one.barh(places, list(by_member.values()), height=0.7, color=shades)
        plain(one, x=cost)
        one.xaxis.set_major_locator(MaxNLocator(4))
        name_ticks(one.yaxis, places, [short(name, 20) for name in names])
        one.tick_params(axis="y", labelcolor=INK)
        one.grid(axis="y", visible=False)
    return figure
