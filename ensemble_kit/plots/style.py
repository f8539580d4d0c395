"""One style for all plots: sizes, fonts, and colours for colour blindness and grey print.

Figures are built without pyplot, so that no global state changes and no window opens.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ensemble_kit.plots.lettering import LetteredFigure, letter, rewrite, spelt_out

# Okabe & Ito 2008, "Color universal design"; black and the seven hues.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
INK, MUTED, GRID = "#222222", "#777777", "#e4e4e4"


def color(index: int) -> str:
    """The colour of line number `index`."""
    return PALETTE[index % len(PALETTE)]


def line_style(index: int) -> str:
    """The dashes of line number `index`: a new pattern when the colours start again."""
    return ("-", "--", ":", "-.")[index // len(PALETTE) % 4]


def grid(
    n_axes: int, *, n_columns: int = 3, width: float = 3.4, height: float = 3.0, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with `n_axes` axes in rows; width and height of one axes in inches."""
    columns = max(1, min(n_columns, n_axes))
    rows = -(-n_axes // columns)
    figure = LetteredFigure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options).ravel().tolist()
    for spare in axes[n_axes:]:
        spare.remove()
    return figure, axes[:n_axes]


def plain(axes: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Titles and labels, a light grid, no box."""
    axes.set_title(title, fontsize=9.5, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=8.5, color=MUTED)
    axes.set_ylabel(y, fontsize=8.5, color=MUTED)
    axes.tick_params(labelsize=8, colors=MUTED, length=2)
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)


def svg_bytes(figure: Figure) -> bytes:
    """The figure as SVG, the same bytes for the same figure.

    Letters are drawn as outlines. If no installed font has one of them, all texts remain text, in the
    fonts of the viewer.
    """
    buffer = io.BytesIO()
    fonts = "none" if letter(figure) else "path"
    with matplotlib.rc_context({"svg.hashsalt": "ensemble-kit", "svg.fonttype": fonts}), _quiet():
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def png_bytes(figure: Figure, *, dots_per_inch: int = 200) -> bytes:
    """The figure as PNG, the same bytes for the same figure.

    A character that no installed font has is replaced by its number, such as [U+826F].
    """
    buffer = io.BytesIO()
    if missing := letter(figure):
        rewrite(figure, lambda text: spelt_out(text, missing))
    with _quiet():
        figure.savefig(buffer, format="png", dpi=dots_per_inch, metadata={"Software": None})
    return buffer.getvalue()


def svg_and_png(figure: Figure) -> tuple[bytes, bytes]:
    """The figure as SVG and as PNG, with one layout."""
    svg = svg_bytes(figure)
    figure.set_layout_engine("none")
    return svg, png_bytes(figure)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings of missing glyphs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield
