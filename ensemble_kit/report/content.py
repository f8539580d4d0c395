"""What the report says: plain values gathered from a run's files.

Draws nothing and formats no HTML.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble_kit.arrays import softmax
from ensemble_kit.checked import check_file, read_checked
from ensemble_kit.combiners import COMBINERS, make_combiner
from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.evaluation.caveats import combiner_notes
from ensemble_kit.evaluation.cross_validation.baselines import REFERENCE_METHODS
from ensemble_kit.evaluation.diversity.inference_cost import member_costs
from ensemble_kit.evaluation.diversity.pareto_file import read_pareto
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stored_ensembles import current_metrics
from ensemble_kit.evaluation.scores.baseline_tests import BaselineTest, sentence_of_tests
from ensemble_kit.evaluation.scores.per_image import judge
from ensemble_kit.evaluation.tables.answer import answer, chance_sentence, claim
from ensemble_kit.evaluation.tables.scores import long_scores
from ensemble_kit.evaluation.winner import ranked
from ensemble_kit.files import read_csv
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.metrics.diversity import kappa_error
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.report.clinical import ClinicalContent, clinical_content
from ensemble_kit.report.decisions import stored_decisions
from ensemble_kit.report.method_curves import PredictionsByPart, read_predictions
from ensemble_kit.report.stored import (
    MEMBER_METRICS,
    coupling_frame,
    optimism_frame,
)
from ensemble_kit.run import Run

HISTORY = "history.csv"
TRAIN_AGAIN = (
    "Delete the folder '{}' and run the same train-members command: only that fold is trained again"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Content:
    """Everything on the page.

    Parameters
    ----------
    scores : DataFrame
        `method, part, metric, value, low, high, n, n_groups, n_ties`; empty without ensembles.
    metric : str
        Methods are ranked by it.
    per_group : DataFrame
        `method, part, metric, value, low, high, n_groups` of whole patients; may be empty.
    coupling : DataFrame
        `method, part, metric, value, low, high`: cross-fitted minus nested; may be empty.
    per_class : DataFrame
        `method, part, class, n, metric, value, low, high` of each class against the rest; may be
        empty.
    optimism : DataFrame
        `method, part, metric, value, low, high`: differences between the three figures; may be
        empty.
    verdicts, tests, notes : tuple of str
        `tests` has the p values of the method that the verdict is about.
    fell_back : frozenset of str
        Methods whose place the plain mean took.
    answers : mapping of (method, part) to MethodPredictions
        Parts are `cross-fitted` and `test`.
    pareto : DataFrame
        Sets of members by cost; empty where `stack` was not asked for it.
    pairs : DataFrame
        `pair, kappa, error` of the members, out-of-fold.
    members : DataFrame
        One row per member, part and metric, like `scores`.
    histories : mapping of member to mapping of fold to DataFrame
    clinical : ClinicalContent or None
        Of the best ensemble; None where `stack` stored no clinical block.
    claim : str
        The verdict in one sentence; empty without ensembles.
    chance : str
        A sentence on the chance level; empty if it is not defined.
    price : str
        What all members cost against the best one, in one sentence; empty if it is not known.
    decisions : mapping of file name to list
        The stored operating points and prediction sets.
    """

    run: Run
    record: dict[str, Any]
    manifest: Manifest
    fold_counts: pd.DataFrame
    scores: pd.DataFrame
    metric: str
    per_group: pd.DataFrame
    coupling: pd.DataFrame
    per_class: pd.DataFrame
    optimism: pd.DataFrame
    verdicts: tuple[str, ...]
    tests: tuple[str, ...]
    fell_back: frozenset[str]
    notes: tuple[str, ...]
    answers: PredictionsByPart
    pareto: pd.DataFrame
    pairs: pd.DataFrame
    members: pd.DataFrame
    histories: Mapping[str, Mapping[int, pd.DataFrame]]
    recipes: pd.DataFrame
    clinical: ClinicalContent | None = None
    claim: str = ""
    chance: str = ""
    price: str = ""
    decisions: Mapping[str, list[Mapping[str, Any]]] = dataclasses.field(default_factory=dict)


def gather(run: Run, scores: pd.DataFrame | None = None) -> Content:
    """Read a run's files.

    Parameters
    ----------
    run : Run
    scores : DataFrame, optional
        The table of `compare`, shown instead of the stored metrics.
    """
    manifest, folds = run.manifest(), run.folds()
    oof = run.predictions("oof", partial=True)
    test = run.predictions("test", partial=True) if len(manifest.part("test")) else None
    tables = {"cross-fitted": oof} | ({"test": test} if test is not None else {})
    stored, old = current_metrics(run, oof, test)
    long = long_scores(stored if scores is None else {})
    of_images = (long["unit"] == "image") & (long["class"] == "")
    tidy = long[of_images] if scores is None else scores
    metric = (
        chosen_metric(stored) if scores is None else scores.attrs.get("metric", Protocol().metric)
    )
    verdicts = _answer(_of_metric(metric, stored))
    notes = [*old, *oof.notes, *(n for m in stored.values() for n in m["notes"])]
    if scores is not None:
        verdicts = [scores.attrs["verdict"]] if scores.attrs.get("verdict") else []
        notes += scores.attrs.get("notes", [])
    shown = stored if scores is None else {}
    same = _of_metric(metric, stored)
    decisions, stale = stored_decisions(run, shown, oof, test)
    notes += stale
    answers = read_predictions(run, stored, tables)
    methods = ranked_methods(tidy, metric)
    return Content(
        run=run,
        record=run.record,
        manifest=manifest,
        fold_counts=folds.counts(manifest.part("train")),
        scores=tidy,
        metric=metric,
        per_group=long[long["unit"] != "image"],
        coupling=coupling_frame(shown),
        per_class=long[long["class"] != ""],
        optimism=optimism_frame(shown),
        verdicts=tuple(dict.fromkeys(verdicts)),
        tests=_chosen_tests(tidy, metric, stored) if scores is None else (),
        fell_back=frozenset(m for m, one in stored.items() if one.get("fell_back_to_mean")),
        notes=_in_order(notes, stored),
        answers=answers,
        pareto=_pareto(run, oof),
        pairs=_pairs(oof),
        members=_member_figures(tables),
        histories=_histories(run, oof),
        recipes=_recipes(run, oof),
        clinical=clinical_content(methods, stored, answers, manifest.class_names),
        claim=claim(same) if same and scores is None else "",
        chance=chance_sentence(same) if same and scores is None else "",
        price=_price(run, oof.member_names, stored.get("best-member", {}).get("best_member")),
        decisions=decisions,
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


def _in_order(notes: Sequence[str], methods: Iterable[str]) -> tuple[str, ...]:
    """Each caveat once: those that change how values are read, then the explanations of methods."""
    known = [make_combiner(name) for name in methods if name in COMBINERS]
    about = {note for one in known for note in combiner_notes(one)}
    return tuple(dict.fromkeys(sorted(notes, key=lambda note: note in about)))


def _of_metric(metric: str, stored: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The methods that are ranked by this metric."""
    return {m: one | {"metric": metric} for m, one in stored.items() if metric_of(one) == metric}


