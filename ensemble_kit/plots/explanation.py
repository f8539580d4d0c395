"""Maps over an image: a panel of one image with all its members, and a sheet of many images.

Arrays and texts are handed in; nothing is computed but the grey image under a map.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ensemble_kit.arrays import Array
from ensemble_kit.plots.lettering import short
from ensemble_kit.plots.style import INK, MUTED, grid

Pixels = npt.NDArray[np.uint8]
# Even steps of lightness: readable in grey and with colour blindness.
EVIDENCE, SPREAD = "inferno", "viridis"
MOST_SPREAD = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class Pane:
    """One map of a panel.

    Parameters
    ----------
    title, caption : str
    relative : array, shape (height, width)
        0 to 1, or 0 to .5 if it is a spread.
    """

    title: str
    caption: str
    relative: Array
    is_spread: bool = False


def panel_figure(
    picture: Pixels,
    panes: Sequence[Pane],
    *,
    title: str,
    about: str,
    ledger: str,
    name: str,
) -> Figure:
    """The image, then each map over the image in grey.

    Parameters
    ----------
    picture : array of uint8, shape (height, width, 3)
    title : str
        Prediction and truth.
    about : str
        What the maps show, for the label of their scale.
    name : str
        What the image is called.
    ledger : str
        The sentence below.
    """
    n_columns = -(-(len(panes) + 1) // (2 if len(panes) > 2 else 1))
    n_columns = min(n_columns, 5)
    wide = picture.shape[1] / picture.shape[0]
    figure, axes = grid(len(panes) + 1, n_columns=n_columns, width=1.95 * wide, height=2.3)
    draw_picture(axes[0], picture)
    _title(axes[0], "image", "")
    for one, pane in zip(axes[1:], panes, strict=True):
        draw_map(one, picture, pane)
        _title(one, short(pane.title, 26), pane.caption)
    if any(pane.is_spread for pane in panes):
        _scale(figure, axes, SPREAD, MOST_SPREAD, "disagreement: standard deviation of members")
    _scale(figure, axes, EVIDENCE, 1.0, about)
    figure.suptitle(f"{title}\n{short(name, 70)}", fontsize=9.5, color=INK, x=0.01, ha="left")
    width = round(17.5 * figure.get_figwidth())
    figure.supxlabel(textwrap.fill(ledger, width), fontsize=8, color=INK, x=0.01, ha="left")
    return figure


def sheet_figure(
    pictures: Sequence[Pixels], maps: Sequence[Array], captions: Sequence[str], *, about: str
) -> Figure:
    """Many images, each beside the ensemble's map of it."""
    columns = min(4, len(pictures))
    figure, axes = grid(2 * len(pictures), n_columns=2 * columns, width=1.15, height=1.32)
    for i, (picture, found, caption) in enumerate(zip(pictures, maps, captions, strict=True)):
        left, right = axes[2 * i : 2 * i + 2]
        draw_picture(left, picture)
        draw_map(right, picture, Pane("", "", found))
        left.set_title(caption, fontsize=6.5, color=INK, loc="left", pad=3)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.0, hspace=0.0)
    _scale(figure, axes, EVIDENCE, 1.0, about)
    return figure


def draw_picture(axes: Axes, picture: Pixels) -> None:
    """An image without ticks."""
    axes.imshow(picture, interpolation="antialiased")
    _bare(axes)


def draw_map(axes: Axes, picture: Pixels, pane: Pane) -> None:
    """A map over the image in pale grey, with a line at half of its scale."""
    height, width = picture.shape[:2]
    top = MOST_SPREAD if pane.is_spread else 1.0
    grey = 0.2 + 0.8 * (picture.astype(np.float32) / 255) @ np.array([0.299, 0.587, 0.114], np.float32)  # fmt: skip
    place = (-0.5, width - 0.5, height - 0.5, -0.5)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=1, interpolation="antialiased")
    share = np.clip(pane.relative / top, 0, 1)
    colors = colormaps[SPREAD if pane.is_spread else EVIDENCE](share)
    colors[..., 3] = 0.1 + 0.5 * share
    axes.imshow(colors, extent=place, interpolation="bilinear")
    if not pane.is_spread and share.max() > 0.5 > share.min():
        rows, columns = share.shape
        x = (np.arange(columns) + 0.5) * width / columns - 0.5
        y = (np.arange(rows) + 0.5) * height / rows - 0.5
        axes.contour(x, y, share, levels=[0.5], colors=["#ffffff"], linewidths=0.7)
    axes.set_xlim(place[:2])
    axes.set_ylim(place[2:])
    _bare(axes)


def _title(axes: Axes, title: str, caption: str) -> None:
    axes.set_title(title, fontsize=8.5, color=INK, loc="left", pad=3)
    axes.set_xlabel(caption, fontsize=7, color=MUTED, loc="left", labelpad=2)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)


def _scale(figure: Figure, axes: Sequence[Axes], colors: str, top: float, label: str) -> None:
    drawn = ScalarMappable(Normalize(0, top), colormaps[colors])
    bar = figure.colorbar(drawn, ax=list(axes), location="right", shrink=0.75, aspect=32, pad=0.015)
    bar.set_label(label, fontsize=7, color=MUTED)
    bar.ax.tick_params(labelsize=6.5, colors=MUTED, length=2)
    bar.outline.set_visible(False)  # type: ignore[operator]
