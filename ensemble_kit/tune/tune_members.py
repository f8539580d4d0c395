"""Tuning of several members: the options are checked, and the run is locked."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble_kit.errors import UsageError
from ensemble_kit.folds import Folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.fit_members import refuse_bad_members
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.pretrained import require_init_checkpoints
from ensemble_kit.members.preflight import check_members
from ensemble_kit.run import Run
from ensemble_kit.tune.by_proxy import tune_by_proxy
from ensemble_kit.tune.nested_tuning import nested_gains
from ensemble_kit.tune.outcome import TuningResult
from ensemble_kit.tune.plan import TunePlan
from ensemble_kit.tune.proxy import Proxy
from ensemble_kit.tune.space import Space
from ensemble_kit.tune.storage import database, is_server, storage_path
from ensemble_kit.tune.tuning import Listener, Progress, Tuning, WorkerPool

__all__ = ["Progress", "tune_members"]


def tune_members(
    members: Sequence[Member],
    train: Manifest,
    folds: Folds,
    run: Run,
    *,
    n_trials: int = 20,
    time_limit: float | None = None,
    space: Space | None = None,
    objective: str = "solo",
    prunes: bool = True,
    keep_trials: bool = False,
    nested: bool = False,
    proxy: Proxy | None = None,
    storage: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    listener: Listener = lambda _: None,
    cache: Path | None = None,
    worker_pool: WorkerPool | None = None,
) -> TuningResult:
    """Tune each member until its study holds `n_trials` trials or the time is up.

    A trial trains the member fold by fold and is scored by log loss on the held-out patients. It is
    stopped when it is worse than the best trial so far. The first trial has the member's own
    settings. The same call resumes an interrupted tuning. The best values are stored in the run
    folder.

    Parameters
    ----------
    members : sequence of Member
    train : Manifest
        Rows of the test part are not used.
    folds : Folds
        The folds of the training rows.
    run : Run
        The studies are stored under `tuned/`.
    n_trials : int
        Total number of trials of each member, including those of earlier calls.
    time_limit : float, optional
        Total seconds. Members with larger recent gains get more trials.
    space : Space, optional
        The tuned settings; by default the learning rate and the batch size.
    objective : {"solo", "team"}
        `team` scores a trial by the mean with the stored predictions of the other members.
    prunes : bool
        Stop trials that are worse than the best one.
    keep_trials : bool
        Store the networks of finished trials. Greedy selection selects trials as new members.
    nested : bool
        Tune again inside the training folds of each fold, and score the result on the fold, so that
        no fold is used to choose its own settings. This needs K times as many trials more.
    proxy : Proxy, optional
        Run the trials in a cheaper form. A few of them are then trained in full; the best of those
        is stored, with the rank correlation between both forms.
    storage : str, optional
        URL of a PostgreSQL server, for several hosts. Default: an SQLite file in the run folder.
    listener : callable
        Receives a `Progress` after each trial.
    worker_pool : callable, optional
        Runs the trials in worker processes, e.g. `ensemble_kit.launch.tuning.TuningWorkers(2)`.
        Default: in this process.

    Returns
    -------
    TuningResult

    Raises
    ------
    DataError
        A study was begun with other data or settings.
    EnvironmentFault
        The disk is full or the server cannot be reached; finished trials are not lost.
    UsageError
        `nested` or `proxy` with an option that cannot be combined with it.
    JobsFailedError
        No trial of a member ended with a finite loss.
    RunLockedError
        Another process works on this run.
    """
    refuse_bad_members(members)
    only_train = train.part("train")
    check_members(members, only_train)
    require_init_checkpoints(members)
    _refuse_exclusive(
        objective=objective, storage=storage, nested=nested, proxy=proxy, n_folds=folds.n_splits
    )
    plan = TunePlan(
        tuple(members), only_train, folds, run.path, space or Space(), storage, device,
        precision, seed, objective == "team", prunes, keep_trials, cache,
    )  # fmt: skip
    deadline = None if time_limit is None else time.monotonic() + time_limit
    with contextlib.ExitStack() as lock:
        lock.enter_context(run.locked(seconds=600 if is_server(storage) else 0))
        if config is not None:
            run.begin(train, folds, config)
        if is_server(storage):
            lock.close()  # other hosts may share the folder
        with database(storage_path(run)):
            if proxy is not None:
                tuning = tune_by_proxy(plan, proxy, n_trials, deadline, listener, worker_pool)
            else:
                tuning = Tuning(plan, n_trials, deadline, listener)
                tuning.run_all(worker_pool)
            found = tuning.result(train if keep_trials else None)
            if not nested:
                return found
            gains = nested_gains(tuning, n_trials, deadline, listener, worker_pool)
            return dataclasses.replace(found, nested=gains)


def _refuse_exclusive(
    *, objective: str, storage: str | None, nested: bool, proxy: Proxy | None, n_folds: int
) -> None:
    """Refuse options that exclude each other, and nested tuning over too few folds."""
    requested = "--nested" if nested else "--proxy"
    if nested and proxy is not None:
        raise UsageError(
            "--nested cannot be used with --proxy", "use one of the two", "Leave out one of them"
        )
    if not nested and proxy is None:
        return
    if objective == "team":
        raise UsageError(
            f"{requested} cannot be used with --objective team",
            "the stored predictions of the other members belong to the whole training part",
            "Use --objective solo",
        )
    if storage is not None:
        raise UsageError(
            f"{requested} cannot be used with --storage",
            "it needs separate studies in the run folder",
            "Leave out --storage",
        )
    if nested and n_folds < 3:
        raise UsageError(
            f"--nested cannot be used with {n_folds} folds",
            "settings of a fold are tuned over the other folds, so three are needed",
            "Use --folds 3 or more",
        )
