"""Calibration plots of one class: observed share by predicted probability, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.style import INK, MUTED, color, grid, plain

N_BARS = 25


def calibration_figure(
    bins: Mapping[str, Array],
    proba: Mapping[str, tuple[Array, Array]],
    measures: Mapping[str, Sequence[str]],
) -> Figure:
    """One pane per part: bins with intervals, the diagonal, and histograms of the probabilities.

    Parameters
    ----------
    bins : mapping of part to array, shape (n_bins, 4)
        Rows (mean probability, observed share, low, high); NaN if there is no interval.
    proba : mapping of part to (positive, other)
        Probabilities of the positive images (upwards) and of the others (downwards).
    measures : mapping of part to sequence of str
        Lines of text in the pane.
    """
    figure, axes = grid(len(bins), n_columns=3, width=4.2, height=4.2)
    for one, (part, rows) in zip(axes, bins.items(), strict=True):
        one.plot([0, 1], [0, 1], color=MUTED, linewidth=0.7, linestyle=":")
        one.plot(rows[:, 0], rows[:, 1], color=color(0), linewidth=1.2, marker="o", markersize=4)
        known = rows[np.isfinite(rows[:, 2:]).all(axis=1)]
        one.vlines(known[:, 0], known[:, 2], known[:, 3], color=color(0), linewidth=1.0)
        _spread(one, *proba[part])
        one.text(
            0.02, 0.98, "\n".join(measures[part]), transform=one.transAxes, fontsize=7.5,
            color=INK, va="top",
        )  # fmt: skip
        plain(one, title=part, x="predicted probability", y="observed share (bins of equal count)")
        one.set_xlim(-0.02, 1.02)
        one.set_ylim(-0.24, 1.02)
        one.set_yticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    return figure


def _spread(axes: object, positive: Array, other: Array) -> None:
    """Histograms below the curve: positive images upwards, the others downwards."""
    edges = np.linspace(0.0, 1.0, N_BARS + 1)
    up, down = (np.histogram(p, edges)[0] for p in (positive, other))
    scale = 0.08 / max(int(up.max()), int(down.max()), 1)
    for heights, hue in ((up * scale, color(1)), (-down * scale, MUTED)):
        axes.bar(  # type: ignore[attr-defined]
            edges[:-1], heights, width=1.0 / N_BARS, bottom=-0.13, align="edge", color=hue,
            linewidth=0,
        )  # fmt: skip
