"""The database of a study: where it lies, how it is opened, and what its errors mean.

Knows Optuna and SQLite; does not train.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from ensemble_kit.errors import EnsembleKitError, IntegrityError
from ensemble_kit.faults import chain, machine_fault
from ensemble_kit.run import Run

DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
# Marks of trials: the recipe as it stands, a second try, and why a training failed.
RECIPE, RETRIED, FAILED = "recipe", "retried", "failed"


def study_path(run: Run, member: str) -> Path:
    """The study's SQLite file."""
    return run.path / "tuned" / f"{member}.db"


@contextlib.contextmanager
def database(path: Path) -> Iterator[None]:
    """Inside the block, errors of the database are those of the disk, or name a damaged file.

    Raises
    ------
    EnvironmentFault
        The disk is full or read-only; the trials that are stored stay.
    IntegrityError
        The file is no database of a study.
    """
    try:
        yield
    except EnsembleKitError:
        raise
    except Exception as error:
        if (fault := machine_fault(error, path)) is not None:
            raise fault from error
        if any(getattr(link, "sqlite_errorname", "").startswith(DAMAGED) for link in chain(error)):
            raise IntegrityError(
                f"'{path}' is damaged",
                "a study is an SQLite database that Optuna wrote",
                "Delete that file, then run the same command: the study begins again",
            ) from error
        raise


def open_study(path: Path, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    """The study in this file, which is created where it is missing."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    return optuna.create_study(
        storage=f"sqlite:///{path.resolve()}",
        study_name=path.stem,
        direction="minimize",
        load_if_exists=True,
        pruner=pruner,
    )


def retry_cut_off(study: optuna.Study, recipe: Mapping[str, Any]) -> None:
    """Put trials that were cut off in line again: others once, the recipe as it stands until it ends."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if not (trial.user_attrs.get(RETRIED) or trial.user_attrs.get(RECIPE)):
            study.enqueue_trial(trial.params, user_attrs={RETRIED: True}, skip_if_exists=False)
    if not any(trial.user_attrs.get(RECIPE) and _counts(trial) for trial in study.trials):
        study.enqueue_trial(dict(recipe), user_attrs={RECIPE: True}, skip_if_exists=False)


def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that ended with a value, or were pruned."""
    return study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))


def ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that finished or whose training failed; not those that were cut off."""
    return [trial for trial in study.trials if trial.state.is_finished() and _counts(trial)]


def _counts(trial: optuna.trial.FrozenTrial) -> bool:
    return trial.state != TrialState.FAIL or FAILED in trial.user_attrs
