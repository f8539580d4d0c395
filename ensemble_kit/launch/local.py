"""The local engine: worker processes on this machine, as many as cores and memory allow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.launch.memory import visible_gpus
from ensemble_kit.launch.pool import Pool
from ensemble_kit.launch.slots import Machine, Peak, Share, first_slots, most_slots, slots_by_memory
from ensemble_kit.members.jobs.events import JobFailed, Listener
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.registry import cost
from ensemble_kit.memory import host_free
from ensemble_kit.parallel import cores
from ensemble_kit.run import Run

CHOICE = "engine.json"
CHOOSE_AGAIN = "Delete it and run the same command: the numbers are chosen again"


@dataclasses.dataclass(eq=False)
class LocalEngine:
    """Runs jobs in worker processes on this machine.

    Parameters
    ----------
    slots : int, optional
        Number of workers. None: one per core on a CPU, as many as fit on GPUs. Both are limited by
        memory, as measured on the first job.
    threads : int
        Threads per worker; 0 divides the cores evenly.
    """

    slots: int | None = None
    threads: int = 0

    def __call__(self, jobs: Sequence[Job], listener: Listener) -> list[JobFailed]:
        """Run all jobs; return those that failed."""
        kind = jobs[0].device.type
        on_gpus = kind == "cuda"
        # The user may choose one GPU by its number; otherwise workers are distributed over all GPUs.
        shared = on_gpus and jobs[0].device.index is None
        gpus: list[str] = visible_gpus() if shared else []
        machine = Machine(cores(), host_free(), max(len(gpus), 1) if on_gpus else 0)
        slots = self.slots or (1 if kind not in {"cpu", "cuda"} else None)
        if slots is not None:
            threads = self.threads or max(1, machine.cores // slots)
            return Pool(slots, threads, jobs, listener, gpus=gpus).run()
        if on_gpus:
            threads = self.threads or max(1, machine.cores // most_slots(machine, len(jobs)))
            return self._growing(machine, threads, jobs, listener, gpus)
        share = _share_of_cores(jobs, machine)
        machine = dataclasses.replace(machine, cores=share.slots)
        return self._growing(machine, self.threads or share.threads, jobs, listener)

    def _growing(
        self,
        machine: Machine,
        threads: int,
        jobs: Sequence[Job],
        listener: Listener,
        gpus: Sequence[str] = (),
    ) -> list[JobFailed]:
        def resize(peak: Peak) -> int:
            return slots_by_memory(peak, machine, len(jobs))

        begin = first_slots(machine, len(jobs), max(_batch_macs(job) for job in jobs))
        return Pool(begin, threads, jobs, listener, resize=resize, gpus=gpus).run()


def _batch_macs(job: Job) -> float:
    recipe = job.member.recipe
    batch = -(-recipe.batch_size // recipe.optim.micro_batches)
    return float(cost(job.member.network, job.tiles.image_size).macs * batch)


def _share_of_cores(jobs: Sequence[Job], machine: Machine) -> Share:
    """Number of workers and threads per worker; a run continues with the numbers that it began with."""
    run = jobs[0].run
    known = _known_choice(run)
    if known.get("cores") == machine.cores and known["jobs"] >= len(jobs):
        return Share(known["slots"], known["threads"])
    most = most_slots(machine, len(jobs))
    share = Share(most, machine.cores // most)
    write_checked(
        run.path / CHOICE,
        {"cores": machine.cores, "jobs": len(jobs), **dataclasses.asdict(share)},
    )
    return share


def _known_choice(run: Run) -> dict[str, Any]:
    path = run.path / CHOICE
    return read_checked(path, advice=CHOOSE_AGAIN) if path.is_file() else {}
