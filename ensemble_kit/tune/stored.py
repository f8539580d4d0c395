"""Studies and best values that a run has stored, read without its images."""

from __future__ import annotations

from typing import Any

import optuna

from ensemble_kit.errors import DataError
from ensemble_kit.report.tuning import GAINS
from ensemble_kit.run import Run
from ensemble_kit.tune.best import best_record
from ensemble_kit.tune.storage import database, open_storage, storage_path
from ensemble_kit.tune.trials import TrialResult, ended, result_of


def stored_studies(run: Run, storage: str | None = None) -> dict[str, optuna.Study]:
    """The studies of a run, by name.

    Raises
    ------
    DataError
        The run has none.
    """
    if storage is None and not storage_path(run).is_file():
        raise _nothing(run)
    opened = open_storage(run, storage)
    with database(storage_path(run)):
        names = optuna.get_all_study_names(opened)
        if not names:
            raise _nothing(run)
        return {name: optuna.load_study(study_name=name, storage=opened) for name in names}


def stored_results(run: Run, storage: str | None = None) -> dict[str, list[TrialResult]]:
    """The trials of each study that ended."""
    return {
        name: [result_of(trial) for trial in ended(study)]
        for name, study in stored_studies(run, storage).items()
    }


def best_records(run: Run) -> dict[str, dict[str, Any]]:
    """What is stored about the best trial of each tuned member.

    Raises
    ------
    DataError
        No member was tuned.
    """
    names = sorted(p.stem for p in (run.path / "tuned").glob("*.json") if p.name != GAINS)
    found = {name: best_record(run, name) for name in names}
    if not found:
        raise _nothing(run)
    return {name: record for name, record in found.items() if record is not None}


def _nothing(run: Run) -> DataError:
    return DataError(
        f"'{run.path.as_posix()}' has no tuned member",
        "tuning was not begun there",
        "Run ensemble-kit tune first, or name another --run",
    )
