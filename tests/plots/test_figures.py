"""Figures show the given values."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ensemble_kit.metrics.calibration import reliability_table
from ensemble_kit.metrics.selective import risk_coverage
from ensemble_kit.metrics.sufficient_statistics import sums_of
from ensemble_kit.plots.calibration import calibration_figure
from ensemble_kit.plots.decision_curve import decision_curve_figure
from ensemble_kit.plots.diversity import diversity_figure
from ensemble_kit.plots.faithfulness import faithfulness_figure
from ensemble_kit.plots.leaderboard import leaderboard_figure
from ensemble_kit.plots.pareto import pareto_figure
from ensemble_kit.plots.reliability import reliability_figure
from ensemble_kit.plots.risk_coverage import risk_coverage_figure
from ensemble_kit.plots.stain_curve import stain_curve_figure


def test_the_reliability_line_goes_through_the_bins() -> None:
    rng = np.random.default_rng(0)
    bins = reliability_table(
        sums_of(rng.integers(0, 3, 90), rng.dirichlet([1, 1, 1], 90)).mass_bins
    )
    line = reliability_figure({"test": {"mean": bins}}).axes[0].lines[1]
    np.testing.assert_array_equal(line.get_xydata(), bins[:, 1:])


def test_a_risk_coverage_line_is_the_curve_and_its_legend_the_area() -> None:
    right, confidence = np.array([1, 1, 0, 1]), np.array([0.9, 0.8, 0.7, 0.6])
    curve = risk_coverage(right, confidence)
    axes = risk_coverage_figure({"test": {"vote": curve}}, {"test": {"vote": 0.146}}).axes[0]
    (line,) = axes.lines
    np.testing.assert_array_equal(line.get_xydata()[1:], curve)
    assert line.get_xydata()[0].tolist() == [0.0, curve[0, 1]]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == ["vote 0.146"]
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), curve)


def test_the_forest_shows_each_interval_and_the_line_of_the_baseline() -> None:
    rows = [("best-member", 0.7, 0.6, 0.8), ("vote", 0.75, 0.65, 0.9)]
    scores = pd.DataFrame(
        [
            {"method": m, "part": "test", "metric": "accuracy", "value": v, "low": a, "high": b}
            for m, v, a, b in rows
        ]
    )
    axes = leaderboard_figure(scores, ["vote", "best-member"], metric="accuracy").axes[0]
    baseline, interval, point = axes.lines[:3]
    assert list(baseline.get_xdata()) == [0.7, 0.7]
    assert list(interval.get_xdata()) == [0.65, 0.9]
    assert list(point.get_xdata()) == [0.75]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["vote", "best-member"]


def test_pairs_are_points_and_named_if_there_are_few() -> None:
    points = np.array([[0.5, 0.2], [0.9, 0.1]])
    axes = diversity_figure(points, ["a, b", "a, c"]).axes[0]
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), points)
    assert [t.get_text() for t in axes.texts] == ["a, b", "a, c"]
    many = np.random.default_rng(0).random((40, 2))
    assert not diversity_figure(many, ["x"] * 40).axes[0].texts


def test_the_pareto_line_is_the_front() -> None:
    table = pd.DataFrame(
        {
            "members": ["a", "b", "a+b"],
            "cost": [1.0, 2.0, 3.0],
            "value": [0.7, 0.6, 0.8],
            "on_front": [True, False, True],
        }
    )
    axes = pareto_figure(table).axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[1.0, 0.7], [3.0, 0.8]])


def test_many_classes_get_large_panes_and_distinct_lines() -> None:
    from ensemble_kit.plots.confusion import confusion_figure
    from ensemble_kit.plots.style import color, line_style

    names = [f"class {c}" for c in range(12)]
    figure = confusion_figure({str(i): np.eye(12, dtype=int) for i in range(4)}, names)
    assert figure.get_figwidth() <= 15
    assert figure.axes[0].get_subplotspec().get_gridspec().ncols == 1
    assert len({(color(c), line_style(c)) for c in range(12)}) == 12


def test_names_of_pairs_have_a_minimum_distance_and_their_order() -> None:
    from ensemble_kit.plots.labels import spread

    places = np.array([0.98, 0.98, 0.0, 0.5, 0.98, 0.51])
    moved = spread(places, gap=0.1)
    assert np.diff(np.sort(moved)).min() >= 0.1 - 1e-9
    assert moved.max() <= 1.0
    assert moved[2] == 0.0
    assert (np.argsort(moved, kind="stable") == np.argsort(places, kind="stable")).all()


def test_roc_and_precision_recall_have_their_areas_in_the_legends() -> None:
    from sklearn import metrics

    from ensemble_kit.plots.roc_and_pr import roc_pr_figure

    rng = np.random.default_rng(0)
    positive = rng.random(80) < 0.4
    score = rng.normal(size=80) + positive
    roc, pr = roc_pr_figure({"vote": (positive, score), "none": (positive & False, score)}).axes
    for axes, area in (
        (roc, metrics.roc_auc_score(positive, score)),
        (pr, metrics.average_precision_score(positive, score)),
    ):
        assert [t.get_text() for t in axes.get_legend().get_texts()] == [f"vote {area:.3f}"]
    recall, precision = pr.lines[0].get_data()
    assert (recall[-1], precision[-1]) == (0.0, precision[-2])


def test_the_matrix_of_members_is_empty_on_its_diagonal() -> None:
    from ensemble_kit.plots.members import members_figure

    correlation = np.array([[1.0, -0.4], [-0.4, 1.0]])
    gains = np.array([[0.1, 0.0, 0.2], [0.0, -0.1, 0.1]])
    matrix, bars = members_figure(["a", "b"], correlation, gains, gain="Shapley").axes
    assert [t.get_text() for t in matrix.texts] == ["-0.40", "-0.40"]
    assert list(bars.lines[0].get_xdata()) == [0.0, 0.2]
    assert list(bars.lines[1].get_xdata()) == [0.1]


def test_bars_of_classes_have_images_and_patients_beside_them() -> None:
    from ensemble_kit.plots.counts import class_counts_figure

    (axes,) = class_counts_figure({"test": [3, 1]}, {"test": [2, 1]}, ["a", "b"], "patient").axes
    assert [t.get_text() for t in axes.texts] == [" 3 of 2 patients", " 1 of 1 patient"]
    assert [bar.get_width() for bar in axes.patches] == [3, 1]


def test_distances_of_ordinal_classes_are_drawn_around_zero() -> None:
    from ensemble_kit.plots.counts import class_distance_figure

    shares = np.array([0.0, 0.1, 0.6, 0.2, 0.1])
    (axes,) = class_distance_figure({"vote": shares}).axes
    middles = [bar.get_x() + bar.get_width() / 2 for bar in axes.patches]
    assert middles == pytest.approx([-2, -1, 0, 1, 2])
    assert [bar.get_height() for bar in axes.patches] == pytest.approx(shares)


def test_a_threshold_and_a_coverage_are_dashed_lines() -> None:
    from ensemble_kit.plots.decisions import set_coverage_figure, threshold_figure

    rng = np.random.default_rng(0)
    figure = threshold_figure({"test": (rng.random(20), rng.random(30))}, 0.3, "b")
    assert list(figure.axes[0].lines[0].get_xdata()) == [0.3, 0.3]
    figure = set_coverage_figure({"test": {"all": (0.85, 0.8, 0.9)}}, 0.9)
    interval, point, nominal = figure.axes[0].lines
    assert list(interval.get_xdata()) == [0.8, 0.9]
    assert list(point.get_xdata()) == [0.85]
    assert list(nominal.get_xdata()) == [0.9, 0.9]


def test_costs_have_one_pane_each_and_the_total_in_grey() -> None:
    from matplotlib.colors import to_hex

    from ensemble_kit.plots.costs import costs_figure
    from ensemble_kit.plots.style import MUTED

    panes = costs_figure({"GMACs": {"a": 1.0, "all": 3.0}, "ms": {"a": 2.0, "all": 5.0}}, total="all").axes  # fmt: skip
    assert [[bar.get_width() for bar in one.patches] for one in panes] == [[1, 3], [2, 5]]
    assert to_hex(panes[0].patches[1].get_facecolor()) == MUTED


# -- names that users choose ---------------------------------------------------------------

ODD = ["$x_1$", "$\\frac{$", "\u826f\u6027", "<b>", "a, b", "_two\x1blabels", "\u0633\u0631"]


def odd_figures() -> list:
    from ensemble_kit.plots.confusion import confusion_figure
    from ensemble_kit.plots.roc_and_pr import roc_pr_figure

    rng = np.random.default_rng(0)
    labels, proba = rng.integers(0, len(ODD), 90), rng.dirichlet(np.ones(len(ODD)), 90)
    return [
        confusion_figure({"$mean$": np.eye(len(ODD), dtype=int)}, ODD),
        roc_pr_figure({name: (labels == c, proba[:, c]) for c, name in enumerate(ODD)}),
    ]


@pytest.mark.filterwarnings("error")
def test_names_are_drawn_exactly_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from xml.etree import ElementTree

    from matplotlib.text import Text

    from ensemble_kit.plots import lettering
    from ensemble_kit.plots.style import png_bytes, svg_bytes

    # As on a machine without a font for Chinese.
    monkeypatch.setattr(lettering, "_families_with", lambda wanted: ((), wanted))
    for figure in odd_figures():
        root = ElementTree.fromstring(svg_bytes(figure))
        texts = {e.text.strip() for e in root.iter() if e.tag.endswith("text") and e.text}
        shown = {
            text.removesuffix(text[-6:]) if text[-6:-3] in (" 0.", " 1.") else text
            for text in texts
        }
        assert {*ODD[:5], "_two?labels"} <= shown
        png_bytes(figure)
        written = "".join(text.get_text() for text in figure.findobj(Text))
        assert "[U+826F][U+6027]" in written


@pytest.mark.filterwarnings("error")
def test_a_font_with_the_characters_is_used_for_outlines(monkeypatch: pytest.MonkeyPatch) -> None:
    from ensemble_kit.plots import lettering
    from ensemble_kit.plots.style import svg_bytes

    found = lettering.fonts_for("benign $x$")
    assert found == ((), "")
    # STIX has what DejaVu lacks here: chosen among the installed fonts.
    usual = lettering._letters_of
    monkeypatch.setattr(
        lettering, "_letters_of", lambda p: usual(p) - ({ord("b")} if "DejaVu" in p else set())
    )
    lettering._families_with.cache_clear()
    families, missing = lettering.fonts_for("benign")
    lettering._families_with.cache_clear()
    assert missing == ""
    assert len(families) == 1
    assert "Last" not in families[0]
    assert b"<text" not in svg_bytes(diversity_figure(np.array([[0.5, 0.2]]), ["a, b"]))


@pytest.mark.filterwarnings("ignore:Glyph")
def test_any_figure_of_the_package_can_be_saved_with_odd_names(tmp_path) -> None:
    for figure in odd_figures():
        figure.savefig(tmp_path / "x.pdf")


@pytest.mark.filterwarnings("error")
def test_long_names_leave_space_for_the_counts() -> None:
    from ensemble_kit.plots.confusion import confusion_figure
    from ensemble_kit.plots.style import png_bytes

    figure = confusion_figure({"m": np.eye(2, dtype=int)}, ["x" * 200, "y" * 200])
    png_bytes(figure, dots_per_inch=50)
    assert figure.axes[0].get_position().width > 0.2


def test_the_axis_of_costs_has_numbers_without_mathematics() -> None:
    table = pd.DataFrame(
        {
            "members": ["a", "b"],
            "cost": [1.0, 1000.0],
            "value": [0.7, 0.8],
            "on_front": [True, True],
        }
    )
    figure = pareto_figure(table)
    figure.draw_without_rendering()
    assert not any("$" in t.get_text() for t in figure.axes[0].get_xticklabels(which="both"))


def test_decision_curves_and_calibration_points_are_the_rows_given() -> None:
    curve = np.array([[0.1, 0.3, 0.2, 0.4], [0.2, 0.25, 0.1, 0.3]])
    everybody = np.array([[0.1, 0.25], [0.2, 0.2]])
    axes = decision_curve_figure({"test": {"vote": curve}}, {"test": everybody}).axes[0]
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_array_equal(lines["vote"], curve[:, :2])
    np.testing.assert_array_equal(lines["treat all"], everybody)
    bins = np.array([[0.2, 0.1, 0.05, 0.3], [0.8, 0.9, np.nan, np.nan]])
    proba = (np.array([0.9]), np.array([0.1, 0.2]))
    axes = calibration_figure({"test": bins}, {"test": proba}, {"test": ["slope 1.00"]}).axes[0]
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), bins[:, :2])
    (interval,) = axes.collections[0].get_segments()
    np.testing.assert_array_equal(interval, [[0.2, 0.05], [0.2, 0.3]])
    assert [t.get_text() for t in axes.texts] == ["slope 1.00"]


def test_faithfulness_and_stain_curves_go_through_their_values() -> None:
    shares = np.linspace(0, 1, 5)
    curves = {k: {"m": shares, "random map": 1 - shares} for k in ("deletion", "insertion")}
    areas = {k: {"m": 0.5, "random map": 0.25} for k in curves}
    axes = faithfulness_figure(shares, curves, areas).axes
    np.testing.assert_array_equal(axes[0].lines[0].get_ydata(), shares)
    labels = [t.get_text() for t in axes[1].get_legend().get_texts()]
    assert labels == ["m 0.500", "random map 0.250"]
    proba = np.stack([shares, 1 - shares], axis=1)
    small = [np.zeros((8, 8, 3), np.uint8)] * 3
    figure = stain_curve_figure(shares, proba, "ab", [0.5], small, stain="dab", title="t")
    lines = figure.axes[-1].lines
    np.testing.assert_array_equal(lines[1].get_ydata(), 1 - shares)
    assert list(lines[3].get_xdata()) == [0.5, 0.5]
