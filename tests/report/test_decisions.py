"""Stored operating points and prediction sets on the page, and the first screen."""

from __future__ import annotations

import html
import json
from pathlib import Path

import pytest

from ensemble_kit.checked import write_checked
from ensemble_kit.errors import IntegrityError
from ensemble_kit.evaluation.decisions.set_coverage import SetOptions
from ensemble_kit.evaluation.decisions.thresholds import RejectOption
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.operating_point import DecisionOptions, operating_point
from ensemble_kit.evaluation.runs.prediction_sets import conformal_sets
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.report.content import gather
from ensemble_kit.report.page import render, write_report
from ensemble_kit.report.sections.results import few_methods, results_section
from ensemble_kit.report.sheet import value_cell
from ensemble_kit.testing import toy_run

pytestmark = pytest.mark.slow


def test_the_stored_decisions_of_a_method_are_on_the_page(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run")
    stack_run(run, ["vote"], protocol=Protocol(n_resamples=20))
    point = operating_point(run, "vote", DecisionOptions(reject_option=RejectOption(0.1, None)))
    sets = conformal_sets(run, "vote", SetOptions(n_resamples=0))
    text = write_report(run).read_text(encoding="utf-8")
    assert "tables/operating_point.csv" in text
    shares = point.units["image"].parts["test"].shares
    assert value_cell(vars(shares["accuracy"])).small in text
    assert "tables/sets.csv" in text
    assert f"{sets.metrics['test']['all'].covered.value:.1%} (test)" in text
    assert (run.report_dir / "figures" / "sets.svg").is_file()
    own = {"notes": [*sets.notes, "The threshold is of no use.", "vote: replaced."]}
    path = run.ensemble_dir("vote") / "decision.json"
    write_checked(path, json.loads(path.read_text()) | own)
    text = html.unescape(write_report(run).read_text(encoding="utf-8"))
    assert "Caveat: The threshold is of no use." in text
    assert "Caveat: vote: replaced." not in text
    (run.ensemble_dir("vote") / "decision.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"decision\.json"):
        write_report(run)


def test_the_page_begins_with_the_verdict_the_chance_level_and_the_first_caveats(
    tmp_path: Path,
) -> None:
    run = toy_run(tmp_path / "run")
    stack_run(run, ["vote", "median"], protocol=Protocol(n_resamples=20))
    content = gather(run)
    text = render(content, [], {})
    first = text.partition("<main>")[0]
    assert content.verdict_sentence.startswith("The ensemble (")
    assert content.verdict_sentence in first
    assert "Chance level: 0.333 (1 / 3 classes)." in first
    about_methods = [note.startswith(("The oracle", "`vote`")) for note in content.notes]
    assert any(about_methods)
    assert about_methods == sorted(about_methods)
    assert f"{len(run.manifest().part('test'))} images" in first


def test_of_many_methods_the_first_table_has_the_best_ones_and_the_baselines(
    tmp_path: Path,
) -> None:
    run = toy_run(tmp_path / "run")
    names = ["vote", "median", "max", "min", "product"]
    stack_run(run, names, protocol=Protocol(n_resamples=20))
    content = gather(run)
    shown = few_methods(content)
    assert {"best-member", "mean"} <= set(shown)
    assert len(shown) == 5
    section = results_section(content)
    assert {row[0].text for row in section.sheets[0].shown_rows} == set(shown)
    assert section.folds[0].summary == "All 8 methods"
    assert len(section.folds[0].sheets[0].shown_rows) == 8
