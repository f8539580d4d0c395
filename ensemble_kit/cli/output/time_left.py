"""Estimates the remaining time of a training from finished epochs and jobs."""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Mapping

from ensemble_kit.members.jobs.events import (
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
    """The remaining time of a run.

    Parameters
    ----------
    work : mapping of member name to the relative cost of one of its jobs
        Used to estimate members without finished epochs from the others.
    n_jobs : mapping of member name to the number of its jobs

    Examples
    --------
    >>> rest = Remaining({"small": 1.0, "large": 3.0}, {"small": 2, "large": 2})
    >>> rest.see(JobStarted("small", 0, 10, 0, "cpu", "fp32"))
    >>> rest.seconds() is None
    True
    >>> rest.see(JobFinished("small", 0, seconds=60.0, chosen_epoch=9))
    >>> rest.seconds()  # one small job and two large ones
    420.0
    """

    work: Mapping[str, float]
    n_jobs: Mapping[str, int]
    _ended: Counter[str] = dataclasses.field(default_factory=Counter)
    # Running jobs with the share of their finished epochs; jobs before the end of their first epoch.
    _running: dict[Key, float] = dataclasses.field(default_factory=dict)
    _fresh: set[Key] = dataclasses.field(default_factory=set)
    # Seconds per job of each member: measured, or estimated from its epochs.
    _whole: dict[str, float] = dataclasses.field(default_factory=dict)
    _so_far: dict[str, float] = dataclasses.field(default_factory=dict)
    _beside: int = 0

    @property
    def jobs(self) -> int:
        """The jobs that have not ended."""
        return max(sum(self.n_jobs.values()) - self._ended.total(), 0)

    @property
    def side_by_side(self) -> int:
        """The number of jobs at the same time; a finished job counts until the next begins."""
        return max(min(self._beside, self.jobs), 1)

    def see(self, event: Event) -> None:
        """Process an event."""
        match event:
            case JobStarted():
                key = (event.member, event.fold)
                self._running[key] = event.first_epoch / event.epochs
                self._beside = len(self._running)
                # The first epoch of a process is slower than those after it.
                if event.epochs - event.first_epoch > 1:
                    self._fresh.add(key)
            case EpochEnded():
                key = (event.member, event.fold)
                self._running[key] = (event.epoch + 1) / event.epochs
                self._beside = len(self._running)
                if key not in self._fresh:
                    self._so_far[event.member] = event.seconds * event.epochs
                self._fresh.discard(key)
            case JobFinished() | JobSkipped() | JobFailed():
                self._running.pop((event.member, event.fold), None)
                self._ended[event.member] += 1
                if isinstance(event, JobFinished):
                    self._whole[event.member] = event.seconds

    def seconds(self) -> float | None:
        """Seconds until the last job ends; None if not known yet."""
        known = {**self._so_far, **self._whole}  # patience may end a job early
        if not known:
            return None
        pace = statistics.mean(took / self.work[name] for name, took in known.items())
        each = {name: known.get(name, pace * work) for name, work in self.work.items()}
        left = [each[member] * (1 - done) for (member, _), done in self._running.items()]
        begun = self._ended + Counter(member for member, _ in self._running)
        total = sum(left) + sum(
            each[name] * max(n - begun[name], 0) for name, n in self.n_jobs.items()
        )
        return max(total / self.side_by_side, *left, 0.0)
