"""Engines run the waiting jobs: this process by default, or an engine of `ensemble_kit.launch`."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

from ensemble_kit.errors import EnsembleKitError, EnvironmentFault, JobsFailedError, first_few
from ensemble_kit.members.jobs.collect import collect
from ensemble_kit.members.jobs.events import JobFailed, Listener
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.progress_files import exit_code_of, reason_of
from ensemble_kit.members.jobs.run_job import run_job

Engine = Callable[[Sequence[Job], Listener], list[JobFailed]]


class RemoteEngine(abc.ABC):
    """An engine whose jobs run on other machines.

    Each job's process resolves `auto` on its machine and writes its own TensorBoard events.
    """

    @abc.abstractmethod
    def __call__(self, jobs: Sequence[Job], listener: Listener) -> list[JobFailed]:
        """Run all jobs; return those that failed."""


def in_process(jobs: Sequence[Job], listener: Listener) -> list[JobFailed]:
    """The engine that runs one job after the other in this process."""
    failures = []
    for job in jobs:
        try:
            run_job(job, listener)
        except Exception as error:
            failed = JobFailed(job.member.name, job.fold, reason_of(error), exit_code_of(error))
            failures.append(failed)
            listener(failed)
        else:
            collect(job)
    return failures


def error_of_jobs(failures: Sequence[JobFailed], n_jobs: int) -> EnsembleKitError:
    """The error for failed jobs; an `EnvironmentFault` if all of them failed by one."""
    machine = all(f.exit_code == EnvironmentFault.exit_code for f in failures)
    reasons = (f"{f.member} fold {f.fold}: {f.reason.rstrip('.')}" for f in failures)
    listed = first_few(reasons, 1 if machine else 3)
    return (EnvironmentFault if machine else JobsFailedError)(
        f"{len(failures)} of {n_jobs} jobs failed: {listed}",
        "every job must finish",
        "The finished jobs are stored. Correct the cause and run the same command",
    )
