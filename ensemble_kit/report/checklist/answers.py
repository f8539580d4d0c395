"""Answers to checklist items from a run's records. The other items are left to the author."""

from __future__ import annotations

import dataclasses

from ensemble_kit.report.checklist import facts
from ensemble_kit.report.content import Content


@dataclasses.dataclass(frozen=True)
class ItemAnswer:
    """The answer to one item.

    Parameters
    ----------
    text : str
        The answer from the run's records.
    to_add : str
        What the author must add; "" if the answer is complete.
    """

    text: str
    to_add: str = ""


def tripod_answers(content: Content) -> dict[str, ItemAnswer]:
    """Answers to items of TRIPOD+AI by number; items without an answer are left out."""
    trained = bool(content.trainings)
    return _known(
        {
            "7": (facts.preparation(content), ""),
            "9a": (facts.predictors(content), ""),
            "11": (facts.missing(content), "missing patients, images and labels, and exclusions"),
            "12a": (facts.partition(content), ""),
            "12b": (facts.preparation(content), ""),
            "12c": (_model_building(content), ""),
            "12e": (facts.metrics(content), ""),
            "12g": (facts.calculation(content), ""),
            "13": (facts.imbalance(content), ""),
            "15": (facts.output(content), ""),
            "18f": (facts.code(content), "where the code is, and its licence"),
            "20a": (facts.numbers(content), "who was screened, and who was excluded and why"),
            "20c": (facts.numbers(content), "differences in demographic and clinical variables"),
            "21": (facts.numbers(content), ""),
            "22": (facts.specification(content), ""),
            "23a": (facts.performance(content), "" if facts.subgroups(content) else "subgroups"),
            "23b": (facts.subgroups(content) if trained else "", "differences between centres"),
        }
    )


def claim_answers(content: Content) -> dict[str, ItemAnswer]:
    """Answers to items of CLAIM 2024 by number; items without an answer are left out."""
    maps, measured = facts.explainability(content)
    return _known(
        {
            "9": (facts.preparation(content), ""),
            "12": (facts.missing(content), "missing patients, images and labels, and exclusions"),
            "19": (facts.partition(content), ""),
            "20": (facts.disjoint(content), ""),
            "22": (facts.model(content), ""),
            "23": (facts.software(content), ""),
            "24": (facts.initial(content), ""),
            "25": (facts.training(content), ""),
            "26": (facts.selection(content), ""),
            "27": (facts.ensembling(content), ""),
            "28": (facts.metrics(content), "why these metrics fit the clinical question"),
            "29": (facts.uncertainty(content), ""),
            "30": (facts.sensitivity(content), "other analyses of robustness"),
            "31": (maps, "" if measured else "whether the maps are faithful"),
            "32": (facts.internal(content), ""),
            "35": (facts.numbers(content), "who was excluded and why"),
            "36": (facts.numbers(content), "demographic and clinical variables"),
            "37": (facts.performance(content), ""),
            "38": (facts.per_class(content), ""),
            "39": (facts.failures(content), "why these images fail"),
            "43": (facts.code(content), "where software, trained model and data are"),
        }
    )


def _model_building(content: Content) -> str:
    parts = (facts.model(content), facts.training(content), facts.selection(content))
    return " ".join(parts) if all(parts) else ""


def _known(found: dict[str, tuple[str, str]]) -> dict[str, ItemAnswer]:
    return {number: ItemAnswer(*one) for number, one in found.items() if one[0]}
