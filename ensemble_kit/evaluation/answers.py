"""What one method answered to a run's rows: cross-fitted ones to learn from, test ones to judge.

The method is a stacked one, or a member by itself. Joins by sample id; fits and judges nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.combiners.averaging import MeanProba
from ensemble_kit.combiners.base import ABSTAINED, Combined, Combiner, decided
from ensemble_kit.combiners.saved import JSON_NAME, load_combiner
from ensemble_kit.errors import DataError, UsageError, did_you_mean, first_few
from ensemble_kit.evaluation.crossfit import fold_of
from ensemble_kit.evaluation.ensembles import (
    PREDICTIONS,
    guarded,
    read_ensemble_predictions,
    unguarded,
)
from ensemble_kit.files import digest_bytes, read_json
from ensemble_kit.predictions.store import aligned
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class Answered:
    """One table and a method's answers to its rows.

    Parameters
    ----------
    table : Predictions
        Labels, groups, folds and names; every row answered.
    combined : Combined
        Axis 0 as in the table.
    """

    table: Predictions
    combined: Combined


@dataclasses.dataclass(frozen=True, eq=False)
class MethodAnswers:
    """A method's answers: out-of-fold (cross-fitted) and to the test part, where there is one."""

    method: str
    oof: Answered
    test: Answered | None

    @property
    def fold(self) -> npt.NDArray[np.int64]:
        """The fold of each out-of-fold row, shape (n_samples,)."""
        return fold_of(self.oof.table)


def answers_of(run: Run, method: str) -> MethodAnswers:
    """The stored answers of a stacked method, or of a member.

    Raises
    ------
    UsageError
        Neither a stacked method nor a member, or the oracle, which looks at the labels.
    DataError
        The method was stacked over other rows or labels than the run's.
    """
    if method == "oracle":
        raise UsageError(
            "What is decided by must not look at the labels", "got 'oracle'", "Use e.g. mean"
        )
    oof = run.predictions("oof", partial=True)
    has_test = len(run.manifest().part("test")) > 0
    test = run.predictions("test", partial=True) if has_test else None
    if (run.ensemble_dir(method) / PREDICTIONS).is_file():
        frame = read_ensemble_predictions(run.ensemble_dir(method))
        return MethodAnswers(
            method,
            _stacked(frame, oof, run, method),
            None if test is None else _stacked(frame, test, run, method),
        )
    if method in oof.member_names:
        return MethodAnswers(
            method, _of_member(oof, method), None if test is None else _of_member(test, method)
        )
    stacked = [path.parent.name for path in (run.path / "ensembles").glob(f"*/{PREDICTIONS}")]
    raise UsageError(
        "Answers come from a stacked method or a member",
        f"'{run.path}' has none of '{method}'",
        f"Run ensemble-kit stack --method {method} --run {run.path} first. "
        + did_you_mean(method, [*(n for n in stacked if n != "oracle"), *oof.member_names]),
    )


def _stacked(frame: pd.DataFrame, table: Predictions, run: Run, method: str) -> Answered:
    rows = frame[frame["split"] == table.kind].set_index("sample_id")
    wanted = [unguarded(guarded(name)) for name in table.sample_ids.tolist()]
    names = [unguarded(guarded(name)) for name in table.class_names]
    differ = set(rows.index) ^ set(wanted)
    _refuse_old_logits(table, run, method)
    columns = [f"p_{name}" for name in table.class_names]
    stale = bool(differ) or len(rows) != len(wanted) or not set(columns) <= set(rows)
    if not stale:
        rows = rows.loc[wanted]
        stale = rows["label"].tolist() != [names[c] for c in table.labels]
    if stale:
        raise DataError(
            "A method's answers are to the run's own images and labels",
            f"those of '{method}' differ in {len(differ)} ids: {first_few(sorted(differ))}"
            if differ
            else f"those of '{method}' have other labels or classes",
            f"Run ensemble-kit stack --method {method} --run {run.path} again",
        )
    index = {name: c for c, name in enumerate(names)}
    proba = rows[columns].to_numpy(dtype=np.float64)
    chosen = np.array([index.get(p, ABSTAINED) for p in rows["predicted"]], dtype=np.int64)
    return Answered(table, Combined(proba, chosen, np.zeros(len(proba), dtype=bool)))


