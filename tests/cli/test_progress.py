"""What a training says while it runs: how long the rest takes, whichever networks come first."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from ensemble_kit.cli.progress import ProgressPrinter
from ensemble_kit.cli.remaining import Remaining
from ensemble_kit.members.events import (
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
        member, fold, epoch, epochs, 1e-3, 0.5, 0.5, 0.5, 0.5, 0.5, "kept fold", seconds, 30.0
    )


def after(rest: Remaining, *events: Event) -> float | None:
    for event in events:
        rest.see(event)
    return rest.seconds()


def test_the_first_epoch_tells_nothing_unless_it_is_the_only_one() -> None:
    assert after(Remaining({"a": 1.0}, 3), started("a", 0), ended("a", 0, 0, 99.0)) is None
    assert after(Remaining({"a": 1.0}, 3), started("a", 0, 1), ended("a", 0, 0, 10.0, 1)) == 20.0


def test_a_member_not_seen_yet_takes_its_share_of_those_that_were() -> None:
    rest = Remaining({"a": 1.0, "b": 5.0}, 4)
    # Half of a job of 40 s, another of it, and two of 200 s.
    assert after(rest, started("a", 0), ended("a", 0, 1, 10.0)) == 20 + 40 + 400
    # It turns out to take 80 s: what is measured counts, not the share.
    found = after(rest, JobFinished("a", 0, 40.0, 3), started("b", 0), ended("b", 0, 1, 20.0))
    assert found == 40 + 40 + 80


def test_jobs_side_by_side_share_the_time_but_none_is_shorter_than_itself() -> None:
    rest = Remaining({"a": 1.0}, 4)
    assert after(rest, started("a", 0), started("a", 1), ended("a", 0, 1, 10.0)) == 140 / 2
    after(rest, ended("a", 1, 1, 10.0), JobFinished("a", 0, 40.0, 3), JobFinished("a", 1, 40.0, 3))
    assert after(rest, started("a", 2), ended("a", 2, 2, 10.0), started("a", 3)) == 40


def test_what_is_kept_failed_or_gone_on_with_is_not_waited_for() -> None:
    rest = Remaining({"a": 1.0}, 4)
    events = [JobSkipped("a", 0), JobFailed("a", 1, "no"), started("a", 2, first=3)]
    assert after(rest, *events, ended("a", 2, 3, 10.0)) == 40
    assert (rest.jobs, rest.side_by_side) == (2, 1)


@pytest.mark.parametrize("terminal", [False, True])
def test_it_is_said_when_first_known_and_after_each_job(terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, highlight=False)
    with ProgressPrinter({"a": 1.0}, 3, console=console) as printer:
        printer(started("a", 0))
        printer(ended("a", 0, 1, 15.0))
        printer(JobFinished("a", 0, 60.0, 3))
        printer(started("a", 1))
        printer(JobFinished("a", 1, 60.0, 3))
        printer(started("a", 2))
        printer(JobFinished("a", 2, 60.0, 3))
    said = out.getvalue()
    assert said.count("About") == 1
    assert "About 2 min 30 s for 3 jobs." in said
    assert "a fold 0: done in 1 min 00 s; about 2 min 00 s left" in said
    assert "a fold 2: done in 1 min 00 s\n" in said


def test_jobs_of_a_queue_are_not_estimated() -> None:
    out = io.StringIO()
    with ProgressPrinter({"a": 1.0}, 2, estimates=False, console=Console(file=out)) as printer:
        printer(started("a", 0))
        printer(ended("a", 0, 1, 15.0))
        printer(JobFinished("a", 0, 60.0, 3))
    assert "about" not in out.getvalue().lower()
