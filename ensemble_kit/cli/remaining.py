"""How long a training run still takes, told from the epochs and jobs that have been seen.

Reads events; prints nothing.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping

from ensemble_kit.members.events import (
    EpochEnded,
    Event,
    JobFailed,
    JobFinished,
    JobSkipped,
    JobStarted,
)

Key = tuple[str, int | str]


@dataclasses.dataclass(eq=False)
class Remaining:
    """The rest of a run.

    Parameters
    ----------
    work : mapping of member name to the relative cost of one of its jobs
        What a member takes that was not seen yet, in proportion to those that were.
    n_jobs : int
        Of all members together; each has about as many.

    Examples
    --------
    >>> rest = Remaining({"small": 1.0, "large": 3.0}, n_jobs=4)
    >>> rest.see(JobStarted("small", 0, 10, 0, "cpu", "fp32"))
    >>> rest.seconds() is None
    True
    >>> rest.see(JobFinished("small", 0, seconds=60.0, chosen_epoch=9))
    >>> rest.seconds()  # one small job and two large ones
    420.0
    """

    work: Mapping[str, float]
    n_jobs: int
    _ended: list[str] = dataclasses.field(default_factory=list)
    _running: dict[Key, float] = dataclasses.field(default_factory=dict)
    _seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def side_by_side(self) -> int:
        """Jobs that run at this moment."""
        return len(self._running)

    @property
    def jobs(self) -> int:
        """Jobs that have not ended."""
        return max(self.n_jobs - len(self._ended), 0)

    def see(self, event: Event) -> None:
        """Take an event in."""
        if not isinstance(event, JobStarted | EpochEnded | JobFinished | JobSkipped | JobFailed):
            return
        key = (event.member, event.fold)
        if isinstance(event, JobStarted):
            self._running[key] = event.first_epoch / event.epochs
            return
        if isinstance(event, EpochEnded):
            self._running[key] = (event.epoch + 1) / event.epochs
            # The first epoch of a process is slower than those after it.
            if event.epoch > 0 or event.epochs == 1:
                self._seconds[event.member] = event.seconds * event.epochs
            return
        self._running.pop(key, None)
        self._ended.append(event.member)
        if isinstance(event, JobFinished):
            self._seconds[event.member] = event.seconds

    def seconds(self) -> float | None:
        """Until the last job ends, if as many run side by side as now; None before anything is known."""
        if not self._seconds:
            return None
        pace = statistics.mean(took / self.work[name] for name, took in self._seconds.items())
        each = {name: self._seconds.get(name, pace * work) for name, work in self.work.items()}
        left = {
            key: each[key[0]] * (1 - done) for key, done in self._running.items() if key[0] in each
        }
        total = sum(left.values())
        for name, took in each.items():
            begun = self._ended.count(name) + sum(member == name for member, _ in self._running)
            total += took * max(self.n_jobs / len(self.work) - begun, 0.0)
        return max(total / max(len(self._running), 1), *left.values(), 0.0)