def _refuse_old_logits(table: Predictions, run: Run, method: str) -> None:
    """Members that were trained again since answer otherwise than what was stacked."""
    path = run.ensemble_dir(method) / JSON_NAME
    about = read_json(path).get("about", {}) if path.is_file() else {}
    members = about.get("member_names", [])
    if table.kind != "oof" or "logits" not in about:
        return
    gone = [name for name in members if name not in table.member_names]
    own = None if gone else table.select(members)
    # A quorum stands in for what is missing: such logits are not the stored ones.
    if own is not None and (
        not own.is_complete or digest_bytes(own.logits.tobytes()) == about["logits"]
    ):
        return
    raise DataError(
        "A method's answers are of the run's members as they are",
        f"'{method}' was stacked over {first_few(members)}, "
        + (f"and {first_few(gone)} is gone" if gone else "some of which were trained again since"),
        f"Run ensemble-kit stack --method {method} --run {run.path} again",
    )


def _of_member(table: Predictions, member: str) -> Answered:
    own = table.select([member])
    if not own.is_complete:
        raise DataError(
            "A member's answers cover every image",
            f"'{member}' lacks {int((~own.available).sum())} of {len(own)}",
            "Run the same train-members command again: it goes on where it stopped",
        )
    return Answered(table, decided(softmax(own.logits[:, 0])))


def answers_by_fold(run: Run, method: str) -> tuple[Answered, dict[int, Array]]:
    """Out-of-fold answers, and what each fold's own models say of the test part.

    A fitted method is fitted once per fold, to the other folds' rows, as it was cross-fitted.

    Returns
    -------
    Answered
        Out-of-fold.
    dict of fold to array, shape (n_test, n_classes)
        Probabilities.

    Raises
    ------
    DataError
        The run has no test part, or members that the method was not stacked over.
    """
    combiner, members = _combiner_of(run, method)
    if combiner.needs_features:
        raise UsageError(
            "Answers by fold are those of methods fitted to the other folds' logits",
            f"'{method}' learns in each fold's own features",
            "Choose another --method",
        )
    oof = run.predictions("oof").select(members)
    test = run.predictions("test").select(members)
    fold = fold_of(oof)
    logits = _test_logits_by_fold(run, members, test)
    folds = sorted(logits)
    if combiner.is_fitted_to_labels:
        row_sets = [np.flatnonzero(fold != k) for k in folds]
        fitted = combiner.fit_many(oof.logits, oof.labels, oof.groups, row_sets)
    else:
        fitted = [combiner.fit(oof.logits, oof.labels, oof.groups)] * len(folds)
    proba = np.empty((len(oof), oof.n_classes))
    for k, one in zip(folds, fitted, strict=True):
        proba[fold == k] = one.predict_proba(oof.logits[fold == k])
    new = {k: one.predict_proba(logits[k]) for k, one in zip(folds, fitted, strict=True)}
    return Answered(oof, decided(proba)), new


def _combiner_of(run: Run, method: str) -> tuple[Combiner, list[str]]:
    """The method's unfitted combiner and the members it combines."""
    folder = run.ensemble_dir(method)
    if not (folder / JSON_NAME).is_file():
        return MeanProba(), [method]
    stored = read_json(folder / JSON_NAME)
    return load_combiner(folder).fresh(), list(stored["about"]["member_names"])


def _test_logits_by_fold(run: Run, members: list[str], test: Predictions) -> dict[int, Array]:
    stored = [run.store.read(name) for name in members]
    out = {}
    for k in sorted(stored[0].test):
        arrays = {}
        for name, one in zip(members, stored, strict=True):
            by_name = [one.class_names.index(c) for c in test.class_names]
            arrays[name] = one.test[k][:, by_name]
        ids = {name: one.test_ids for name, one in zip(members, stored, strict=True)}
        out[k] = aligned(arrays, ids, test.sample_ids)
    return out
