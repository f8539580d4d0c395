"""The leaderboard as a forest plot: the metric of every method with its interval."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ensemble_kit.plots.lettering import name_ticks
from ensemble_kit.plots.style import INK, MUTED, color, grid, plain


def leaderboard_figure(
    scores: pd.DataFrame, methods: Sequence[str], *, metric: str, baseline: str = "best-member"
) -> Figure:
    """One pane per part, with the same axes; methods from the top in the given order.

    Parameters
    ----------
    scores : DataFrame
        `method, part, metric, value, low, high`.
    methods : sequence of str
    metric : str
    baseline : str
        The method whose metric is drawn as a vertical line.
    """
    parts = [p for p in ("cross_fitted", "test") if p in set(scores["part"])]
    height = 0.27 * len(methods) + 0.9
    figure, axes = grid(len(parts), n_columns=2, width=4.9, height=height, sharex=True, sharey=True)
    rows = scores[scores["metric"] == metric].set_index(["part", "method"])
    places = np.arange(len(methods))[::-1]
    for one, part in zip(axes, parts, strict=True):
        plain(one, title=part.replace("_", "-"), x=metric.replace("_", " "))
        if (part, baseline) in rows.index:
            one.axvline(
                rows.loc[(part, baseline), "value"], color=MUTED, linewidth=0.8, linestyle=":"
            )
        for place, method in zip(places, methods, strict=True):
            if (part, method) not in rows.index:
                continue
            value, low, high = rows.loc[(part, method), ["value", "low", "high"]]
            shade = MUTED if method in (baseline, "mean", "oracle") else color(0)
            one.plot([low, high], [place, place], color=shade, linewidth=1.6)
            one.plot([value], [place], "o", color=shade, markersize=4.5)
        name_ticks(one.yaxis, places, methods)
        one.tick_params(axis="y", labelcolor=INK)
        one.grid(axis="y", visible=False)
        one.set_ylim(-0.7, len(methods) - 0.3)
    return figure
