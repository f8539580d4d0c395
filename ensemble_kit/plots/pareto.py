"""Quality against inference cost: sets of members, and the front of those worth their price.

Figures are handed in; nothing is computed here.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from ensemble_kit.plots.style import INK, MUTED, color, grid, plain


def pareto_figure(table: pd.DataFrame) -> Figure:
    """Every set as a point, the front as a line with its sets named.

    Parameters
    ----------
    table : DataFrame
        `members, cost, unit, metric, value, on_front`, as `evaluation.costs.pareto_table` gives.
    """
    figure, (axes,) = grid(1, width=7.4, height=4.2)
    others, front = table[~table["on_front"]], table[table["on_front"]]
    axes.scatter(others["cost"], others["value"], s=14, color=MUTED, alpha=0.5, linewidths=0)
    axes.plot(front["cost"], front["value"], "o-", color=color(0), linewidth=1.4, markersize=5)
    for one in front.to_dict("records"):
        axes.annotate(
            one["members"].replace("+", " +\n"), (one["cost"], one["value"]), xytext=(6, -5),
            textcoords="offset points", fontsize=6.5, color=INK, va="top",
        )  # fmt: skip
    if table["cost"].min() > 0 and table["cost"].max() > 20 * table["cost"].min():
        axes.set_xscale("log")
    axes.margins(x=0.1, y=0.25)
    unit = table["unit"].iloc[0] if "unit" in table else "cost"
    name = table["metric"].iloc[0].replace("_", " ") if "metric" in table else "figure"
    plain(axes, x=f"{unit}, all members of the set", y=f"{name}, out-of-fold")
    return figure
