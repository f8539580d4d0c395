"""How many jobs run side by side: so many as cores and memory carry. Pure arithmetic.

Does not measure; `ensemble_kit.launch.memory` and the workers do.
"""

from __future__ import annotations

import dataclasses

# Before a job of the run was measured, it is taken to need so much of the host: this at least, and
# so many bytes for each multiply-accumulate of a batch, which is above what common networks keep.
UNMEASURED_BYTES = 3 * 2**30
BYTES_PER_MAC = 0.1
# A measured need may grow with later epochs and the end of the job.
MARGIN = 1.15
# More jobs than this on one card were not tried.
MOST_PER_CARD = 4


@dataclasses.dataclass(frozen=True)
class Machine:
    """What there is for jobs; memory in bytes, as free before the first of them started."""

    cores: int
    host_free: int
    n_cards: int = 0


@dataclasses.dataclass(frozen=True)
class Share:
    """So many processes of so many threads.

    Examples
    --------
    >>> str(Share(slots=2, threads=1))
    '2 x 1 thread'
    """

    slots: int
    threads: int

    def __str__(self) -> str:
        return f"{self.slots} x {self.threads} thread{'s' * (self.threads != 1)}"


@dataclasses.dataclass(frozen=True)
class Peak:
    """What one job took at most: bytes of the host, bytes of its card, and what the card has."""

    host: int
    card: int = 0
    card_room: int = 0

    def larger(self, other: Peak) -> Peak:
        """The larger need of both; the card's room is that seen first, beside no other job."""
        return Peak(
            max(self.host, other.host),
            max(self.card, other.card),
            self.card_room or other.card_room,
        )


def most_slots(machine: Machine, n_jobs: int) -> int:
    """No more than jobs and cores; no more than a few on each card."""
    most = min(n_jobs, machine.cores)
    if machine.n_cards:
        most = min(most, machine.n_cards * MOST_PER_CARD)
    return max(1, most)


def first_slots(machine: Machine, n_jobs: int, batch_macs: float = 0.0) -> int:
    """So many begin, before any was measured: one a card; on a CPU as the host's memory carries.

    `batch_macs` are the multiply-accumulates of predicting one batch of the largest job.

    Examples
    --------
    >>> first_slots(Machine(cores=8, host_free=10 * 2**30), n_jobs=20)
    3
    """
    assumed = max(UNMEASURED_BYTES, int(BYTES_PER_MAC * batch_macs))
    begin = machine.n_cards or machine.host_free // assumed
    return max(1, min(most_slots(machine, n_jobs), begin))


def slots_by_memory(peak: Peak, machine: Machine, n_jobs: int) -> int:
    """So many jobs of this need run side by side and fit.

    Examples
    --------
    >>> slots_by_memory(Peak(host=2 * 2**30), Machine(cores=8, host_free=16 * 2**30), n_jobs=20)
    6
    """
    fit = machine.host_free // int(MARGIN * max(peak.host, 1))
    if machine.n_cards and peak.card:
        fit = min(fit, machine.n_cards * (peak.card_room // int(MARGIN * peak.card)))
    return max(1, min(most_slots(machine, n_jobs), fit))