def _answer(same: Mapping[str, dict[str, Any]]) -> list[str]:
    """What `stack` prints first, of these methods."""
    return [" ".join(answer(same))] if same else []


def _price(run: Run, members: Sequence[str], best: str | None) -> str:
    """Networks, parameters and multiplications of all members against those of the best one."""
    if best is None or best not in members or len(members) < 2:
        return ""
    said = [f"Cost of the ensemble: {len(members)} networks instead of 1"]
    for unit, noun, scale in (
        ("parameters", "million parameters", 1e6),
        ("gmacs", "GMACs an image", 1),
    ):
        with contextlib.suppress(DataError):
            costs = member_costs(run, members, unit)
            said.append(
                f"{sum(costs.values()) / scale:.2f} {noun} instead of {costs[best] / scale:.2f}"
            )
    return f"{'; '.join(said)} (best member: {best})."


def _chosen(scores: pd.DataFrame, metric: str, stored: Mapping[str, dict[str, Any]]) -> str | None:
    """The method that is best cross-fitted."""
    names = ranked_methods(scores, metric)
    return next((m for m in names if m in stored and m not in REFERENCE_METHODS), None)


def _chosen_tests(
    scores: pd.DataFrame, metric: str, stored: Mapping[str, dict[str, Any]]
) -> tuple[str, ...]:
    """The p values of that ensemble, in one sentence."""
    chosen = _chosen(scores, metric, stored)
    if chosen is None:
        return ()
    tests = [BaselineTest(**one) for one in stored[chosen].get("tests", [])]
    part = "test" if any(one.part == "test" for one in tests) else "cross_fitted"
    said = sentence_of_tests(tests, part)
    return (f"{chosen} {said}",) if said else ()


