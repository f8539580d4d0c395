"""The estimated remaining time of a training."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ensemble_kit.cli.output.progress import ProgressPrinter
from ensemble_kit.cli.output.time_left import Remaining
from ensemble_kit.members.jobs.events import (
    EpochEnded,
    Event,
    JobFailed,
    JobFinished,
    JobSkipped,
    JobStarted,
)


def started(member: str, fold: int, epochs: int = 4, first: int = 0) -> JobStarted:
    return JobStarted(member, fold, epochs, first, "cpu", "fp32")


def ended(member: str, fold: int, epoch: int, seconds: float, epochs: int = 4) -> EpochEnded:
    return EpochEnded(
        member, fold, epoch, epochs, 1e-3, 0.5, 0.5, 0.5, 0.5, 0.5, "held-out fold", seconds, 30.0
    )


def after(rest: Remaining, *events: Event) -> float | None:
    for event in events:
        rest.see(event)
    return rest.seconds()


def test_the_first_epoch_of_a_process_is_ignored_unless_it_is_the_only_one() -> None:
    rest = Remaining({"a": 1.0}, {"a": 3})
    assert after(rest, started("a", 0), ended("a", 0, 0, 99.0)) is None
    assert after(rest, ended("a", 0, 1, 10.0)) == 20 + 80
    resumed = Remaining({"a": 1.0}, {"a": 3})
    assert after(resumed, started("a", 0, 9, first=5), ended("a", 0, 5, 99.0, 9)) is None
    one = Remaining({"a": 1.0}, {"a": 3})
    assert after(one, started("a", 0, 1), ended("a", 0, 0, 10.0, 1)) == 20.0
    last = Remaining({"a": 1.0}, {"a": 3})
    assert after(last, started("a", 0, 4, first=3), ended("a", 0, 3, 10.0)) == 80.0


def seen_two(rest: Remaining, *events: Event) -> float | None:
    """The estimate after two epochs of a job of `a` (10 s for the second) and more events."""
    return after(rest, started("a", 0), ended("a", 0, 0, 99.0), ended("a", 0, 1, 10.0), *events)


def test_a_member_without_epochs_is_estimated_from_the_others() -> None:
    rest = Remaining({"a": 1.0, "b": 5.0}, {"a": 2, "b": 2})
    # Half of a job of 40 s, another job of 40 s, and two jobs of 200 s.
    assert seen_two(rest) == 20 + 40 + 400
    # A job of `b` takes 80 s: the measured time replaces the estimate.
    more = [JobFinished("a", 0, 40.0, 3), started("b", 0), ended("b", 0, 0, 9.0), ended("b", 0, 1, 20.0)]  # fmt: skip
    assert after(rest, *more) == 40 + 40 + 80


def test_only_the_jobs_of_this_shard_are_estimated() -> None:
    assert seen_two(Remaining({"a": 1.0, "b": 50.0}, {"a": 1})) == 20


def test_the_time_of_finished_jobs_replaces_the_estimate_from_epochs() -> None:
    rest = Remaining({"a": 1.0}, {"a": 3})
    seen_two(rest, JobFinished("a", 0, 25.0, 1), started("a", 1))
    assert after(rest, ended("a", 1, 0, 99.0), ended("a", 1, 1, 10.0)) == 12.5 + 25


def test_parallel_jobs_share_the_time_and_the_longest_one_is_a_lower_bound() -> None:
    rest = Remaining({"a": 1.0}, {"a": 4})
    events = [started("a", 1), ended("a", 1, 0, 9.0), ended("a", 1, 1, 10.0)]
    assert seen_two(rest, *events) == (20 + 20 + 80) / 2
    # One has ended, and the next begins at once: the time is still shared by two.
    assert after(rest, JobFinished("a", 0, 40.0, 3)) == (20 + 80) / 2
    assert after(rest, started("a", 2)) == (20 + 80) / 2
    assert after(rest, JobFinished("a", 1, 40.0, 3), started("a", 3)) == 80 / 2
    assert after(rest, JobFinished("a", 2, 40.0, 3)) == 40
    assert after(rest, ended("a", 3, 0, 9.0), ended("a", 3, 1, 10.0)) == 20


def test_fewer_parallel_jobs_are_counted_at_the_next_epoch() -> None:
    rest = Remaining({"a": 1.0}, {"a": 4})
    both = [started("a", 1), ended("a", 1, 0, 9.0), JobFinished("a", 0, 40.0, 3)]
    assert seen_two(rest, *both) == (30 + 80) / 2
    assert after(rest, ended("a", 1, 1, 10.0)) == 20 + 80


def test_skipped_and_failed_jobs_do_not_count() -> None:
    rest = Remaining({"a": 1.0}, {"a": 4})
    events = [JobSkipped("a", 0), JobFailed("a", 1, "no"), started("a", 2, first=3)]
    assert after(rest, *events, ended("a", 2, 3, 10.0)) == 40
    assert (rest.jobs, rest.side_by_side) == (2, 1)
    assert after(rest, started("a", 2, first=0)) == 80, "a job that is tried again starts again"


@pytest.mark.parametrize("terminal", [False, True])
def test_the_remaining_time_is_printed_when_first_known_and_after_each_job(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, highlight=False)
    with ProgressPrinter({"a": 1.0}, {"a": 3}, console=console) as printer:
        printer(started("a", 0))
        printer(ended("a", 0, 0, 99.0))
        printer(ended("a", 0, 1, 15.0))
        printer(JobFinished("a", 0, 60.0, 3))
        printer(started("a", 1))
        printer(JobFinished("a", 1, 60.0, 3))
        printer(started("a", 2))
        printer(JobFinished("a", 2, 60.0, 3))
    printed = out.getvalue()
    assert printed.count("About") == 1
    assert "About 2 min 30 s for 3 jobs." in printed
    assert "a fold 0: done in 1 min 00 s; about 2 min 00 s left" in printed
    assert "a fold 2: done in 1 min 00 s\n" in printed


def test_jobs_of_a_queue_are_not_estimated() -> None:
    out = io.StringIO()
    with ProgressPrinter(
        {"a": 1.0}, {"a": 2}, estimates=False, console=Console(file=out)
    ) as printer:
        printer(started("a", 0))
        printer(ended("a", 0, 0, 99.0))
        printer(ended("a", 0, 1, 15.0))
        printer(JobFinished("a", 0, 60.0, 3))
    assert "about" not in out.getvalue().lower()
