"""Writes the folder of an ensemble as a whole, with the digests of its files and predictions."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.checked import write_checked
from ensemble_kit.combiners.saved import ARRAYS_NAME, JSON_NAME, save_combiner
from ensemble_kit.evaluation.result import Evaluation
from ensemble_kit.evaluation.runs.ensemble_files import (
    about_json,
    metrics_json,
    predictions_frame,
)
from ensemble_kit.files import digest_bytes, digest_file, write_bytes, write_csv
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.replaced import replaced_whole
from ensemble_kit.run import Run

PREDICTIONS, METRICS = "predictions.csv", "metrics.json"
# Computed later from the stored predictions; invalid if the predictions change.
SETS, SETS_JSON, DECISION = "sets.csv", "sets.json", "decision.json"
DERIVED = {SETS, SETS_JSON, DECISION}
OWN = {PREDICTIONS, METRICS, JSON_NAME, ARRAYS_NAME}


def alpha_of(stored: Mapping[str, Any]) -> float:
    """The error rate that prediction sets were made for; earlier versions store it as `miss`.

    >>> alpha_of({"alpha": 0.1}), alpha_of({"miss": 0.05})
    (0.1, 0.05)
    """
    return float(stored["alpha"] if "alpha" in stored else stored["miss"])


def write_ensembles(
    run: Run, evaluations: Mapping[str, Evaluation], oof: Predictions, test: Predictions | None
) -> None:
    """Write every method's folder; none is replaced before all of them are written."""
    with contextlib.ExitStack() as all_folders:
        for name, one in evaluations.items():
            folder = run.ensemble_dir(name)
            fresh = all_folders.enter_context(replaced_whole(folder))
            _fill(fresh, folder, one, oof, test)


def _fill(
    fresh: Path, old: Path, evaluation: Evaluation, oof: Predictions, test: Predictions | None
) -> None:
    if not evaluation.combiner.needs_labels:
        write_csv(fresh / PREDICTIONS, predictions_frame(evaluation, oof, test))
        save_combiner(fresh, evaluation.combiner, about=about_json(evaluation, oof, test))
    files = {path.name: digest_file(path) for path in sorted(fresh.iterdir())}
    bound = {"made_of": made_of(oof, test), "files": files}
    write_checked(fresh / METRICS, {**metrics_json(evaluation, oof), **bound})
    _carry_over(old, fresh)


def _carry_over(old: Path, fresh: Path) -> None:
    """Copy other files of the old folder; prediction sets and thresholds only for equal predictions."""
    if not old.is_dir():
        return
    before, now = old / PREDICTIONS, fresh / PREDICTIONS
    same = before.is_file() and now.is_file() and digest_file(before) == digest_file(now)
    for path in old.iterdir():
        if path.is_file() and path.name not in OWN and (same or path.name not in DERIVED):
            write_bytes(fresh / path.name, path.read_bytes())


def made_of(oof: Predictions, test: Predictions | None) -> dict[str, Any]:
    """Digests of the data behind an ensemble: the manifest, the folds and each member's logits."""
    tables = {"oof": oof} if test is None else {"oof": oof, "test": test}
    return {
        "manifest": oof.manifest_digest,
        "folds": digest_bytes(oof.fold.tobytes()),
        "members": {
            name: {
                part: digest_bytes(table.logits[:, m].tobytes()) for part, table in tables.items()
            }
            for m, name in enumerate(oof.member_names)
        },
    }
