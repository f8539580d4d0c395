"""Maps over an image: a panel of one image with all its members, and a sheet of many images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.image_grid import (
    MARGIN,
    Cell,
    add_box,
    filled,
    height_of,
    image_grid,
    most_letters,
    write_at,
)
from ensemble_kit.plots.lettering import short
from ensemble_kit.plots.style import INK, MUTED

Pixels = npt.NDArray[np.uint8]


class MapStyle(NamedTuple):
    """Colours of a kind of map over a grey image, from its lowest to its highest value.

    Parameters
    ----------
    colors : str
        Colour map, readable with colour blindness; maps without a sign are readable in grey too.
    low, high : float
    alpha : tuple of float
        Opacity at 0 and at the highest value.
    black : float
        The grey of black pixels, 0 to 1.
    """

    colors: str
    low: float
    high: float
    alpha: tuple[float, float]
    black: float


KINDS = {
    "evidence": MapStyle("inferno", 0.0, 1.0, (0.1, 0.6), 0.2),
    "pixels": MapStyle("Reds", 0.0, 1.0, (0.0, 0.9), 0.5),
    "spread": MapStyle("viridis", 0.0, 0.5, (0.1, 0.6), 0.2),
    "signed": MapStyle("RdBu_r", -1.0, 1.0, (0.0, 0.9), 0.5),
}
# Width of a scale in inches, without its label.
SCALE = 0.56


@dataclasses.dataclass(frozen=True, eq=False)
class Pane:
    """One map of a panel.

    Parameters
    ----------
    title, caption : str
    relative : array, shape (height, width)
        Values of its kind.
    kind : {"evidence", "pixels", "spread", "signed"}
        See `KINDS`.
    """

    title: str
    caption: str
    relative: Array
    kind: str = "evidence"


def panel_figure(
    picture: Pixels, panes: Sequence[Pane], *, title: str, about: str, ledger: str, name: str
) -> Figure:
    """The image, then each map over the image in grey.

    Parameters
    ----------
    picture : array of uint8, shape (height, width, 3)
    title : str
        Prediction and truth.
    about : str
        Label of the scale of the maps.
    name : str
        Name of the image.
    ledger : str
        The sentence below.
    """
    n_columns = min(-(-(len(panes) + 1) // (2 if len(panes) > 2 else 1)), 5)
    n_rows = -(-(len(panes) + 1) // n_columns)
    wide = picture.shape[1] / picture.shape[0]
    cell = Cell(2.0 * max(wide, 1.0), 2.0 * max(wide, 1.0) / wide, above=0.24, below=0.36)
    scales = _labels(panes, about, n_rows * cell.height)
    right = sum(SCALE + height_of(label, 7) for label in scales.values())
    inches = n_columns * (cell.width + cell.gap) + right - cell.gap
    heading = f"{filled(title, inches, 9.5)}\n{short(name, most_letters(inches, 9.5))}"
    ledger = filled(ledger, inches, 8)
    top, bottom = height_of(heading, 9.5) + 0.12, height_of(ledger, 8) + 0.1
    figure, axes = image_grid(len(panes) + 1, n_columns, cell, top=top, bottom=bottom, right=right)
    draw_picture(axes[0], picture)
    _title(axes[0], "image", "")
    for one, pane in zip(axes[1:], panes, strict=True):
        draw_map(one, picture, pane)
        _title(one, pane.title, pane.caption)
    _draw_scales(figure, scales, inches - right, bottom + cell.below, n_rows * cell.height)
    write_at(figure, MARGIN, figure.get_figheight() - 0.06, heading, points=9.5)
    write_at(figure, MARGIN, bottom - 0.02, ledger, points=8)
    return figure


def _labels(panes: Sequence[Pane], about: str, length: float) -> dict[str, str]:
    """Kind of map -> label of its scale."""
    words = {"spread": "disagreement: standard deviation of members"}
    kinds = dict.fromkeys(pane.kind for pane in panes)
    return {kind: filled(words.get(kind, about), length, 7) for kind in kinds}


def _draw_scales(figure: Figure, scales: dict[str, str], x: float, y: float, length: float) -> None:
    """Scales beside each other, on the right of the images."""
    x += MARGIN + 0.2
    for kind, label in scales.items():
        _scale(figure, (x, y, 0.11, length), kind, label)
        x += SCALE + height_of(label, 7)


def sheet_figure(
    pictures: Sequence[Pixels],
    maps: Sequence[Array],
    captions: Sequence[str],
    *,
    about: str,
    kind: str = "evidence",
) -> Figure:
    """Many images, each with the map of the ensemble beside it."""
    n_columns = 2 * min(4, len(pictures))
    wide = pictures[0].shape[1] / pictures[0].shape[0]
    cell = Cell(1.15, 1.15 / wide, above=0.17, gap=0.05)
    length = n_columns * 1.2 * 0.7
    label = filled(about, length, 7)
    bottom = 0.5 + height_of(label, 7)
    figure, axes = image_grid(
        2 * len(pictures), n_columns, cell, top=0.05, bottom=bottom, right=0.0
    )
    for i, (picture, found, caption) in enumerate(zip(pictures, maps, captions, strict=True)):
        left, right = axes[2 * i : 2 * i + 2]
        draw_picture(left, picture)
        draw_map(right, picture, Pane("", "", found, kind))
        left.set_title(caption, fontsize=6.5, color=INK, loc="left", pad=3)
    box = ((figure.get_figwidth() - length) / 2, bottom - 0.22, length, 0.1)
    _scale(figure, box, kind, label, orientation="horizontal")
    return figure


def draw_picture(axes: Axes, picture: Pixels) -> None:
    """An image without ticks."""
    axes.imshow(picture, interpolation="antialiased")


def draw_map(axes: Axes, picture: Pixels, pane: Pane) -> None:
    """A map over the image in pale grey, with a line at half of its scale."""
    height, width = picture.shape[:2]
    style = KINDS[pane.kind]
    grey = style.black + (1 - style.black) * (picture.astype(np.float32) / 255) @ np.array([0.299, 0.587, 0.114], np.float32)  # fmt: skip
    place = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    share = np.clip((pane.relative - style.low) / (style.high - style.low), 0, 1)
    axes.imshow(_tints(pane.kind)(share), extent=place, interpolation="bilinear")
    if pane.kind == "evidence" and share.max() > 0.5 > share.min():
        rows, columns = share.shape
        x = (np.arange(columns) + 0.5) * width / columns - 0.5
        y = (np.arange(rows) + 0.5) * height / rows - 0.5
        axes.contour(x, y, share, levels=[0.5], colors=["#ffffff"], linewidths=0.7)
    axes.set_xlim(place[:2])
    axes.set_ylim(place[2:])


def overlay(pane: Pane) -> Pixels:
    """A map as RGBA, shape (height, width, 4): almost clear at 0, opaque at the highest value."""
    style = KINDS[pane.kind]
    values = np.clip(pane.relative, style.low, style.high)
    colors = colormaps[style.colors]((values - style.low) / (style.high - style.low))
    colors[..., 3] = 0.15 + 0.85 * np.abs(values) / style.high
    return np.asarray(np.rint(255 * colors), dtype=np.uint8)


def _title(axes: Axes, title: str, caption: str) -> None:
    axes.set_title(title, fontsize=8.5, color=INK, loc="left", pad=3)
    axes.annotate(
        caption, (0, 0), (0, -3), xycoords="axes fraction", textcoords="offset points",
        fontsize=7, color=MUTED, va="top", linespacing=1.2,
    )  # fmt: skip


def _tints(kind: str) -> Colormap:
    """A colour map that is more transparent at lower values."""
    style = KINDS[kind]
    strength = np.abs(np.linspace(style.low, style.high, 256)) / style.high
    colors = colormaps[style.colors](np.linspace(0, 1, 256))
    colors[:, 3] = style.alpha[0] + (style.alpha[1] - style.alpha[0]) * strength
    return ListedColormap(colors)


def _scale(
    figure: Figure,
    box: tuple[float, float, float, float],
    kind: str,
    label: str,
    *,
    orientation: str = "vertical",
) -> None:
    """The scale of the maps at a place in inches."""
    drawn = ScalarMappable(Normalize(KINDS[kind].low, KINDS[kind].high), _tints(kind))
    bar = figure.colorbar(drawn, cax=add_box(figure, *box), orientation=orientation)
    bar.set_label(label, fontsize=7, color=MUTED, linespacing=1.2)
    bar.ax.tick_params(labelsize=6.5, colors=MUTED, length=2)
    bar.outline.set_visible(False)  # type: ignore[operator]
