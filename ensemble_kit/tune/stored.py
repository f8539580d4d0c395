"""The stored studies and best values of a run, read without its images."""

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
        The run has no studies.
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
    """The ended trials of each study."""
    return {
        name: [result_of(trial) for trial in ended(study)]
        for name, study in stored_studies(run, storage).items()
    }


def best_records(run: Run) -> dict[str, dict[str, Any]]:
    """The stored record of the best trial of each tuned member.

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
        "this command needs the results of a tuning",
        "Run ensemble-kit tune first, or name another --run",
    )
