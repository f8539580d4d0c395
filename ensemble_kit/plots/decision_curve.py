"""Decision curves: net benefit by threshold, with treating all and treating none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.lettering import in_legend
from ensemble_kit.plots.style import MUTED, color, grid, plain


def decision_curve_figure(
    curves: Mapping[str, Mapping[str, Array]], treat_all: Mapping[str, Array]
) -> Figure:
    """One pane per part, one line per method; the first method has a band.

    Parameters
    ----------
    curves : mapping of part to mapping of method to array, shape (n_thresholds, 4)
        Rows (threshold, net benefit, low, high); NaN if there is no interval.
    treat_all : mapping of part to array, shape (n_thresholds, 2)
        Rows (threshold, net benefit) if every image is predicted positive.
    """
    figure, axes = grid(len(curves), n_columns=3, width=4.2, height=3.6)
    for one, (part, methods) in zip(axes, curves.items(), strict=True):
        for i, (name, rows) in enumerate(methods.items()):
            one.plot(rows[:, 0], rows[:, 1], color=color(i), linewidth=1.5, label=in_legend(name))
            if i == 0:
                one.fill_between(
                    rows[:, 0], rows[:, 2], rows[:, 3], color=color(i), alpha=0.15, linewidth=0
                )
        treat_all_line = treat_all[part]
        one.plot(
            treat_all_line[:, 0], treat_all_line[:, 1], color=MUTED, linewidth=1.0, linestyle="--",
            label="treat all",
        )  # fmt: skip
        one.axhline(0.0, color=MUTED, linewidth=1.0, linestyle=":", label="treat none")
        best = max(float(np.nanmax(rows[:, [1, 3]], initial=0.0)) for rows in methods.values())
        plain(one, title=part, x="threshold probability", y="net benefit (per image)")
        one.set_xlim(0.0, 1.0)
        one.set_ylim(-0.3 * best - 0.01, 1.08 * best + 0.01)
        one.legend(fontsize=7, frameon=False, loc="best")
    return figure
