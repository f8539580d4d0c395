"""Stored predictions of one method of a run, cross-fitted and on the test part.

The method is a stacked method or a single member. Rows are joined by sample id.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from ensemble_kit.arrays import Array, Ints, softmax
from ensemble_kit.combiners import COMBINERS
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.combiners.saved import JSON_NAME, load_combiner, read_saved
from ensemble_kit.errors import DataError, UsageError, command, did_you_mean, first_few
from ensemble_kit.evaluation.caveats import table_notes
from ensemble_kit.evaluation.cross_validation.cross_fit import fold_of
from ensemble_kit.evaluation.runs.ensemble_folder import PREDICTIONS, made_of
from ensemble_kit.evaluation.runs.stored_ensembles import (
    read_ensemble_predictions,
    read_metrics,
    refuse_stale,
    stored_methods,
)
from ensemble_kit.predictions.method_predictions import (
    ABSTAINED,
    Combined,
    MethodPredictions,
    decided,
)
from ensemble_kit.predictions.quorum import with_quorum
from ensemble_kit.predictions.store import aligned
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class StoredPredictions:
    """A method's predictions, with the tables of the run that they were made from.

    Parameters
    ----------
    method : str
    oof, test : MethodPredictions
        Cross-fitted, and of the test part; `test` is None without a test part.
    oof_table, test_table : Predictions
        The same rows with the logits of the members.
    """

    method: str
    oof: MethodPredictions
    test: MethodPredictions | None
    oof_table: Predictions
    test_table: Predictions | None

    @property
    def fold(self) -> Ints:
        """The fold of each out-of-fold row, shape (n_samples,)."""
        return fold_of(self.oof_table)

    @property
    def notes(self) -> tuple[str, ...]:
        """The caveats of the tables."""
        return table_notes(self.oof_table, self.test_table)

    def made_of(self) -> dict[str, Any]:
        """Digests of the data behind the predictions."""
        return made_of(self.oof_table, self.test_table)


def stored_predictions(run: Run, method: str) -> StoredPredictions:
    """The stored predictions of a stacked method, or of a member.

    Raises
    ------
    UsageError
        Neither a stacked method nor a member, or the oracle, which uses the labels.
    DataError
        The method was stacked over other rows or labels than the run's.
    IntegrityError
        A stored file is damaged, or the run's predictions changed since.
    """
    if method == "oracle":
        raise UsageError(
            "The method 'oracle' was given",
            "decisions cannot use the oracle, because it uses the true labels",
            "Use e.g. mean",
        )
    oof = run.predictions("oof", partial=True)
    has_test = len(run.manifest().part("test")) > 0
    test = run.predictions("test", partial=True) if has_test else None
    tables = [oof] if test is None else [oof, test]
    if (run.ensemble_dir(method) / PREDICTIONS).is_file():
        refuse_stale(run, method, read_metrics(run, method), oof, test)
        frame, about = read_ensemble_predictions(run.ensemble_dir(method)), _about(run, method)
        found = [of_frame(frame, table, run, method) for table in tables]
        tables = [_with_stored_quorum(table, about) for table in tables]
    elif method in oof.member_names:
        found = [_of_member(table, method) for table in tables]
    else:
        _refuse_unknown(run, method, oof)
    tested = (found[1], tables[1]) if test is not None else (None, None)
    return StoredPredictions(method, found[0], tested[0], tables[0], tested[1])


def _refuse_unknown(run: Run, method: str, oof: Predictions) -> NoReturn:
    stacked = [name for name in stored_methods(run) if name != "oracle"]
    raise UsageError(
        f"'{run.path}' has no predictions of '{method}'",
        "a stacked method or a member is needed",
        f"Run {command('stack', '--method', method, '--run', run.path)} first"
        if method in COMBINERS
        else did_you_mean(method, [*stacked, *oof.member_names]),
    )


def of_frame(frame: pd.DataFrame, table: Predictions, run: Run, method: str) -> MethodPredictions:
    """The rows of `predictions.csv` that are in a table, in the order of the table.

    Raises
    ------
    DataError
        Other rows, labels or classes than the table has.
    """
    rows = frame[frame["split"] == table.kind].set_index("sample_id")
    wanted = table.sample_ids.tolist()
    names = table.class_names
    differ = set(rows.index) ^ set(wanted)
    columns = [f"p_{name}" for name in table.class_names]
    stale = bool(differ) or len(rows) != len(wanted) or not set(columns) <= set(rows)
    if not stale:
        rows = rows.loc[wanted]
        stale = rows["label"].tolist() != [names[c] for c in table.labels]
    if stale:
        raise DataError(
            f"The stored predictions of '{method}' differ in {len(differ)} ids: "
            f"{first_few(sorted(differ))}"
            if differ
            else f"The stored predictions of '{method}' have other labels or classes",
            "predictions are of the run's own images and labels",
            f"Run {command('stack', '--method', method, '--run', run.path)} again",
        )
    index = {name: c for c, name in enumerate(names)}
    proba = rows[columns].to_numpy(dtype=np.float64)
    chosen = np.array([index.get(p, ABSTAINED) for p in rows["predicted"]], dtype=np.int64)
    combined = Combined(proba, chosen, np.zeros(len(proba), dtype=bool))
    return MethodPredictions.of(combined, table)


def _about(run: Run, method: str) -> dict[str, Any]:
    """The block `about` of a stacked method's `combiner.json`; empty for a single member."""
    path = run.ensemble_dir(method) / JSON_NAME
    return dict(read_saved(path.parent).get("about", {})) if path.is_file() else {}


