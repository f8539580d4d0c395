"""Bars of counts: images per class and part, and images by distance from the true class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.errors import counted
from ensemble_kit.plots.lettering import in_legend, name_ticks, short
from ensemble_kit.plots.style import INK, color, grid, plain


def class_counts_figure(
    images: Mapping[str, Sequence[int]],
    groups: Mapping[str, Sequence[int]],
    class_names: Sequence[str],
    unit: str,
) -> Figure:
    """Images per class, one bar per part; the numbers of images and patients are beside each bar.

    Parameters
    ----------
    images, groups : mapping of part to sequence of int, length n_classes
    class_names : sequence of str
    unit : str
        Name of a group, e.g. "patient"; "image" if groups are not known.
    """
    n, thick = len(class_names), 0.8 / max(len(images), 1)
    figure, (axes,) = grid(1, width=7.4, height=0.34 * n * len(images) + 1.0)
    for i, (part, counts) in enumerate(images.items()):
        places = np.arange(n)[::-1] + 0.4 - thick * (i + 0.5)
        axes.barh(places, counts, height=0.9 * thick, color=color(i), label=in_legend(part))
        for place, count, own in zip(places, counts, groups[part], strict=True):
            text = f" {count}" if unit == "image" else f" {count} of {counted(own, unit)}"
            axes.text(count, place, text, va="center", fontsize=7.5, color=INK)
    plain(axes, x="images")
    axes.margins(x=0.16)
    name_ticks(axes.yaxis, np.arange(n)[::-1], [short(name) for name in class_names])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(axis="y", visible=False)
    axes.legend(fontsize=7.5, frameon=False, loc="best")
    return figure


def class_distance_figure(shares: Mapping[str, Array]) -> Figure:
    """Distance of predictions from the true class, for ordinal classes.

    Parameters
    ----------
    shares : mapping of method to array, shape (2 * n_classes - 1,)
        Shares of the images whose prediction is -(n_classes - 1), ..., n_classes - 1 classes off.
    """
    figure, (axes,) = grid(1, width=7.4, height=2.8)
    thick = 0.8 / max(len(shares), 1)
    for i, (method, values) in enumerate(shares.items()):
        furthest = len(values) // 2
        places = np.arange(-furthest, furthest + 1) + thick * (i - (len(shares) - 1) / 2)
        axes.bar(places, values, width=0.9 * thick, color=color(i), label=in_legend(method))
        axes.set_xticks(range(-furthest, furthest + 1))
    plain(axes, x="classes off (negative: predicted too low)", y="share of images")
    axes.grid(axis="x", visible=False)
    axes.legend(fontsize=7.5, frameon=False, loc="best")
    return figure
