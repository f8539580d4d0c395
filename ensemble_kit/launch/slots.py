"""Computes how many jobs run at the same time from cores and memory."""

from __future__ import annotations

import dataclasses

# Assumed host memory of a job before the first measurement: at least this, and this many bytes
# per multiply-accumulate of a batch, which is more than common networks need.
UNMEASURED_BYTES = 3 * 2**30
BYTES_PER_MAC = 0.1
# The measured memory may grow in later epochs and at the end of the job.
MARGIN = 1.15
# Largest number of jobs per GPU that was tested.
MOST_PER_GPU = 4


@dataclasses.dataclass(frozen=True)
class Machine:
    """The resources for jobs; `host_free` is the free memory in bytes before the first job."""

    cores: int
    host_free: int
    n_gpus: int = 0


@dataclasses.dataclass(frozen=True)
class Share:
    """A number of processes, and threads per process."""

    slots: int
    threads: int


@dataclasses.dataclass(frozen=True)
class Peak:
    """Peak memory of one job in bytes: on the host, on its GPU, and the total of the GPU."""

    host: int
    gpu: int = 0
    gpu_total: int = 0

    def larger(self, other: Peak) -> Peak:
        """The larger peak of both; the GPU's total is that of the first, measured without other jobs."""
        return Peak(
            max(self.host, other.host),
            max(self.gpu, other.gpu),
            self.gpu_total or other.gpu_total,
        )


def most_slots(machine: Machine, n_jobs: int) -> int:
    """Upper limit of slots: the number of jobs and cores, and a few per GPU."""
    most = min(n_jobs, machine.cores)
    if machine.n_gpus:
        most = min(most, machine.n_gpus * MOST_PER_GPU)
    return max(1, most)


def first_slots(machine: Machine, n_jobs: int, batch_macs: float = 0.0) -> int:
    """Number of slots before any measurement: one per GPU; on a CPU as many as memory allows.

    `batch_macs` are the multiply-accumulates of predicting one batch of the largest job.

    Examples
    --------
    >>> first_slots(Machine(cores=8, host_free=10 * 2**30), n_jobs=20)
    3
    """
    assumed = max(UNMEASURED_BYTES, int(BYTES_PER_MAC * batch_macs))
    begin = machine.n_gpus or machine.host_free // assumed
    return max(1, min(most_slots(machine, n_jobs), begin))


def slots_by_memory(peak: Peak, machine: Machine, n_jobs: int) -> int:
    """Number of jobs with this peak memory that fit at the same time.

    Examples
    --------
    >>> slots_by_memory(Peak(host=2 * 2**30), Machine(cores=8, host_free=16 * 2**30), n_jobs=20)
    6
    """
    fit = machine.host_free // int(MARGIN * max(peak.host, 1))
    if machine.n_gpus and peak.gpu:
        fit = min(fit, machine.n_gpus * (peak.gpu_total // int(MARGIN * peak.gpu)))
    return max(1, min(most_slots(machine, n_jobs), fit))