def _pareto(run: Run, oof: Predictions) -> pd.DataFrame:
    table = read_pareto(run, oof)
    columns = ["members", "cost", "value", "on_front", "verdict"]
    return pd.DataFrame(columns=columns) if table is None else table


def _pairs(oof: Predictions) -> pd.DataFrame:
    whole = oof.predicted_by_all()
    names = whole.member_names
    if not len(whole):
        return pd.DataFrame(columns=["pair", "kappa", "error"])
    points = kappa_error(whole.logits.argmax(axis=2), np.asarray(whole.labels), whole.n_classes)
    pairs = [f"{a}, {b}" for i, a in enumerate(names) for b in names[i + 1 :]]
    return pd.DataFrame({"pair": pairs, "kappa": points[:, 0], "error": points[:, 1]})


def _member_figures(tables: Mapping[str, Predictions]) -> pd.DataFrame:
    rows = []
    for part, table in tables.items():
        whole = table.predicted_by_all()
        if not len(whole):
            continue
        proba = softmax(whole.logits)
        alone: dict[str, Combined] = {
            name: decided(np.ascontiguousarray(proba[:, m]))
            for m, name in enumerate(whole.member_names)
        }
        judged = judge(alone, whole.labels, whole.groups, whole.n_classes, metrics=MEMBER_METRICS)
        for name, one in judged.items():
            for metric, interval in one.figures.metrics.items():
                rows.append(
                    {
                        "method": name,
                        "part": part,
                        "metric": metric,
                        "n": len(whole),
                        **dataclasses.asdict(interval),
                    }
                )
    return pd.DataFrame(rows)


def _folds_of(run: Run, member: str) -> list[Path]:
    """Folders of the finished folds; those of pairs of folds are not among them."""
    found = [p.parent for p in run.member_dir(member).glob("fold-*/fold.json")]
    numbered = {p.name.removeprefix("fold-"): p for p in found}
    return [numbered[k] for k in sorted(filter(str.isdecimal, numbered), key=int)]


def _histories(run: Run, oof: Predictions) -> dict[str, dict[int, pd.DataFrame]]:
    return {
        member: {int(f.name.removeprefix("fold-")): _history(f) for f in folders}
        for member in oof.member_names
        if (folders := _folds_of(run, member))
    }


def _history(folder: Path) -> pd.DataFrame:
    """A finished fold's `history.csv`, checked; numbers but for the name of the validation rows."""
    path, advice = folder / HISTORY, TRAIN_AGAIN.format(folder)
    check_file(path, _fold_record(folder)["files"][HISTORY], advice=advice)
    table = read_csv(path)
    numbers = [c for c in table.columns if c != "val_on"]
    table[numbers] = table[numbers].astype(float)
    return table


def _fold_record(folder: Path) -> dict[str, Any]:
    record = read_checked(folder / "fold.json", advice=TRAIN_AGAIN.format(folder))
    if {"made_of", "files"} <= record.keys():
        return record
    raise IntegrityError(
        f"'{folder / 'fold.json'}' is damaged",
        "stored files must be what was written",
        TRAIN_AGAIN.format(folder),
    )


def _recipes(run: Run, oof: Predictions) -> pd.DataFrame:
    rows = []
    for member in oof.member_names:
        for folder in _folds_of(run, member)[:1]:
            record = _fold_record(folder)
            facts = record["made_of"].get("member", {})
            recipe = facts.get("recipe", {})
            start = "timm's weights" if facts.get("pretrained") else "random"
            if facts.get("weights"):
                start = f"checkpoint {facts['weights'][:12]}"
            rows.append(
                {
                    "member": member,
                    "network": facts.get("network", ""),
                    "input": f"{facts.get('image_size', '?')} px",
                    "start": start,
                    **{k: _plain(v) for k, v in recipe.items()},
                    "device": f"{record['device']}, {record['precision']}",
                }
            )
    return pd.DataFrame(rows)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
