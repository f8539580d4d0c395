"""Checklists have answers only where the run has records."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.report.checklist import checklist_section
from ensemble_kit.report.checklist.answers import claim_answers, tripod_answers
from ensemble_kit.report.checklist.items import CLAIM_2024, TRIPOD_AI
from ensemble_kit.report.content import Content, gather
from ensemble_kit.testing import toy_run


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Predictions without networks."""
    run = toy_run(tmp_path_factory.mktemp("checklist") / "run")
    stack_run(run, ["vote"], protocol=Protocol(n_resamples=20))
    return gather(run)


@pytest.fixture(scope="module")
def content(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Content:
    run = trained.copied_to(tmp_path_factory.mktemp("checklist") / "trained").run
    stack_run(run, ["vote"], protocol=Protocol(n_resamples=20))
    return gather(run)


def test_the_guidelines_have_their_numbers_of_items() -> None:
    mains = {"".join(c for c in number if c.isdigit()) for number, _ in TRIPOD_AI.items}
    assert mains == {str(i) for i in range(1, 28)}
    assert [number for number, _ in CLAIM_2024.items] == [str(i) for i in range(1, 45)]
    assert len({number for number, _ in TRIPOD_AI.items}) == len(TRIPOD_AI.items)


def test_answers_are_for_known_items_and_not_empty(content: Content, imported: Content) -> None:
    for one in (content, imported):
        for guideline, answers in (
            (TRIPOD_AI, tripod_answers(one)),
            (CLAIM_2024, claim_answers(one)),
        ):
            assert set(answers) <= {number for number, _ in guideline.items}
            assert all(answer.text.strip() for answer in answers.values())


def test_an_imported_run_has_no_answers_about_networks_or_training(imported: Content) -> None:
    assert not {"7", "9a", "12b", "12c", "12g", "13", "22"} & set(tripod_answers(imported))
    assert not {"9", "22", "24", "25", "26", "31"} & set(claim_answers(imported))
    assert {"12a", "21", "23a"} <= set(tripod_answers(imported))


def test_a_trained_run_has_answers_about_its_training(content: Content) -> None:
    found = claim_answers(content)
    assert {"9", "22", "24", "25", "26"} <= set(found)
    assert "random weights" in found["24"].text
    assert "2 epochs" in found["25"].text
    assert tripod_answers(content)["12c"].to_add == ""


def test_without_stacked_methods_there_are_no_answers_about_performance(content: Content) -> None:
    empty = dataclasses.replace(content, scores=content.scores[:0], values=content.values[:0], stored={}, verdicts=())  # fmt: skip
    assert not {"12c", "12e", "15", "22", "23a"} & set(tripod_answers(empty))
    assert not {"22", "27", "28", "29", "32", "37", "38"} & set(claim_answers(empty))


def test_the_section_shows_answered_items_and_names_all_others(imported: Content) -> None:
    section = checklist_section(imported)
    for sheet, guideline, answers in zip(
        section.sheets,
        (TRIPOD_AI, CLAIM_2024),
        (tripod_answers(imported), claim_answers(imported)),
        strict=True,
    ):
        assert {row[0].text for row in sheet.shown_rows} == set(answers)
        assert len(sheet.rows) == len(guideline.items)
        for number, topic in guideline.items:
            assert (f"{number} {topic}" in sheet.note) == (number not in answers)
