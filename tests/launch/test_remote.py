"""Reports about jobs that ran on another machine: their epochs, or the reason of a failure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ensemble_kit.errors import RunLockedError
from ensemble_kit.launch.remote import KILLED, collect_ended
from ensemble_kit.members.jobs.events import EpochEnded, Event, JobFinished
from ensemble_kit.members.jobs.run_job import run_job
from ensemble_kit.members.jobs.status import run_status


def test_the_epochs_of_a_remote_job_are_reported(make_job: Any) -> None:
    job = make_job(epochs=2)
    job.run.begin(job.manifest, job.folds, {})
    here: list[Event] = []
    run_job(job, here.append)
    events: list[Event] = []
    assert collect_ended(job, 0, "", events.append) is None
    assert [e for e in events if isinstance(e, EpochEnded)] == [
        e for e in here if isinstance(e, EpochEnded)
    ]
    assert isinstance(events[-1], JobFinished)


@pytest.mark.parametrize(
    ("code", "words", "recorded"),
    [
        (-9, "", f"{KILLED}, 2 times"),
        (4, "error: no GPU", "no GPU"),
        (RunLockedError.exit_code, "error: held by another", None),
    ],
)  # fmt: skip
def test_the_failure_of_a_killed_job_is_recorded(
    make_job: Any, code: int, words: str, recorded: str | None
) -> None:
    job = make_job()
    failed = collect_ended(job, code, words, lambda _: None, n_killed=2)
    assert failed is not None
    path = job.folder / "failed.json"
    assert (json.loads(path.read_text())["reason"] if path.exists() else None) == recorded


def test_the_reason_that_the_job_recorded_stays(make_job: Any) -> None:
    job = make_job()
    job.folder.mkdir(parents=True)
    (job.folder / "failed.json").write_text('{"reason": "its own words"}')
    collect_ended(job, 5, "error: other words", lambda _: None)
    assert json.loads((job.folder / "failed.json").read_text()) == {"reason": "its own words"}
    job.run.begin(job.manifest, job.folds, {})
    (job.run.path / "members.json").write_text('["tiny_cnn"]')
    assert [j.reason for j in run_status(job.run) if j.fold == 0] == ["its own words"]
