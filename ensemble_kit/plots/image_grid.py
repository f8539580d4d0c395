"""Axes for images in rows, placed in inches, with space for texts."""

from __future__ import annotations

import dataclasses
import textwrap

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ensemble_kit.plots.lettering import LetteredFigure
from ensemble_kit.plots.style import INK

# Digits per inch of text of one point; most letters are narrower.
LETTERS = 112
MARGIN = 0.08
LINE = 1.3 / 72  # inches from line to line, per point


@dataclasses.dataclass(frozen=True)
class Cell:
    """One image of a grid, in inches.

    Parameters
    ----------
    width, height : float
        Size of the image.
    above, below : float
        Space for texts.
    gap : float
        Space to the image on the right.
    """

    width: float
    height: float
    above: float = 0.0
    below: float = 0.0
    gap: float = 0.1


def image_grid(
    n_images: int, n_columns: int, cell: Cell, *, top: float, bottom: float, right: float
) -> tuple[Figure, list[Axes]]:
    """A figure with axes without ticks for each image; `top`, `bottom` and `right` are spaces in inches."""
    columns = min(n_columns, n_images)
    row = cell.above + cell.height + cell.below
    width = 2 * MARGIN + columns * (cell.width + cell.gap) - cell.gap + right
    height = top + -(-n_images // columns) * row + bottom
    figure = LetteredFigure(figsize=(width, height))
    found = []
    for i in range(n_images):
        r, c = divmod(i, columns)
        x = MARGIN + c * (cell.width + cell.gap)
        y = height - top - r * row - cell.above - cell.height
        found.append(add_box(figure, x, y, cell.width, cell.height))
    for one in found:
        one.set_axis_off()
    return figure, found


def add_box(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    """Axes at a place in inches from the lower left corner."""
    w, h = figure.get_size_inches()
    return figure.add_axes((x / w, y / h, width / w, height / h))


def write_at(figure: Figure, x: float, y: float, text: str, *, points: float) -> None:
    """Text whose upper left corner is at a place in inches."""
    w, h = figure.get_size_inches()
    figure.text(x / w, y / h, text, fontsize=points, color=INK, va="top", linespacing=1.2)


def filled(text: str, inches: float, points: float) -> str:
    """`text` in lines of at most `inches`.

    Examples
    --------
    >>> filled("a map of an ensemble", 1.0, 12.0)
    'a map of\\nan\\nensemble'
    """
    return textwrap.fill(text, most_letters(inches, points))


def most_letters(inches: float, points: float) -> int:
    """Letters that fit in a line."""
    return max(int(inches * LETTERS / points), 10)


def height_of(text: str, points: float) -> float:
    """Height of a text in inches."""
    return (text.count("\n") + 1) * points * LINE
