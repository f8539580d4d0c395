"""The Slurm engine: the waiting jobs as one array, by submitit.

The run's folder must be on a file system that the nodes share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ensemble_kit.errors import EnvironmentFault
from ensemble_kit.launch.remote import command, run_command, settle
from ensemble_kit.members.engine import RemoteEngine
from ensemble_kit.members.events import JobFailed, Notice, Watcher
from ensemble_kit.members.job import Job


@dataclasses.dataclass(frozen=True)
class SlurmEngine(RemoteEngine):
    """Runs jobs as a Slurm array.

    Parameters
    ----------
    partition : str, optional
    cpus, gpus : int
        What one job takes.
    minutes : int
        Time limit of one job; one that runs out goes on from its checkpoint when resubmitted.
    at_once : int
        Array tasks that run at the same time at most.
    cluster : str, optional
        submitit's executor; found by itself, `local` for tests.
    """

    partition: str | None = None
    cpus: int = 4
    gpus: int = 1
    minutes: int = 240
    at_once: int = 64
    cluster: str | None = None

    def __call__(self, jobs: Sequence[Job], watcher: Watcher) -> list[JobFailed]:
        """Submit all jobs, wait for them, return those that failed."""
        executor = self._executor(jobs[0])
        submitted = _submitted(executor, [command(job, self.cpus) for job in jobs])
        watcher(Notice(f"{len(submitted)} jobs are with Slurm (first id {submitted[0].job_id})."))
        failures = []
        try:
            for job, task in zip(jobs, submitted, strict=True):
                try:
                    code, words, n_killed = task.result()
                except Exception as error:  # submitit raises its own for lost and killed jobs
                    code, words, n_killed = 1, str(error), 0
                if (failed := settle(job, code, words, watcher, n_killed=n_killed)) is not None:
                    failures.append(failed)
        except BaseException:  # Ctrl-C and SIGTERM too: nobody is left to gather what they end with
            _cancel(submitted, watcher)
            raise
        return failures

    def _executor(self, job: Job) -> Any:
        try:
            import submitit
        except ImportError as error:
            raise EnvironmentFault(
                "The Slurm engine needs the submitit package",
                "it is not installed",
                "Install it: pip install 'ensemble-kit[slurm]'",
            ) from error
        try:
            executor = submitit.AutoExecutor(folder=job.run.path / "slurm", cluster=self.cluster)
        except RuntimeError as error:
            raise EnvironmentFault(
                "The Slurm engine works where Slurm is",
                str(error),
                "Use --engine local, or run on a login node",
            ) from error
        if executor.cluster == "local" and self.cluster is None:
            raise EnvironmentFault(
                "The Slurm engine works where Slurm is",
                "there is no sbatch here",
                "Use --engine local",
            )
        executor.update_parameters(
            name="ensemble-kit", timeout_min=self.minutes, cpus_per_task=self.cpus, gpus_per_node=self.gpus,
            slurm_array_parallelism=self.at_once,
            **({"slurm_partition": self.partition} if self.partition else {}),
        )  # fmt: skip
        return executor


def _submitted(executor: Any, commands: list[list[str]]) -> list[Any]:
    import submitit

    try:
        return list(executor.map_array(run_command, commands))
    except submitit.core.utils.FailedJobError as error:
        said = " ".join(str(error).split())[-300:]
        raise EnvironmentFault(
            "Slurm takes the array that it is asked to run",
            f"it did not: {said}",
            "Ask for what the partition has: --partition, --cpus, --gpus, --time-limit; "
            "--device cpu asks for no GPU",
        ) from error


def _cancel(submitted: Sequence[Any], watcher: Watcher) -> None:
    left = [task for task in submitted if not task.done()]
    for task in left:
        task.cancel(check=False)
    watcher(Notice(f"Cancelled {len(left)} of {len(submitted)} Slurm jobs; the others had ended."))
