"""The tuning of a plan: run the trials of all members and store their results."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ensemble_kit.errors import JobsFailedError, first_few
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.run import Run
from ensemble_kit.tune.best import METRIC, write_best, write_gains
from ensemble_kit.tune.kept_trials import Library, keep_picks
from ensemble_kit.tune.member_study import MemberStudy
from ensemble_kit.tune.outcome import TuningResult, tuning_result
from ensemble_kit.tune.plan import TunePlan
from ensemble_kit.tune.proxy import proxy_record
from ensemble_kit.tune.schedule import next_member, seconds_left
from ensemble_kit.tune.trial_loop import TimeIsUp, opened, results_of, run_trials, running_of
from ensemble_kit.tune.trials import DEFAULT, TrialResult, best_of, default_of, ended, result_of


@dataclasses.dataclass(frozen=True)
class Progress:
    """The progress of a tuning.

    Parameters
    ----------
    results : mapping of member name to its ended trials
    n_trials : int
        Trials of each member in total.
    latest : (str, TrialResult), optional
        The trial that ended last, and its member.
    at_work : tuple of str
        Members with running trials.
    seconds_left : float or None
        Expected remaining time; None before a trial ended.
    """

    results: Mapping[str, Sequence[TrialResult]]
    n_trials: int
    latest: tuple[str, TrialResult] | None = None
    at_work: tuple[str, ...] = ()
    seconds_left: float | None = None


Listener = Callable[[Progress], None]


class WorkerPool(Protocol):
    """Runs trials in other processes until all members have theirs or the time is up."""

    @property
    def n_workers(self) -> int: ...

    def __call__(
        self, plan: TunePlan, n_trials: int, deadline: float | None, update: Callable[[], None]
    ) -> None:
        """Call `update` about once per second while the processes work."""


class Tuning:
    """Runs the trials of a plan's studies, stores their results, and reports progress.

    Parameters
    ----------
    n_trials : int
        Trials of each member in total.
    deadline : float or None
        On the clock of `time.monotonic`.
    """

    def __init__(
        self, plan: TunePlan, n_trials: int, deadline: float | None, listener: Listener
    ) -> None:
        self.plan, self._run, self._n_trials = plan, Run(plan.run_path), n_trials
        self._deadline, self._listener, self._n_workers = deadline, listener, 1
        self.studies = opened(plan, deadline)
        for study in self.studies.values():
            study.prepare()

    def run_all(self, worker_pool: WorkerPool | None) -> None:
        """Run trials, here or in a worker pool, until all are done or the time is up."""
        with contextlib.suppress(TimeIsUp):
            self._run_all(worker_pool)

    def _run_all(self, worker_pool: WorkerPool | None) -> None:
        self._report(None)
        if worker_pool is None:
            run_trials(
                self.studies, self._n_trials, self._deadline,
                before=lambda name: self._report(None, (name,)), after=self._after_trial,
            )  # fmt: skip
            return
        self._n_workers = worker_pool.n_workers
        seen = {(name, t.number) for name, done in results_of(self.studies).items() for t in done}

        def update() -> None:
            for name, done in results_of(self.studies).items():
                for trial in done:
                    if (name, trial.number) not in seen:
                        seen.add((name, trial.number))
                        self._after_trial(name, trial)
            self._report(None, tuple(running_of(self.studies)))

        if next_member(results_of(self.studies), self._n_trials, by_gain=False) is not None:
            worker_pool(self.plan, self._n_trials, self._deadline, update)
            update()

    def result(self, whole: Manifest | None = None) -> TuningResult:
        """Store the best values and return the result.

        With the whole manifest, the trials that greedy selection selects become members.

        Raises
        ------
        JobsFailedError
            All trials of a member are done, and none ended with a finite loss.
        """
        for study in self.studies.values():
            store_best(self._run, study, self.plan)
        done = results_of(self.studies)
        failed = [
            name
            for name, trials in done.items()
            if len(trials) >= self._n_trials and all(t.loss is None for t in trials)
        ]
        if failed:
            raise JobsFailedError(
                f"None of {len(done[failed[0]])} trials of {first_few(failed)} has a finite loss",
                "tuning needs at least one trial with a finite loss",
                "Lower the recipe's learning_rate and look at 'ensemble-kit data check'",
            )
        train = self.plan.train
        library = None if whole is None else Library.of(self.studies, train)
        found = tuning_result(self.studies, train, self.plan.folds.notes, library)
        write_gains(self._run, [gain.to_json() for gain in found.gains])
        if library is not None and whole is not None:
            keep_picks(self._run, library, found.picks, whole)
        return found

    def _after_trial(self, name: str, result: TrialResult) -> None:
        store_best(self._run, self.studies[name], self.plan)
        self._report((name, result))

    def _report(
        self, latest: tuple[str, TrialResult] | None, at_work: tuple[str, ...] = ()
    ) -> None:
        results = results_of(self.studies)
        left = seconds_left(results, self._n_trials, self._n_workers)
        if self._deadline is not None:
            until = max(self._deadline - time.monotonic(), 0.0)
            left = until if left is None else min(left, until)
        self._listener(Progress(results, self._n_trials, latest, at_work, left))


def store_best(run: Run, study: MemberStudy, plan: TunePlan) -> None:
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
            "train": plan.train.digest,
            "folds": plan.folds.digest,
            **({} if plan.proxy is None else {"proxy": proxy_record(trials, plan.proxy)}),
        },
    )
