"""Quality against inference cost: sets of members, and the Pareto front."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from ensemble_kit.plots.labels import named_beside
from ensemble_kit.plots.style import MUTED, color, grid, plain


def pareto_figure(table: pd.DataFrame) -> Figure:
    """Every set as a point, the front as a line with its sets named.

    Parameters
    ----------
    table : DataFrame
        `members, cost, unit, metric, value, on_front`, as from `evaluation.diversity.pareto.pareto_table`.
    """
    figure, (axes,) = grid(1, width=7.4, height=4.2)
    axes.margins(x=0.06, y=0.1)
    others, front = table[~table["on_front"]], table[table["on_front"]]
    axes.scatter(others["cost"], others["value"], s=14, color=MUTED, alpha=0.5, linewidths=0)
    axes.plot(front["cost"], front["value"], "o-", color=color(0), linewidth=1.4, markersize=5)
    named_beside(axes, front[["cost", "value"]].to_numpy(), front["members"].tolist())
    if table["cost"].min() > 0 and table["cost"].max() > 20 * table["cost"].min():
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(LogFormatter())  # numbers as text, not as mathematics
        axes.xaxis.set_minor_formatter(LogFormatter())
    unit = table["unit"].iloc[0] if "unit" in table else "cost"
    name = table["metric"].iloc[0].replace("_", " ") if "metric" in table else "metric"
    plain(axes, x=f"{unit}, all members of the set", y=f"{name}, out-of-fold")
    return figure
