"""Many classes on the report page: some are shown, the others are merged, and tables have all."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.predictions.method_predictions import Combined, MethodPredictions
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.report import classes
from ensemble_kit.report.classes import shown_classes
from ensemble_kit.report.content import gather
from ensemble_kit.report.method_curves import confusion_counts
from ensemble_kit.report.page import draw, write_report
from ensemble_kit.run import Run
from ensemble_kit.testing import toy_run

pytestmark = pytest.mark.slow

N_CLASSES = 30


def predictions_of(labels: np.ndarray, predicted: np.ndarray) -> MethodPredictions:
    proba = np.full((len(labels), N_CLASSES), 1.0 / N_CLASSES)
    table = Predictions.from_arrays({"m": proba}, labels, groups=["g"] * len(labels))
    return MethodPredictions.of(
        Combined(proba, predicted, np.zeros(len(labels), dtype=bool)), table
    )


@pytest.fixture
def mixed() -> MethodPredictions:
    """Class c has 1 + c // 2 images; every third class is wrong, and class 29 has no images."""
    labels = np.concatenate([np.full(1 + c // 2, c) for c in range(N_CLASSES - 1)])
    predicted = np.where(labels % 3 == 0, (labels + 1) % N_CLASSES, labels)
    return predictions_of(labels, np.where(np.arange(len(labels)) == 0, -1, predicted))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of 30 classes with one ensemble."""
    run = toy_run(tmp_path_factory.mktemp("many") / "run", n_samples=300, n_classes=N_CLASSES)
    stack_run(run, ["mean"], protocol=Protocol(n_resamples=20))
    write_report(run)
    return run


def rows_of(run: Run, table: str) -> list[dict[str, str]]:
    with Path(run.report_dir / "tables" / f"{table}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def names(n: int) -> tuple[str, ...]:
    return tuple(f"c{i:02d}" for i in range(n))


def test_the_classes_of_lowest_sensitivity_and_the_largest_are_shown(
    mixed: MethodPredictions,
) -> None:
    shown = shown_classes(names(N_CLASSES), "mean", mixed)
    worst = [c for c in range(N_CLASSES - 1) if c % 3 == 0]
    largest = [c for c in range(N_CLASSES - 2, -1, -1) if c % 3][:10]
    assert set(shown.indices) == {*worst, *largest}
    assert set(shown.in_roc) <= set(worst)
    assert len(shown.in_roc) == classes.N_ROC


def test_a_class_without_images_is_not_among_the_worst(mixed: MethodPredictions) -> None:
    shown = shown_classes(names(N_CLASSES), "mean", mixed)
    assert N_CLASSES - 1 not in shown.indices


def test_few_classes_are_all_shown_and_not_merged(mixed: MethodPredictions) -> None:
    counts = np.arange(400).reshape(20, 20)
    shown = shown_classes(names(20), "mean", mixed)
    assert shown.is_all
    assert shown.axis_names == names(20)
    assert not shown.note
    np.testing.assert_array_equal(shown.merged(counts), counts)


def test_merged_counts_have_the_same_sum_and_the_counts_of_shown_classes(
    mixed: MethodPredictions,
) -> None:
    shown = shown_classes(names(N_CLASSES), "mean", mixed)
    counts = confusion_counts(mixed)
    merged = shown.merged(counts)
    assert merged.sum() == counts.sum()
    some = list(shown.indices)
    np.testing.assert_array_equal(merged[:-1, :-1], counts[np.ix_(some, some)])
    np.testing.assert_array_equal(merged[:-1].sum(axis=1), counts[some].sum(axis=1))
    assert len(shown.axis_names) == len(merged)


def test_the_table_of_cells_holds_every_decided_image(many: Run) -> None:
    content = gather(many)
    predictions = content.predictions[content.chosen, "test"]
    names_of = content.manifest.class_names
    decided = predictions.predicted >= 0
    pairs = zip(predictions.labels[decided], predictions.predicted[decided], strict=True)
    want = Counter((names_of[a], names_of[b]) for a, b in pairs)
    rows = [row for row in rows_of(many, "confusion_cells") if row["method"] == content.chosen]
    assert {(r["true"], r["predicted"]): int(r["images"]) for r in rows} == want
    counts = [int(r["images"]) for r in rows]
    assert counts == sorted(counts, reverse=True)


def test_figures_of_many_classes_show_the_chosen_classes(many: Run) -> None:
    figures = draw(gather(many))
    panes = figures["confusion"].axes
    assert {len(one.get_yticklabels()) for one in panes} == {classes.MAX_SHOWN + 1}
    curves = [line for line in figures["roc_pr"].axes[0].lines if line.get_label()[0] != "_"]
    assert len(curves) <= classes.N_ROC


def test_tables_of_many_classes_hold_all_of_them(many: Run) -> None:
    for name in ("classes", "folds"):
        assert len({row["class"] for row in rows_of(many, name)}) == N_CLASSES


def test_the_page_of_many_classes_has_rows_of_the_shown_classes_only(many: Run) -> None:
    page = (many.report_dir / "index.html").read_text(encoding="utf-8")
    assert page.count(" images</small></th>") == classes.MAX_SHOWN
    assert f"{classes.MAX_SHOWN} of {N_CLASSES} classes" in page
