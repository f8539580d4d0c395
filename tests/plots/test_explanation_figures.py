"""Panels and contact sheets of maps: places of maps and texts."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from ensemble_kit.plots.explanation import Pane, panel_figure, sheet_figure
from ensemble_kit.plots.lettering import short

LONG = short("invasive_ductal_carcinoma_of_no_special_type")


def picture(wide: int = 1) -> np.ndarray:
    return np.full((40, 40 * wide, 3), 200, np.uint8)


def boxes(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is drawn, with its place in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    hidden = {
        text
        for axes in figure.axes
        if not axes.axison
        for axis in (axes.xaxis, axes.yaxis)
        for text in axis.findobj(Text)
    }
    texts = [one for one in figure.findobj(Text) if one.get_text() and one not in hidden]
    return [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in texts]


def test_a_panel_has_each_map_at_its_place_and_the_given_text() -> None:
    found = np.zeros((4, 4))
    found[0, 3] = 1.0
    panes = [Pane("resnet18", "p 0.9", found), Pane("disagreement", "", found / 2, "spread")]
    figure = panel_figure(
        picture(), panes, title="Predicted: a", name="x.png", about="b", ledger="c"
    )
    image, member, spread, *scales = figure.axes
    titles = [one.get_title(loc="left") for one in (image, member, spread)]
    assert titles == ["image", "resnet18", "disagreement"]
    heat = member.images[1].get_array()
    assert heat[..., 3].argmax() == 3  # row 0, column 3
    assert member.images[1].get_extent() == [-0.5, 39.5, 39.5, -0.5]
    assert spread.images[1].get_array()[0, 3, 3] == heat[0, 3, 3]
    assert len(scales) == 2
    assert [one.get_text() for one in figure.texts] == ["Predicted: a\nx.png", "c"]


def test_signed_maps_are_red_if_positive_blue_if_negative_and_clear_at_0() -> None:
    found = np.array([[1.0, -1.0], [0.0, 0.0]])
    figure = panel_figure(
        picture(), [Pane("m", "", found, "signed")], title="", name="", about="", ledger=""
    )
    red, _, blue, alpha = np.moveaxis(figure.axes[1].images[1].get_array(), -1, 0)
    assert red[0, 0] > blue[0, 0]
    assert blue[0, 1] > red[0, 1]
    assert alpha[0, 0] == alpha[0, 1] > alpha[1, 0]


@pytest.mark.parametrize(("n_members", "wide"), [(1, 1), (2, 1), (5, 1), (10, 1), (3, 2)])
def test_texts_of_a_panel_are_inside_it_and_do_not_overlap(n_members: int, wide: int) -> None:
    spot = np.eye(4)
    caption = f"predicts {short(LONG, 24)}\np of {short(LONG, 14)} 0.67, empty map"
    panes = [Pane(f"{short(LONG, 16)} (+0.147)", caption, spot) for _ in range(n_members)]
    panes.append(Pane("disagreement", "highest 0.46", spot / 2, "spread"))
    figure = panel_figure(
        picture(wide),
        panes,
        title=f"Predicted: {LONG}; maps: {LONG} (p 0.12).  Truth: {LONG} (wrong)",
        about=f"integrated gradients: evidence for {LONG}, over each map's 99th percentile",
        ledger="The maps of the members that predict it overlap 0.77 among themselves. " * 4,
        name="x" * 120,
    )
    _fits(figure)


@pytest.mark.parametrize(("n_images", "wide"), [(1, 1), (3, 1), (9, 1), (3, 2)])
def test_texts_of_a_sheet_are_inside_it_and_do_not_overlap(n_images: int, wide: int) -> None:
    printed = f"{short(LONG, 14)} 0.67 (is {short(LONG, 14)})"
    figure = sheet_figure(
        [picture(wide)] * n_images,
        [np.eye(4)] * n_images,
        [f"{i + 1}  {printed}" for i in range(n_images)],
        about="integrated gradients of the ensemble, over each map's 99th percentile",
    )
    assert len(figure.axes) == 2 * n_images + 1
    _fits(figure)


def _fits(figure: Figure) -> None:
    found = boxes(figure)
    width, height = figure.bbox.width, figure.bbox.height
    outside = [t for t, b in found if min(b.x0, b.y0) < 0 or b.x1 > width or b.y1 > height]
    assert outside == []
    crossing = [
        (t, u)
        for i, (t, a) in enumerate(found)
        for u, b in found[i + 1 :]
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]
    assert crossing == []
