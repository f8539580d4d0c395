"""The Slurm engine: the waiting jobs as one job array, by submitit.

The run folder must be on a file system that the nodes share.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ensemble_kit.errors import (
    DataError,
    EnvironmentFault,
    IntegrityError,
    RunLockedError,
    UsageError,
    counted,
    first_few,
)
from ensemble_kit.errors import command as follow_up
from ensemble_kit.files import read_json, write_json
from ensemble_kit.launch.remote import collect_ended, command, run_command
from ensemble_kit.members.jobs.engine import RemoteEngine
from ensemble_kit.members.jobs.events import JobFailed, Listener, Notice
from ensemble_kit.members.jobs.job import Job

# File in the folder of a job with its Slurm id.
SUBMITTED = "submitted.json"
# Options of submitit, not of sbatch.
SUBMITIT = ("python", "setup")
# Options of sbatch that the options of ensemble-kit set, or that the array needs.
OWN_FLAGS = {
    "partition": "--partition",
    "cpus-per-task": "--cpus",
    "gpus-per-node": "--gpus",
    "time": "--time-limit",
    "array": "--slots for the number of jobs at a time",
    "output": "the files under slurm/ in the run folder",
    "error": "the files under slurm/ in the run folder",
}


@dataclasses.dataclass(frozen=True)
class SlurmEngine(RemoteEngine):
    """Runs jobs as a Slurm array.

    Parameters
    ----------
    partition : str, optional
    cpus, gpus : int
        CPUs and GPUs per job.
    minutes : int
        Time limit per job. A job that reaches it continues from its checkpoint when resubmitted.
    at_once : int
        Largest number of array tasks at the same time.
    cluster : str, optional
        Executor of submitit; found automatically, `local` for tests.
    options : sequence of (str, str)
        Other options of sbatch, e.g. ("account", "lab7"); an empty value gives a flag without value.
        "python" is the interpreter on the nodes, e.g. that of a container. "setup" is a shell line
        to run before it, and may be given several times.
    wait : bool
        False: submit the jobs and return. Each job stores its own logits.
    """

    partition: str | None = None
    cpus: int = 4
    gpus: int = 1
    minutes: int = 240
    at_once: int = 64
    cluster: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    wait: bool = True

    def __post_init__(self) -> None:
        for name, _ in self.options:
            if (own := OWN_FLAGS.get(name.replace("_", "-"))) is not None:
                raise UsageError(
                    f"--slurm {name} is set by ensemble-kit", f"use {own}", "Remove it"
                )

    def __call__(self, jobs: Sequence[Job], listener: Listener) -> list[JobFailed]:
        """Submit all jobs, wait for them if `wait` is set, and return those that failed."""
        executor = self._executor(jobs[0])
        _refuse_queued(jobs)
        submitted = _submitted(executor, [command(job, self.cpus) for job in jobs])
        for job, task in zip(jobs, submitted, strict=True):
            write_json(job.folder / SUBMITTED, {"slurm_job": task.job_id})
        listener(
            Notice(
                f"{counted(len(submitted), 'job', 'was')} submitted to Slurm (first id {submitted[0].job_id})."
            )
        )
        if not self.wait:
            return []
        failures = []
        try:
            for job, task in zip(jobs, submitted, strict=True):
                try:
                    code, words, n_killed = task.result()
                except Exception as error:  # submitit's errors for lost and killed jobs
                    code, words, n_killed = 1, str(error), 0
                if (
                    failed := collect_ended(job, code, words, listener, n_killed=n_killed)
                ) is not None:
                    failures.append(failed)
        except BaseException:  # also on Ctrl-C and SIGTERM: their results would not be collected
            _cancel(submitted, listener)
            raise
        return failures

    def _executor(self, job: Job) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise EnvironmentFault(
                "The package submitit is not installed",
                "--engine slurm needs it",
                "Install it: pip install 'ensemble-kit[slurm]'",
            ) from error
        try:
            executor = submitit.AutoExecutor(
                folder=job.run.path / "slurm", cluster=self.cluster, **self._interpreter()
            )
        except RuntimeError as error:
            raise EnvironmentFault(
                f"Slurm cannot be used here: {error}",
                "--engine slurm needs Slurm on this machine",
                "Use --engine local, or run on a login node",
            ) from error
        if executor.cluster == "local" and self.cluster is None:
            raise EnvironmentFault(
                "The command sbatch was not found on this machine",
                "--engine slurm needs it",
                "Use --engine local, or run on a login node of the cluster",
            )
        given = {
            "slurm_partition": self.partition,
            "slurm_setup": self._values("setup"),
            "slurm_additional_parameters": {
                name: value or True for name, value in self.options if name not in SUBMITIT
            },
        }
        executor.update_parameters(
            name="ensemble-kit", timeout_min=self.minutes, cpus_per_task=self.cpus, gpus_per_node=self.gpus,
            slurm_array_parallelism=self.at_once, **{name: value for name, value in given.items() if value},
        )  # fmt: skip
        return executor

    def _interpreter(self) -> dict[str, str]:
        given = self._values("python")
        return {"slurm_python": given[-1]} if given else {}

    def _values(self, name: str) -> list[str]:
        return [value for own, value in self.options if own == name]


def _submitted(executor: Any, commands: list[list[str]]) -> list[Any]:
    import submitit

    try:
        return list(executor.map_array(run_command, commands))
    except submitit.core.utils.FailedJobError as error:
        reason = " ".join(str(error).split())[-300:]
        raise EnvironmentFault(
            f"Slurm refused the job array: {reason}",
            "the jobs must fit what the partition offers",
            "Change --partition, --cpus, --gpus or --time-limit; --device cpu requests no GPU",
        ) from error


def _refuse_queued(jobs: Sequence[Job]) -> None:
    """Refuse to submit jobs a second time while they are pending or running."""
    ids = {job.folder: _submitted_as(job.folder) for job in jobs}
    queued = _queued() if any(ids.values()) else set()
    pending = [job_id for job_id in ids.values() if job_id in queued]
    if pending:
        arrays = " ".join(dict.fromkeys(job_id.partition("_")[0] for job_id in pending))
        raise RunLockedError(
            f"{len(pending)} of these {len(jobs)} jobs are already in Slurm's queue: {first_few(pending)}",
            "a job is submitted again only after it has ended",
            f"Wait for them ({follow_up('status', jobs[0].run.path)} shows their progress). "
            f"Or cancel them (scancel {arrays}) and run the same command",
        )


def _submitted_as(folder: Path) -> str:
    """The Slurm id of a job; empty if it was not submitted."""
    try:
        return str(read_json(folder / SUBMITTED)["slurm_job"])
    except (DataError, IntegrityError, KeyError, TypeError):
        return ""


def _queued() -> set[str]:
    """Ids of this user's pending or running jobs; empty if squeue fails."""
    requested = ["squeue", "--noheader", "--array", "--format=%i", f"--user={os.getuid()}"]
    try:
        return set(
            subprocess.run(requested, capture_output=True, text=True, check=True).stdout.split()
        )
    except (OSError, subprocess.CalledProcessError):
        return set()


def _cancel(submitted: Sequence[Any], listener: Listener) -> None:
    left = [task for task in submitted if not task.done()]
    for task in left:
        task.cancel(check=False)
    listener(
        Notice(
            f"Cancelled {len(left)} of {len(submitted)} Slurm jobs. The others had already ended."
        )
    )
