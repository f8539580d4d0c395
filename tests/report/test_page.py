"""The report page: values as stored, escaped names, nothing loaded from elsewhere."""

from __future__ import annotations

import csv
import dataclasses
import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ensemble_kit as ek
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.evaluation.runs.stored_ensembles import read_metrics, stored_methods
from ensemble_kit.evaluation.tables.result_sentences import result_sentences
from ensemble_kit.folds import make_folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.predictions.store import MemberLogits
from ensemble_kit.report.content import gather
from ensemble_kit.report.method_curves import (
    area_under_risk_coverage,
    confusion_counts,
    risk_coverage_curve,
)
from ensemble_kit.report.page import render, sections_of, write_report
from ensemble_kit.run import Run
from ensemble_kit.testing import toy_logits, toy_run

pytestmark = pytest.mark.slow

EVIL = "<img src=x onerror=alert(1)>"
QUICK = Protocol(n_resamples=50)


class Page(HTMLParser):
    """Tags with their attributes, the text without tags, and the tables as rows of cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.tables: list[list[list[str]]] = []
        self._cell: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr" and self.tables:
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in {"td", "th"} and self._cell is not None:
            self.tables[-1][-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._cell is not None:
            self._cell.append(f" {data} ")

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page_of(run: Run) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def text_of(run: Run, scores: Any = None) -> str:
    """The page without the drawing of its figures, which takes seconds."""
    content = gather(run, scores)
    sections = sections_of(content)
    names = [one.name for section in sections for one in section.all_drawings]
    return render(content, sections, dict.fromkeys(names, b"<svg/>"))


@pytest.fixture(scope="module")
def reported(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Page]:
    """A trained run with three ensembles, and its page."""
    run = trained.copied_to(tmp_path_factory.mktemp("report") / "run").run
    stack_run(run, ["vote", "mean", "mlp"], protocol=QUICK)
    return run, page_of(run)


# -- nothing is loaded --------------------------------------------------------------------


def test_the_page_forbids_everything_but_its_own_images_and_style(
    reported: tuple[Run, Page],
) -> None:
    (policy,) = [a["content"] for t, a in reported[1].tags if t == "meta" and "http-equiv" in a]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_the_page_has_no_script_and_loads_nothing(reported: tuple[Run, Page]) -> None:
    names = {tag for tag, _ in reported[1].tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "svg"}
    for tag, attributes in reported[1].tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "data", "action"):
            if name in attributes:
                assert attributes[name].startswith("data:image/"), (tag, name)


def test_each_link_has_a_target_on_the_page_or_in_the_folder(reported: tuple[Run, Page]) -> None:
    run, page = reported
    places = {a["id"] for _, a in page.tags if "id" in a}
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert len(links) > 50
    for link in links:
        at_place, is_there = link.removeprefix("#") in places, (run.report_dir / link).exists()
        assert at_place if link.startswith("#") else is_there, link


def test_each_figure_and_table_is_stored_in_every_format_and_linked(
    reported: tuple[Run, Page],
) -> None:
    run, page = reported
    links = {a["href"] for tag, a in page.tags if tag == "a"}
    for folder, endings in (("figures", {"svg", "png"}), ("tables", {"csv", "md", "tex"})):
        files = [path.relative_to(run.report_dir) for path in (run.report_dir / folder).iterdir()]
        stems = {path.stem for path in files}
        assert len(stems) > 8
        assert {f.as_posix() for f in files} == {
            f"{folder}/{s}.{e}" for s in stems for e in endings
        }
        assert {f.as_posix() for f in files} <= links


def test_a_second_report_leaves_no_file_of_the_first(
    reported: tuple[Run, Page], tmp_path: Path
) -> None:
    shutil.copytree(reported[0].path, tmp_path / "run")
    run = Run(tmp_path / "run")
    (run.report_dir / "figures" / "old.svg").write_text("old")
    (run.report_dir / "mine.txt").write_text("mine")
    write_report(run)
    assert not (run.report_dir / "figures" / "old.svg").exists()
    assert (run.report_dir / "mine.txt").read_text() == "mine"


def test_figures_are_embedded_and_described(reported: tuple[Run, Page]) -> None:
    images = [a for t, a in reported[1].tags if t == "img"]
    figures = [a for a in images if a["src"].startswith("data:image/svg")]
    assert all(len(a["src"]) > 500 and len(a["alt"]) > 5 for a in images)
    names = {p.stem for p in (reported[0].report_dir / "figures").glob("*.svg")}
    assert names == {
        "confusion", "roc_pr", "training", "reliability", "risk_coverage", "leaderboard",
        "diversity", "members", "data", "cost",
    }  # fmt: skip
    assert len(figures) == len(names)


# -- names from the data -------------------------------------------------------------------


def evil_run(path: Path) -> Run:
    """A run in which classes, patients, images, members and notes carry markup."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 2
    names = (EVIL + "0", "=" + EVIL)
    rows = [
        (f"{EVIL}{i}", f"{i}.png", names[c], f"{EVIL}p{i // 4}", "test" if i >= 60 else "train")
        for i, c in enumerate(rng.permutation(labels))
    ]
    manifest = Manifest.from_records(
        rows, columns=("sample_id", "path", "label", "group", "split"), group_kind="patient",
        name=EVIL, notes=(f"Note {EVIL}",), class_names=names,
    )  # fmt: skip
    folds = make_folds(manifest, 3)
    run = Run(path)
    run.begin(manifest, folds, {})
    logits = toy_logits(manifest.labels, 2, 2)
    train, test = manifest.part("train"), manifest.part("test")
    about = {"manifest": manifest.digest, "folds": folds.digest, "folds_done": [0, 1, 2], "stamps": [EVIL]}  # fmt: skip
    for m in range(2):
        run.store.write(
            f"=m{m}",
            MemberLogits(
                logits[:60, m], dict.fromkeys(range(3), logits[60:, m]),
                tuple(train.sample_ids.tolist()), tuple(test.sample_ids.tolist()), names, about,
            ),
        )  # fmt: skip
    return run


