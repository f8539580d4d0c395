"""Reads the folder of an ensemble: checks every file, and compares it with the run's predictions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble_kit.checked import check_file, read_checked
from ensemble_kit.combiners.saved import JSON_NAME, read_saved
from ensemble_kit.errors import DataError, IntegrityError, command, first_few
from ensemble_kit.evaluation.runs.ensemble_folder import METRICS, PREDICTIONS, made_of
from ensemble_kit.files import digest_bytes, read_csv
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run
from ensemble_kit.run.folder import ENSEMBLES


def stored_methods(run: Run) -> list[str]:
    """Names of the methods whose results are stored, sorted."""
    found = (run.path / ENSEMBLES).glob("[!.]*/*")
    return sorted({path.parent.name for path in found if path.name in (METRICS, PREDICTIONS)})


def read_metrics(run: Run, method: str) -> dict[str, Any]:
    """The `metrics.json` of a stored method; every file of its folder is checked.

    Raises
    ------
    IntegrityError
        A file is missing, damaged or changed, or the folder contains another method.
    """
    folder = run.ensemble_dir(method)
    metrics = _checked_metrics(folder)
    if metrics.get("method") != method:
        raise IntegrityError(
            f"'{folder}' contains the results of '{metrics.get('method')}'",
            "a folder has the name of its method",
            f"Rename that folder. Or: {_again(folder)}",
        )
    return metrics


def read_ensemble_predictions(folder: str | os.PathLike[str]) -> pd.DataFrame:
    """`predictions.csv` as text, with probabilities as float64.

    Raises
    ------
    IntegrityError
        The file is missing, damaged or changed.
    """
    _checked_metrics(Path(folder))
    path = Path(folder) / PREDICTIONS
    try:
        table = read_csv(path)
        for column in [c for c in table.columns if c.startswith("p_")]:
            table[column] = table[column].astype(np.float64)
    except (DataError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"'{path}' is damaged ({error})",
            "stored files must stay as they were written",
            _again(Path(folder)),
        ) from error
    return table


def _checked_metrics(folder: Path) -> dict[str, Any]:
    path, again = folder / METRICS, _again(folder)
    if not path.is_file():
        raise IntegrityError(f"'{path}' is missing", "an ensemble needs its metrics", again)
    metrics = read_checked(path, advice=again)
    for name, digest in metrics.get("files", {}).items():
        check_file(folder / name, digest, advice=again)
    return metrics


def what_changed(
    run: Run, method: str, metrics: Mapping[str, Any], oof: Predictions, test: Predictions | None
) -> str:
    """What changed since the method was stacked, in words; empty if nothing changed.

    Parameters
    ----------
    metrics : mapping
        The method's `metrics.json`.
    oof, test : Predictions
        The current tables of the run; gaps are accepted.
    """
    made = metrics.get("made_of")
    names = list(metrics.get("member_names", []) if made is None else made["members"])
    gone = [name for name in names if name not in oof.member_names]
    if gone:
        return f"the predictions of {first_few(gone)} are gone"
    now = made_of(oof.select(names), None if test is None else test.select(names))
    if made is None:
        return _changed_since_earlier_version(run, method, oof.select(names))
    for what in ("manifest", "folds"):
        if made[what] != now[what]:
            return f"the {what} changed"
    other = [name for name in names if made["members"][name] != now["members"][name]]
    return f"the predictions of {first_few(other)} changed" if other else ""


def _changed_since_earlier_version(run: Run, method: str, own: Predictions) -> str:
    """Earlier versions store one digest of the out-of-fold logits, in `combiner.json`."""
    folder = run.ensemble_dir(method)
    about = read_saved(folder)["about"] if (folder / JSON_NAME).is_file() else {}
    same = about.get("logits") in (None, digest_bytes(own.logits.tobytes()))
    return "" if same else "the predictions of its members changed"


def current_metrics(
    run: Run, oof: Predictions, test: Predictions | None
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The `metrics.json` of every method that is up to date, and a caveat on the other methods.

    Raises
    ------
    IntegrityError
        A stored file is damaged or was changed.
    """
    stored = {method: read_metrics(run, method) for method in stored_methods(run)}
    changed = {m: what_changed(run, m, metrics, oof, test) for m, metrics in stored.items()}
    old = {method: what for method, what in changed.items() if what}
    notes = []
    if old:
        what = first_few(dict.fromkeys(old.values()))
        notes.append(
            f"Not shown: {first_few(old, len(old))}. The run's predictions changed since they were "
            f"stacked ({what}). Run {command('stack', '--run', run.path)} again."
        )
    return {method: one for method, one in stored.items() if not changed[method]}, notes


def refuse_stale(
    run: Run, method: str, metrics: Mapping[str, Any], oof: Predictions, test: Predictions | None
) -> None:
    """Raise IntegrityError if a method was stacked over other predictions than the run's."""
    if changed := what_changed(run, method, metrics, oof, test):
        folder = run.ensemble_dir(method)
        raise IntegrityError(
            f"'{folder}' is out of date: {changed} since '{method}' was stacked",
            "results must belong to the current predictions of the run",
            _again(folder),
        )


def _again(folder: Path) -> str:
    return f"Run {command('stack', '--method', folder.name, '--run', folder.parent.parent)} again"