def _with_stored_quorum(table: Predictions, about: Mapping[str, Any]) -> Predictions:
    """The table with the quorum that the method was stacked with, if any."""
    if "quorum" not in about:
        return table
    return with_quorum(table.select(about["member_names"]), about["quorum"])


def _of_member(table: Predictions, member: str) -> MethodPredictions:
    own = table.select([member])
    if not own.is_complete:
        raise DataError(
            f"'{member}' has no prediction for {int((~own.available).sum())} of {len(own)} images",
            "every image needs a prediction",
            "Run the same train-members command again: it continues where it stopped",
        )
    return MethodPredictions.of(decided(softmax(own.logits[:, 0])), table)


def predictions_by_fold(run: Run, method: str) -> tuple[MethodPredictions, dict[int, Array]]:
    """Out-of-fold predictions, and predictions for the test part by each fold's own models.

    A fitted method is cross-fitted: once per fold, to the rows of the other folds.

    Returns
    -------
    MethodPredictions
        Out-of-fold predictions.
    dict of fold to array, shape (n_test, n_classes)
        Probabilities.

    Raises
    ------
    DataError
        The run has no test part, other members than the method, or the same test logits for every
        fold.
    """
    combiner, members = _combiner_of(run, method)
    if combiner.needs_features:
        raise UsageError(
            f"'{method}' has no predictions by fold",
            "it is fitted on the features of each fold, not on logits of other folds",
            "Choose another --method",
        )
    about = _about(run, method)
    gaps = "quorum" in about
    oof = _with_stored_quorum(run.predictions("oof", partial=gaps).select(members), about)
    test = run.predictions("test", partial=gaps).select(members)
    fold = fold_of(oof)
    logits = _test_logits_by_fold(run, members, test)
    if _all_equal(logits):
        raise DataError(
            f"'{run.path}' has one test prediction per member, the same for all {len(logits)} folds",
            "cross-conformal sets need the predictions of each fold's own model",
            "Leave out --cross",
        )
    folds = sorted(logits)
    if combiner.is_fitted_to_labels:
        fitted = combiner.fit_each(oof, [np.flatnonzero(fold != k) for k in folds])
    else:
        fitted = [combiner.fit_to(oof)] * len(folds)
    proba, new = np.empty((len(oof), oof.n_classes)), {}
    for k, one in zip(folds, fitted, strict=True):
        proba[fold == k] = one.apply(oof.take(fold == k)).proba
        tested = dataclasses.replace(test, logits=logits[k])
        new[k] = one.apply(_with_stored_quorum(tested, about)).proba
    return MethodPredictions.of(decided(proba), oof), new


def folds_differ(run: Run, test: Predictions) -> bool:
    """Whether test predictions differ between the folds' models; imported predictions do not."""
    return not _all_equal(_test_logits_by_fold(run, test.member_names, test))


def _combiner_of(run: Run, method: str) -> tuple[Combiner, list[str]]:
    """The method's unfitted combiner and the members it combines."""
    folder = run.ensemble_dir(method)
    if not (folder / JSON_NAME).is_file():
        return MeanProba(), [method]
    stored = read_saved(folder)
    return load_combiner(folder).fresh(), list(stored["about"]["member_names"])


def _test_logits_by_fold(run: Run, members: Sequence[str], test: Predictions) -> dict[int, Array]:
    """Test logits of each fold's models; NaN if a member has no model of that fold."""
    stored = {name: run.store.read(name) for name in members}
    ids = {name: one.test_ids for name, one in stored.items()}
    out = {}
    for k in range(run.folds().n_splits):
        arrays = {}
        for name, one in stored.items():
            by_name = [one.class_names.index(c) for c in test.class_names]
            none = np.full((len(one.test_ids), len(by_name)), np.nan, dtype=np.float32)
            arrays[name] = one.test.get(k, none)[:, by_name]
        out[k] = aligned(arrays, ids, test.sample_ids)
    return out


def _all_equal(by_fold: Mapping[int, Array]) -> bool:
    first, *others = by_fold.values()
    return all(np.array_equal(first, other, equal_nan=True) for other in others)