def test_markup_in_names_is_shown_and_never_run(tmp_path: Path) -> None:
    run = evil_run(tmp_path / "run")
    stack_run(run, ["vote"], protocol=QUICK)
    path = write_report(run)
    text = path.read_text(encoding="utf-8")
    assert EVIL not in text
    page = Page(text)
    assert all(a["src"].startswith("data:image/") for t, a in page.tags if t == "img")
    assert not [a for _, a in page.tags if "onerror" in a]
    assert page.text.count(EVIL) > 5
    for file in (*run.report_dir.glob("figures/*.svg"), *run.report_dir.glob("tables/*.md")):
        assert "<img" not in file.read_text(), file

    # A spreadsheet runs such a cell as a formula.
    for table in (*run.report_dir.glob("tables/*.csv"), *run.path.glob("ensembles/*/*.csv")):
        with table.open(newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        started = [c for c in cells if c.startswith(("=", "@", "+", "\t"))]
        assert started == [], table


# -- content -------------------------------------------------------------------------------


def test_the_results_are_those_of_metrics_json(reported: tuple[Run, Page]) -> None:
    run, page = reported
    table = table_of(page, ["method", "in-sample", "cross-fitted", "test"])
    shown = {row[0].split()[0]: row for row in table[2:]}
    for method in ("vote", "mean", "mlp", "best-member", "oracle"):
        metrics = json.loads((run.ensemble_dir(method) / "metrics.json").read_text())
        cells = shown[method][1:4]
        for cell, part in zip(cells, ("in_sample", "cross_fitted", "test"), strict=True):
            value = metrics[part]["balanced_accuracy"]
            assert cell.split()[0] == f"{value['value']:.3f}"
            if value["low"] is not None:
                assert f"{value['low']:.3f}, {value['high']:.3f}" in cell


def test_gathered_metrics_equal_the_stored_ones(reported: tuple[Run, Page]) -> None:
    run, _ = reported
    scores = gather(run).scores.set_index(["method", "part", "metric"])
    checked = 0
    for path in run.path.glob("ensembles/*/metrics.json"):
        metrics = json.loads(path.read_text())
        for part in ("in_sample", "cross_fitted", "test"):
            for name, value in metrics[part].items():
                if isinstance(value, dict) and name not in ("per_group", "per_class"):
                    row = scores.loc[(path.parent.name, part, name)]
                    got = [None if np.isnan(row[k]) else row[k] for k in ("value", "low", "high")]
                    assert got == [value[k] for k in ("value", "low", "high")]
                    assert (row["n"], row["n_groups"]) == (
                        metrics[part]["n"],
                        metrics[part]["n_groups"],
                    )
                    checked += 1
    assert checked > 40


def test_the_confusion_counts_are_those_of_the_predictions(reported: tuple[Run, Page]) -> None:
    run, _ = reported
    content = gather(run)
    with (run.ensemble_dir("vote") / "predictions.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["split"] == "test"]
    names = content.manifest.class_names
    want = [
        [sum(r["label"] == a and r["predicted"] == b for r in rows) for b in names] for a in names
    ]
    assert confusion_counts(content.predictions["vote", "test"]).tolist() == want
    assert sum(map(sum, want)) == len(rows) == 16


def table_of(page: Page, head: list[str]) -> list[list[str]]:
    """The first table whose last heading row begins with these cells."""
    rows = ((t, row) for t in page.tables for row in t[:2])
    return next(t for t, row in rows if row[: len(head)] == head)


def below(text: str, summary: str) -> Page:
    """The collapsed block below a summary."""
    return Page(text.partition(f"<summary>{summary}</summary>")[2].partition("</details>")[0])


def test_each_class_has_its_metrics_against_the_rest(reported: tuple[Run, Page]) -> None:
    run, _ = reported
    text = (run.report_dir / "index.html").read_text(encoding="utf-8")
    (table,) = below(text, "Each class against the rest").tables
    metrics = json.loads((run.ensemble_dir(gather(run).chosen) / "metrics.json").read_text())
    titles = ["sensitivity", "specificity", "precision", "F1", "AUROC", "average precision"]
    assert table[0] == ["class", *titles]
    keys = ("sensitivity", "specificity", "precision", "f1", "auroc", "average_precision")
    for row in table[1:]:
        block = metrics["test"]["per_class"][row[0].split()[0]]
        assert row[0].split()[1:] == [str(block["n"]), "images"]
        for cell, value in zip(row[1:], [block[key] for key in keys], strict=True):
            assert cell.split()[0] == f"{value['value']:.3f}"
            if value["low"] is not None:
                assert f"{value['low']:.3f}, {value['high']:.3f}" in cell


def test_the_differences_between_parts_are_those_of_the_values_shown(
    reported: tuple[Run, Page],
) -> None:
    run, _ = reported
    text = (run.report_dir / "index.html").read_text(encoding="utf-8")
    (table,) = below(text, "Differences between parts").tables
    assert table[1][1:3] == ["in-sample - cross-fitted", "cross-fitted - test"]
    assert {row[0] for row in table[2:]} == {"vote", "mean", "mlp", "best-member"}
    for row in table[2:]:
        metrics = json.loads((run.ensemble_dir(row[0]) / "metrics.json").read_text())
        inside, crossed, new = (
            metrics[part]["balanced_accuracy"]["value"]
            for part in ("in_sample", "cross_fitted", "test")
        )
        assert row[1:3] == [f"{inside - crossed:.3f}", f"{crossed - new:.3f}"]


def test_the_area_under_the_risk_coverage_curve_is_the_stored_one(
    reported: tuple[Run, Page],
) -> None:
    run, _ = reported
    predictions = gather(run).predictions
    for method in ("vote", "mean", "mlp"):
        metrics = json.loads((run.ensemble_dir(method) / "metrics.json").read_text())
        for shown, part in (("cross-fitted", "cross_fitted"), ("test", "test")):
            one = predictions[method, shown]
            assert area_under_risk_coverage(one) == pytest.approx(metrics[part]["aurc"]["value"])
            coverage, error = risk_coverage_curve(one)[-1]
            assert coverage == 1.0
            assert error == pytest.approx(1 - metrics[part]["accuracy"]["value"])


def test_the_page_begins_with_the_result_of_stack(reported: tuple[Run, Page]) -> None:
    run, page = reported
    methods = {m: read_metrics(run, m) for m in stored_methods(run)}
    for sentence in result_sentences(methods):
        assert sentence in page.text


def test_the_split_is_reported_in_images_and_patients(
    reported: tuple[Run, Page], trained: Any
) -> None:
    page = reported[1]
    assert "Split by group." in page.text
    table = table_of(page, ["class", "train", "test"])
    assert [row[0] for row in table[1:]] == ["benign", "malignant", "all"]
    parts = [trained.manifest.part(split) for split in ("train", "test")]
    assert table[-1][1:] == [f"{len(part)} {part.n_groups}" for part in parts]
    for group in set(trained.manifest.part("test").groups.tolist()):
        assert group in page.text


def test_a_split_by_image_is_a_caveat_above_every_metric(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "by-group")
    manifest = dataclasses.replace(run.manifest(), split_by="image")
    folds = make_folds(manifest, 4, by="image")
    by_image = Run(tmp_path / "by-image")
    by_image.begin(manifest, folds, {})
    for name in run.members():
        stored = run.store.read(name)
        about = {**stored.about, "manifest": manifest.digest, "folds": folds.digest}
        by_image.store.write(name, dataclasses.replace(stored, about=about))
    text = text_of(by_image)
    caveat = '<div class="warning">'
    assert caveat in text
    assert text.index(caveat) < text.index("<main>")
    assert caveat not in text_of(run)


def test_unknown_patients_have_a_caveat(tmp_path: Path, slides: Path) -> None:
    manifest = Manifest.from_folders(slides)
    train, test = manifest.split(test_size=0.2)
    manifest = train.joined(test)
    run = Run(tmp_path / "run")
    folds = make_folds(manifest, 2)
    run.begin(manifest, folds, {})
    logits = toy_logits(manifest.labels, 1, 2)[:, 0]
    in_test = (manifest.table["split"] == "test").to_numpy()
    about = {"manifest": manifest.digest, "folds": folds.digest, "folds_done": [0, 1]}
    ids = manifest.sample_ids
    run.store.write("m", MemberLogits(logits[~in_test], dict.fromkeys(range(2), logits[in_test]),
                                      tuple(ids[~in_test].tolist()), tuple(ids[in_test].tolist()),
                                      manifest.class_names, about))  # fmt: skip
    assert '<div class="warning">' in text_of(run)


def test_the_page_of_a_run_without_ensembles_has_the_stack_command(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run")
    text = Page(text_of(run)).text
    assert f"ensemble-kit stack --method all --run {run.path.as_posix()}" in text


def test_a_run_without_a_test_part_has_a_report(tmp_path: Path) -> None:
    labels = np.arange(60) % 2
    rows = [(f"s{i}", f"{i}.png", "ab"[c], f"p{i // 2 % 30}-{c}") for i, c in enumerate(labels)]
    manifest = Manifest.from_records(rows, group_kind="patient")
    folds = make_folds(manifest, 3)
    run = Run(tmp_path / "run")
    run.begin(manifest, folds, {})
    about = {"manifest": manifest.digest, "folds": folds.digest, "folds_done": [0, 1, 2]}
    for m in range(2):
        logits = toy_logits(manifest.labels, 2, 2)[:, m]
        ids = tuple(manifest.sample_ids.tolist())
        run.store.write(f"m{m}", MemberLogits(logits, {}, ids, (), manifest.class_names, about))
    stack_run(run, ["vote"], protocol=QUICK)
    page = Page(text_of(run))
    assert "cross-fitted" in page.text
    assert "vote" in page.text
    assert "no test part" in page.text


def test_scores_of_compare_are_shown_instead_of_stored_ones(
    reported: tuple[Run, Page], tmp_path: Path
) -> None:
    shutil.copytree(reported[0].path, tmp_path / "run")
    run = Run(tmp_path / "run")
    scores = ek.compare({"median": ek.MedianProba()}, fit_on=run.predictions("oof"),
                        score_on=run.predictions("test"), protocol=QUICK)  # fmt: skip
    page = Page(text_of(run, scores))
    table = table_of(page, ["method", "cross-fitted"])
    assert "median" in {row[0] for row in table}
    assert "mlp" not in {row[0] for row in table}
    assert scores.attrs["verdict"] in page.text


def test_every_tag_of_the_page_is_closed(reported: tuple[Run, Page]) -> None:
    text = (reported[0].report_dir / "index.html").read_text()
    tags = "table thead tbody tr td th div p section details figure ul li body html"
    for tag in tags.split():
        assert len(re.findall(rf"<{tag}[ >]", text)) == text.count(f"</{tag}>"), tag
    assert html.unescape(text) != ""


def test_a_folder_without_a_run_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        write_report(Run(tmp_path / "nothing"))


def test_the_page_has_the_clinical_block_as_stored_and_its_figures(tmp_path: Path) -> None:
    from ensemble_kit.evaluation.clinical.block import ClinicalOptions
    from ensemble_kit.report.page import draw

    run = toy_run(tmp_path / "two", n_samples=120, n_classes=2, n_groups=20)
    protocol = Protocol(positive="class0", n_resamples=20)
    done = stack_run(
        run, ["vote"], protocol=protocol,
        clinical=ClinicalOptions(prevalences=(0.15,), by=("split",)),
    )  # fmt: skip
    content = gather(run)
    found, block = content.clinical, done.clinical
    assert found is not None
    assert block is not None
    for part, key in (("cross-fitted", "cross_fitted"), ("test", "test")):
        curve = found.curves()[part]["vote"]
        for point in block.parts[key].curve.points:
            row = curve[np.isclose(curve[:, 0], point.threshold)][0]
            assert row[1:] == pytest.approx(
                [point.value.value, point.value.low, point.value.high], abs=1e-9
            )
    figures = draw(content)
    assert {"decision_curve", "calibration"} <= set(figures)
    page = text_of(run)
    assert '<section id="clinical">' in page
    assert "0.150 stated" in page
    assert "vote by split" in page


def test_without_a_positive_class_the_page_names_the_option(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "two", n_samples=80, n_classes=2, n_groups=20)
    stack_run(run, ["vote"], protocol=QUICK)
    page = text_of(run)
    assert "--positive CLASS" in page
    assert "decision_curve" not in page
