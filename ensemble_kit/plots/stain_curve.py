"""Probabilities by the amount of a stain, below small pictures of the changed image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.image_grid import filled
from ensemble_kit.plots.lettering import LetteredFigure, in_legend, short
from ensemble_kit.plots.style import INK, MUTED, color, line_style, plain


def stain_curve_figure(
    amounts: Array,
    proba: Array,
    class_names: Sequence[str],
    flips: Sequence[float],
    pictures: Sequence[npt.NDArray[np.uint8]],
    *,
    stain: str,
    title: str,
) -> Figure:
    """One line per class; a dotted line at each amount where the prediction changes.

    Parameters
    ----------
    amounts : array, shape (n_amounts,)
        1 is the unchanged image.
    proba : array, shape (n_amounts, n_classes)
    title : str
        Lines that are too long are wrapped.
    pictures : sequence of array of uint8
        Evenly spaced amounts from the first to the last.
    """
    figure = LetteredFigure(figsize=(5.2, 4.2), layout="constrained")
    rows = figure.add_gridspec(2, 1, height_ratios=(1, 2.6))
    strip = rows[0].subgridspec(1, len(pictures))
    shown = np.linspace(amounts[0], amounts[-1], len(pictures))
    for i, (picture, amount) in enumerate(zip(pictures, shown, strict=True)):
        axes = figure.add_subplot(strip[i])
        axes.imshow(picture, interpolation="antialiased")
        axes.set_axis_off()
        axes.set_title(f"x {amount:g}", fontsize=7.5, color=MUTED)
    axes = figure.add_subplot(rows[1])
    for c, name in enumerate(class_names):
        axes.plot(
            amounts, proba[:, c], color=color(c), linestyle=line_style(c), linewidth=1.7,
            label=in_legend(short(name)),
        )  # fmt: skip
    axes.axvline(1.0, color=MUTED, linewidth=0.8)
    for flip in flips:
        axes.axvline(flip, color=INK, linewidth=0.9, linestyle=":")
        axes.text(flip, 1.06, f"{flip:.2f}", fontsize=7, color=INK, ha="center")
    plain(axes, x=f"amount of {stain} (1: unchanged image)", y="probability")
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlim(amounts[0], amounts[-1])
    axes.legend(fontsize=7.5, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    title = "\n".join(filled(line, figure.get_figwidth(), 9.5) for line in title.splitlines())
    figure.suptitle(title, fontsize=9.5, color=INK, x=0.01, ha="left")
    return figure
