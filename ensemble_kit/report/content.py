"""Gathers the values of the report from a run's files."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ensemble_kit.combiners import COMBINERS, make_combiner
from ensemble_kit.errors import command
from ensemble_kit.evaluation.caveats import combiner_notes, merged_notes
from ensemble_kit.evaluation.cross_validation.baselines import MEAN, REFERENCE_METHODS
from ensemble_kit.evaluation.diversity.pareto_file import read_pareto
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stored_ensembles import current_metrics, what_changed
from ensemble_kit.evaluation.scores.baseline_tests import BaselineTest, sentence_of_tests
from ensemble_kit.evaluation.tables.result_sentences import (
    chance_sentence,
    paper_sentence,
    result_sentences,
    verdict_sentence,
)
from ensemble_kit.evaluation.tables.scores import long_scores
from ensemble_kit.evaluation.winner import ranked
from ensemble_kit.explanation.stored import StoredExplanations, list_explanations
from ensemble_kit.folds import Folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.report.classes import ShownClasses, shown_classes
from ensemble_kit.report.clinical import ClinicalContent, clinical_content
from ensemble_kit.report.decisions import stored_decisions
from ensemble_kit.report.method_curves import PredictionsByPart, read_predictions
from ensemble_kit.report.trainings import Training, read_trainings
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """Everything on the page.

    Parameters
    ----------
    oof, test : Predictions
        The predictions of the members; `test` is None without a test part.
    stored : mapping of method to dict
        The content of each `metrics.json` that is up to date; empty if `scores` come from `compare`.
    scores : DataFrame
        `method, part, metric, value, low, high, n, n_groups, n_ties`; empty without ensembles.
    values : DataFrame
        All values of `stored` in the form of `scores.csv`.
    metric : str
        The metric of the ranking.
    verdicts, tests, notes : tuple of str
        The first sentences of `stack`, the p values of the best ensemble, and the caveats.
    n_main_notes : int
        The number of notes about the values; the notes after them explain methods.
    predictions : mapping of (method, part) to MethodPredictions
        Parts are `cross-fitted` and `test`.
    pareto : DataFrame
        Sets of members by cost; empty without `stack --pareto`.
    trainings : mapping of member to Training
        Empty for imported members.
    clinical : ClinicalContent or None
        The clinical block of the best ensemble; None if none is stored.
    for_a_paper : str
        The reported values with their verdict in one sentence; may be empty.
    verdict_sentence : str
        The verdict in one sentence; empty without ensembles.
    chance : str
        A sentence on the chance level; empty if it is not defined.
    decisions : mapping of file name to list
        The stored operating points and prediction sets.
    explanations : tuple of StoredExplanations
    """

    run: Run
    record: dict[str, Any]
    manifest: Manifest
    folds: Folds
    oof: Predictions
    test: Predictions | None
    stored: Mapping[str, dict[str, Any]]
    scores: pd.DataFrame
    values: pd.DataFrame
    metric: str
    verdicts: tuple[str, ...]
    tests: tuple[str, ...]
    notes: tuple[str, ...]
    n_main_notes: int
    predictions: PredictionsByPart
    pareto: pd.DataFrame
    trainings: Mapping[str, Training]
    clinical: ClinicalContent | None
    verdict_sentence: str
    for_a_paper: str
    chance: str
    decisions: Mapping[str, list[Mapping[str, Any]]]
    explanations: tuple[StoredExplanations, ...]

    @property
    def unit(self) -> str:
        """The kind of group, e.g. "patient"."""
        return self.manifest.group_kind

    @property
    def by_image(self) -> bool:
        """Whether images of one group can be on both sides of a split."""
        return bool(self.record["folds"]["split_by"] == "image")

    @property
    def part(self) -> str:
        """The main part of the page: the test part if there is one."""
        return "test" if any(part == "test" for _, part in self.predictions) else "cross-fitted"

    @property
    def ranking(self) -> list[str]:
        """All methods, best first."""
        return ranked_methods(self.scores, self.metric)

    @property
    def chosen(self) -> str:
        """The method of the figures: the best one by cross-validation that has predictions.

        The mean if there are only baselines.
        """
        have = [m for m in self.ranking if (m, self.part) in self.predictions]
        methods = [m for m in have if m not in REFERENCE_METHODS]
        mean = [m for m in have if m == MEAN]
        return next(iter((*methods, *mean, *have)), next(iter(self.predictions))[0])

    @property
    def best_member(self) -> str | None:
        """The name of the best member by out-of-fold predictions; None if it is not known."""
        return self.stored.get("best-member", {}).get("best_member")

    @property
    def fell_back(self) -> frozenset[str]:
        """Methods that were replaced by the mean."""
        return frozenset(m for m, one in self.stored.items() if one.get("fell_back_to_mean"))

    def compared(self, *others: str) -> dict[str, MethodPredictions]:
        """The predictions of the chosen method and of these others for the main part, by method."""
        names = dict.fromkeys((self.chosen, *others))
        return {
            m: self.predictions[m, self.part] for m in names if (m, self.part) in self.predictions
        }

    @property
    def classes(self) -> ShownClasses:
        """The classes that the page shows, chosen by the sensitivities of the chosen method."""
        first = self.predictions.get(
            (self.chosen, "cross-fitted"), self.predictions[self.chosen, self.part]
        )
        return shown_classes(self.manifest.class_names, self.chosen, first)


def gather(run: Run, scores: pd.DataFrame | None = None) -> Content:
    """Read a run's files.

    Parameters
    ----------
    run : Run
    scores : DataFrame, optional
        The table of `compare`, shown instead of the stored metrics.
    """
    manifest = run.manifest()
    oof = run.predictions("oof", partial=True)
    test = run.predictions("test", partial=True) if len(manifest.part("test")) else None
    tables = {"cross-fitted": oof} | ({"test": test} if test is not None else {})
    stored, old = current_metrics(run, oof, test)
    values = long_scores(stored if scores is None else {})
    of_images = (values["unit"] == "image") & (values["class"] == "")
    tidy = values[of_images] if scores is None else scores
    metric = chosen_metric(stored)
    if scores is not None:
        metric = scores.attrs.get("metric", Protocol().metric)
    same = {m: one | {"metric": metric} for m, one in stored.items() if metric_of(one) == metric}
    deciding = [*stored, *oof.member_names] if scores is None else []
    decisions, stale = stored_decisions(run, deciding, oof, test)
    explanations, older = _explanations(run, oof, test)
    predictions = read_predictions(run, stored, tables)
    notes, n_main_notes = _ordered_notes(
        stored, first=[*old, *oof.notes], last=[*stale, *older, *_notes_of(scores)]
    )
    return Content(
        run=run,
        record=run.record,
        manifest=manifest,
        folds=run.folds(),
        oof=oof,
        test=test,
        stored=stored if scores is None else {},
        scores=tidy,
        values=values,
        metric=metric,
        verdicts=_verdicts(same, scores),
        tests=_chosen_tests(tidy, metric, stored) if scores is None else (),
        notes=notes,
        n_main_notes=n_main_notes,
        predictions=predictions,
        pareto=_pareto(run, oof),
        trainings=read_trainings(run, oof.member_names),
        clinical=clinical_content(
            ranked_methods(tidy, metric), stored, predictions, manifest.class_names
        ),
        verdict_sentence=verdict_sentence(same) if same and scores is None else "",
        chance=chance_sentence(same) if same and scores is None else "",
        for_a_paper=paper_sentence(same) if same and scores is None else "",
        decisions=decisions,
        explanations=explanations,
    )


def ranked_methods(scores: pd.DataFrame, metric: str) -> list[str]:
    """Methods by their cross-fitted metric, best first; the oracle last."""
    part = scores[(scores["part"] == "cross_fitted") & (scores["metric"] == metric)]
    values = {
        m: None if np.isnan(v) else v for m, v in zip(part["method"], part["value"], strict=True)
    }
    names = ranked(values, metric)
    return [m for m in names if m != "oracle"] + [m for m in names if m == "oracle"]


def metric_of(one: Mapping[str, Any]) -> str:
    """The metric that a stored method was ranked by."""
    compared = (v["metric"] for v in one["verdicts"])
    return one.get("metric") or next(compared, Protocol().metric)


def chosen_metric(stored: Mapping[str, dict[str, Any]]) -> str:
    """The metric that most of the stored methods were ranked by."""
    named = Counter(metric_of(one) for one in stored.values())
    return named.most_common(1)[0][0] if named else Protocol().metric


def _ordered_notes(
    stored: Mapping[str, dict[str, Any]], *, first: Sequence[str], last: Sequence[str]
) -> tuple[tuple[str, ...], int]:
    """Caveats on values, then those that explain methods; and the number of caveats on values."""
    of_methods = {name: one["notes"] for name, one in stored.items()}
    notes = merged_notes({"": first, **of_methods, " ": last})
    known = [make_combiner(name) for name in stored if name in COMBINERS]
    explaining = {note for one in known for note in combiner_notes(one)}
    n_main = sum(note not in explaining for note in notes)
    return tuple(sorted(notes, key=explaining.__contains__)), n_main


def _verdicts(same: Mapping[str, dict[str, Any]], scores: pd.DataFrame | None) -> tuple[str, ...]:
    """The first sentences of `stack`, or the verdict of `compare`."""
    if scores is None:
        return tuple(result_sentences(same)) if same else ()
    return (scores.attrs["verdict"],) if scores.attrs.get("verdict") else ()


def _notes_of(scores: pd.DataFrame | None) -> list[str]:
    return [] if scores is None else list(scores.attrs.get("notes", []))


def _chosen_tests(
    scores: pd.DataFrame, metric: str, stored: Mapping[str, dict[str, Any]]
) -> tuple[str, ...]:
    """The p values of the best ensemble, in one sentence."""
    names = ranked_methods(scores, metric)
    chosen = next((m for m in names if m in stored and m not in REFERENCE_METHODS), None)
    if chosen is None:
        return ()
    tests = [BaselineTest(**one) for one in stored[chosen].get("tests", [])]
    part = "test" if any(one.part == "test" for one in tests) else "cross_fitted"
    text = sentence_of_tests(tests, part)
    return (f"{chosen} {text}",) if text else ()


def _pareto(run: Run, oof: Predictions) -> pd.DataFrame:
    table = read_pareto(run, oof)
    columns = ["members", "cost", "value", "on_front", "verdict"]
    return pd.DataFrame(columns=columns) if table is None else table


def _explanations(
    run: Run, oof: Predictions, test: Predictions | None
) -> tuple[tuple[StoredExplanations, ...], list[str]]:
    """The stored explanations, and caveats on those that are out of date."""
    found, notes = [], []
    for one in list_explanations(run):
        method = one.index["method"]
        if "made_of" in one.index and (changed := what_changed(run, method, one.index, oof, test)):
            again = command("explain", "--run", run.path)
            notes.append(
                f"Not shown: explanations '{one.folder.name}'. Since they were written, {changed}. "
                f"Run {again} again."
            )
        else:
            found.append(one)
    return tuple(found), notes
