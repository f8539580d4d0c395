"""Reliability diagrams: share of correct predictions by confidence."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.lettering import in_legend
from ensemble_kit.plots.style import MUTED, color, grid, plain


def reliability_figure(tables: Mapping[str, Mapping[str, Array]]) -> Figure:
    """One pane per part, one line per method.

    Parameters
    ----------
    tables : mapping of part to mapping of method to array, shape (n_bins, 3)
        Rows (count, mean confidence, hit rate), as from `metrics.calibration.reliability_table`.
        The area of a point grows with its count.
    """
    figure, axes = grid(len(tables), n_columns=3, width=3.9, height=3.6)
    for one, (part, methods) in zip(axes, tables.items(), strict=True):
        one.plot([0, 1], [0, 1], color=MUTED, linewidth=0.7, linestyle=":")
        for i, (name, bins) in enumerate(methods.items()):
            area = 60 * bins[:, 0] / max(bins[:, 0].sum(), 1)
            one.plot(bins[:, 1], bins[:, 2], color=color(i), linewidth=1.2, label=in_legend(name))
            one.scatter(bins[:, 1], bins[:, 2], s=4 + area, color=color(i))
        lowest = min((float(b[:, 1].min()) for b in methods.values() if len(b)), default=0.0)
        plain(
            one, title=part, x="confidence (bins of equal count)", y="share of correct predictions"
        )
        one.set_xlim(max(0.0, lowest - 0.05), 1.02)
        one.set_ylim(-0.02, 1.02)
        one.legend(fontsize=7, frameon=False, loc="best")
    return figure
