"""Confusion matrices: counts, and their share of the true class as colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.lettering import name_ticks, short
from ensemble_kit.plots.style import GRID, INK, grid, plain

PAGE_INCHES = 14.0
# Up to this many classes, zeros are written into the cells.
MAX_ZEROS = 20


def confusion_figure(tables: Mapping[str, Array], class_names: Sequence[str]) -> Figure:
    """One confusion matrix per title.

    Parameters
    ----------
    tables : mapping of title to array of int, shape (n_classes, n_classes)
        Rows are true classes, columns predicted ones.
    class_names : sequence of str
    """
    longest = max(len(short(name)) for name in class_names)
    side = max(2.6, (0.62 if len(class_names) <= 8 else 0.5) * len(class_names) + 1.2)
    side += 0.05 * max(0, longest - 12)
    n_columns = min(4, max(1, int(PAGE_INCHES // side)))  # so that counts are readable
    figure, axes = grid(len(tables), n_columns=n_columns, width=side, height=side)
    for one, (title, counts) in zip(axes, tables.items(), strict=True):
        draw_confusion(one, np.asarray(counts), class_names, title=title)
    return figure


def draw_confusion(
    axes: Axes, counts: Array, class_names: Sequence[str], *, title: str = ""
) -> None:
    """Draw one matrix into `axes`; a class without samples has an empty row."""
    totals = counts.sum(axis=1, keepdims=True)
    share = counts / np.maximum(totals, 1)
    axes.pcolormesh(share, cmap="Blues", vmin=0, vmax=1, edgecolors="white", linewidth=1)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    many = len(class_names) > 5
    for (row, column), count in np.ndenumerate(counts):
        if not count and len(class_names) > MAX_ZEROS:
            continue
        shade = "white" if share[row, column] > 0.55 else INK
        percent = "" if many or not totals[row] else f"\n{100 * share[row, column]:.0f} %"
        axes.text(
            column + 0.5, row + 0.5, f"{int(count)}{percent}",
            ha="center", va="center", fontsize=7 if many else 9, color=shade,
        )  # fmt: skip
    plain(axes, title=title, x="predicted", y="true")
    axes.grid(False)
    class_names = [short(name) for name in class_names]
    middles = np.arange(len(class_names)) + 0.5
    slanted = max(map(len, class_names)) * len(class_names) > 26
    for axis in (axes.xaxis, axes.yaxis):
        name_ticks(axis, middles, class_names)
    for text in axes.get_xticklabels() if slanted else ():
        text.set(rotation=45, ha="right")
    for spine in axes.spines.values():
        spine.set_color(GRID)
