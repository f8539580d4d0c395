"""Tuning of several members: trials one after the other or in workers, until they or the time end.

Chooses whose trial is next and stores the best values; one trial is in `objective.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ensemble_kit.errors import JobsFailedError, first_few
from ensemble_kit.folds import Folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.fit_members import refuse_bad_members
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.pretrained import require_first_weights
from ensemble_kit.members.preflight import check_members
from ensemble_kit.run import Run
from ensemble_kit.tune.best import METRIC, write_best, write_gains
from ensemble_kit.tune.kept_trials import Library, keep_picks
from ensemble_kit.tune.member_study import MemberStudy
from ensemble_kit.tune.outcome import TuningResult, tuning_result
from ensemble_kit.tune.plan import TunePlan
from ensemble_kit.tune.schedule import next_member, seconds_left
from ensemble_kit.tune.space import Space
from ensemble_kit.tune.storage import database, is_server, storage_path
from ensemble_kit.tune.trial_loop import (
    TimeIsUp,
    opened,
    results_of,
    run_trials,
    running_of,
)
from ensemble_kit.tune.trials import DEFAULT, TrialResult, best_of, default_of, ended, result_of


@dataclasses.dataclass(frozen=True)
class Progress:
    """Where a tuning stands.

    Parameters
    ----------
    results : mapping of member name to its trials that ended
    latest : (str, TrialResult), optional
        The member and trial that just ended.
    at_work : tuple of str
        Members whose trials run.
    seconds_left : float or None
        By the trials that ended; None if none did.
    """

    results: Mapping[str, Sequence[TrialResult]]
    n_trials: int
    latest: tuple[str, TrialResult] | None = None
    at_work: tuple[str, ...] = ()
    seconds_left: float | None = None


Watcher = Callable[[Progress], None]


class Crew(Protocol):
    """Runs trials in other processes until all members have theirs or the time is up."""

    @property
    def n_workers(self) -> int: ...

    def __call__(
        self, plan: TunePlan, n_trials: int, deadline: float | None, look: Callable[[], None]
    ) -> None:
        """Call `look` about once per second while the processes work."""


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
    storage: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    seed: int = 0,
    config: Mapping[str, Any] | None = None,
    watcher: Watcher = lambda _: None,
    cache: Path | None = None,
    crew: Crew | None = None,
) -> TuningResult:
    """Tune each member until its study holds `n_trials` trials or the time is up.

    A trial trains the member fold by fold and is scored by log loss on the held-out patients. It is
    stopped when it is worse than the best trial so far. The first trial is the member as it stands.
    The same call continues an interrupted tuning. The best values are stored in the run folder.

    Parameters
    ----------
    members : sequence of Member
    train : Manifest
        Rows of the test part, if there are any, are left out at once.
    folds : Folds
        Of the training rows.
    run : Run
        The studies are stored under `tuned/`.
    n_trials : int
        Trials of each member in all, including those of earlier calls.
    time_limit : float, optional
        Seconds in all. They are shared out by how much each member still gains.
    space : Space, optional
        What is tuned; by default the learning rate and the batch size.
    objective : {"solo", "team"}
        `team` scores a trial by the mean with the stored predictions of the other members.
    prunes : bool
        Stop trials that are worse than the best one.
    keep_trials : bool
        Store the networks of finished trials, and make members of those that greedy selection picks.
    storage : str, optional
        URL of a PostgreSQL server, for several hosts. By default an SQLite file in the run folder.
    watcher : callable
        Receives a `Progress` after each trial.
    crew : callable, optional
        Runs the trials in worker processes, e.g. `ensemble_kit.launch.tuning.TuningWorkers(2)`; by
        default they run in this process.

    Returns
    -------
    TuningResult

    Raises
    ------
    DataError
        A study was begun with other data or settings.
    EnvironmentFault
        The disk is full or the server cannot be reached; finished trials are kept.
    JobsFailedError
        No trial of a member ended with a finite loss.
    RunLockedError
        Another process works on this run.
    """
    refuse_bad_members(members)
    only_train = train.part("train")
    check_members(members, only_train)
    require_first_weights(members)
    plan = TunePlan(
        tuple(members), only_train, folds, run.path, space or Space(), storage, device,
        precision, seed, objective == "team", prunes, keep_trials, cache,
    )  # fmt: skip
    deadline = None if time_limit is None else time.monotonic() + time_limit
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(contextlib.ExitStack())
        lock.enter_context(run.locked(seconds=600 if is_server(storage) else 0))
        if config is not None:
            run.begin(train, folds, config)
        if is_server(storage):
            lock.close()  # other hosts may share the folder
        tuning = _Tuning(plan, run, n_trials, deadline, watcher)
        with database(storage_path(run)):
            with contextlib.suppress(TimeIsUp):
                tuning.run_all(crew)
            return tuning.result(train if keep_trials else None)


class _Tuning:
    """The studies of this process, and what is told of them."""

    def __init__(
        self, plan: TunePlan, run: Run, n_trials: int, deadline: float | None, watcher: Watcher
    ) -> None:
        self._plan, self._run, self._n_trials = plan, run, n_trials
        self._deadline, self._watcher, self._n_workers = deadline, watcher, 1
        self._studies = opened(plan, deadline)
        for study in self._studies.values():
            study.prepare()

    def run_all(self, crew: Crew | None) -> None:
        """Run trials, here or by a crew, until all members have theirs or the time is up."""
        self._tell(None)
        if crew is None:
            run_trials(
                self._studies, self._n_trials, self._deadline,
                before=lambda name: self._tell(None, (name,)), after=self._after_trial,
            )  # fmt: skip
            return
        self._n_workers = crew.n_workers
        seen = {(name, t.number) for name, done in results_of(self._studies).items() for t in done}

        def look() -> None:
            for name, done in results_of(self._studies).items():
                for trial in done:
                    if (name, trial.number) not in seen:
                        seen.add((name, trial.number))
                        self._after_trial(name, trial)
            self._tell(None, tuple(running_of(self._studies)))

        if next_member(results_of(self._studies), self._n_trials, by_gain=False) is not None:
            crew(self._plan, self._n_trials, self._deadline, look)
            look()

    def result(self, whole: Manifest | None = None) -> TuningResult:
        """The answer; stores the best values. With the whole manifest, members of picked trials too.

        Raises
        ------
        JobsFailedError
            A member has its trials, and none ended with a finite loss.
        """
        for study in self._studies.values():
            store_best(self._run, study, self._plan.train)
        done = results_of(self._studies)
        hopeless = [
            name
            for name, trials in done.items()
            if len(trials) >= self._n_trials and all(t.loss is None for t in trials)
        ]
        if hopeless:
            raise JobsFailedError(
                f"No trial of {first_few(hopeless)} ended with a finite loss",
                f"{len(done[hopeless[0]])} were tried",
                "Lower the recipe's learning_rate and look at 'ensemble-kit data check'",
            )
        train = self._plan.train
        library = None if whole is None else Library.of(self._studies, train)
        found = tuning_result(self._studies, train, self._plan.folds.notes, library)
        write_gains(self._run, [gain.to_json() for gain in found.gains])
        if library is not None and whole is not None:
            keep_picks(self._run, library, found.picks, whole)
        return found

    def _after_trial(self, name: str, result: TrialResult) -> None:
        store_best(self._run, self._studies[name], self._plan.train)
        self._tell((name, result))

    def _tell(self, latest: tuple[str, TrialResult] | None, at_work: tuple[str, ...] = ()) -> None:
        results = results_of(self._studies)
        left = seconds_left(results, self._n_trials, self._n_workers)
        if self._deadline is not None:
            until = max(self._deadline - time.monotonic(), 0.0)
            left = until if left is None else min(left, until)
        self._watcher(Progress(results, self._n_trials, latest, at_work, left))


def store_best(run: Run, study: MemberStudy, train: Manifest) -> None:
    """Store the best values of a member; none if its default is the best trial."""
    trials = ended(study.study)
    best, default = best_of(trials), default_of(trials)
    if best is None:
        return
    found = result_of(best)
    write_best(
        run,
        study.name,
        {} if found.origin == DEFAULT else found.values,
        {
            "metric": METRIC,
            "value": found.loss,
            "default": None if default is None else default.value,
            "trial": found.number,
            "n_trials": len(trials),
            "objective": "solo" if study.objective.team is None else "team",
            "train": train.digest,
            "folds": study.objective.folds.digest,
        },
    )
