"""The section of checklists: items with an answer from the run, and items for the author."""

from __future__ import annotations

from collections.abc import Mapping

from ensemble_kit.report.checklist.answers import ItemAnswer, claim_answers, tripod_answers
from ensemble_kit.report.checklist.items import CLAIM_2024, TRIPOD_AI, Guideline
from ensemble_kit.report.content import Content
from ensemble_kit.report.sections.section import Section
from ensemble_kit.report.sheet import Cell, Sheet


def checklist_section(content: Content) -> Section:
    """Each guideline as a table of answers, and a sentence with the other items."""
    both = ((TRIPOD_AI, tripod_answers(content)), (CLAIM_2024, claim_answers(content)))
    words = (
        "The topics of items are shortened; the official wording is in the papers. Items are filled in "
        "from the run's records: check each answer before you submit it."
    )
    sheets = tuple(items_sheet(guideline, answers) for guideline, answers in both)
    return Section("checklist", "Reporting checklists", (words,), (), sheets)


def items_sheet(guideline: Guideline, answers: Mapping[str, ItemAnswer]) -> Sheet:
    """All items in the files; on the page items with an answer, and a list of the others."""
    rows = []
    for number, topic in guideline.items:
        one = answers.get(number, ItemAnswer("", "all"))
        rows.append((Cell(number), Cell(topic), Cell(one.text), Cell(one.to_add)))
    columns = (("", "item"), ("", "topic"), ("", "from the run"), ("", "for the author to add"))
    return Sheet(
        guideline.stem,
        _counts(guideline, answers),
        columns,
        tuple(rows),
        f"For the author: {_for_author(guideline, answers)}",
    ).only(answers)


def _counts(guideline: Guideline, answers: Mapping[str, ItemAnswer]) -> str:
    n_part = sum(bool(one.to_add) for one in answers.values())
    n_left = len(guideline.items) - len(answers)
    return (
        f"{guideline.name} ({guideline.source}). {len(guideline.items)} items and sub-items: "
        f"{len(answers) - n_part} are answered from the run, {n_part} in part; {n_left} are for the author."
    )


def _for_author(guideline: Guideline, answers: Mapping[str, ItemAnswer]) -> str:
    left = [f"{number} {topic}" for number, topic in guideline.items if number not in answers]
    return f"{'; '.join(left)}."
