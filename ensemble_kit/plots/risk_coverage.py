"""Risk-coverage curves: error of the most certain predictions by coverage."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.lettering import in_legend
from ensemble_kit.plots.style import MUTED, color, grid, line_style, plain

# Curves with this few levels, e.g. of votes, are also drawn with points.
FEW_LEVELS = 12


def risk_coverage_figure(
    curves: Mapping[str, Mapping[str, Array]],
    areas: Mapping[str, Mapping[str, float]],
    *,
    referred: float | None = None,
) -> Figure:
    """One pane per part, one line per method.

    Parameters
    ----------
    curves : mapping of part to mapping of method to array, shape (n_levels, 2)
        Rows (coverage, error), the most certain first, as from `metrics.selective.risk_coverage`.
    areas : mapping of the same keys to float
        The AURC of each, for the legend.
    referred : float, optional
        A share of referred images that gets a dashed line.
    """
    figure, axes = grid(len(curves), n_columns=3, width=3.9, height=3.6)
    for one, (part, methods) in zip(axes, curves.items(), strict=True):
        for i, (name, curve) in enumerate(methods.items()):
            # Within a level predictions are in random order: the error is constant up to the first level.
            points = np.concatenate([[[0.0, curve[0, 1]]], curve])
            one.plot(
                points[:, 0], points[:, 1], color=color(i), linestyle=line_style(i), linewidth=1.4,
                label=in_legend(f"{name} {areas[part][name]:.3f}"),
            )  # fmt: skip
            if len(curve) <= FEW_LEVELS:
                one.scatter(curve[:, 0], curve[:, 1], s=12, color=color(i))
        if referred is not None:
            one.axvline(1 - referred, color=MUTED, linewidth=1.0, linestyle="--")
        plain(
            one,
            title=part,
            x="share of images that are decided, the most certain first",
            y="error rate",
        )
        one.set_xlim(-0.01, 1.01)
        one.set_ylim(bottom=min(0.0, -0.02 * one.get_ylim()[1]))
        one.legend(fontsize=7, frameon=False, loc="best", title="AURC", title_fontsize=7)
    return figure
