"""The state of a run's jobs: done, running, failed, damaged or waiting. Does not import torch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from ensemble_kit.checked import read_checked
from ensemble_kit.errors import DataError, IntegrityError, first_few
from ensemble_kit.files import read_json
from ensemble_kit.folds.fold_key import LeftOut, pairs_of
from ensemble_kit.members.jobs.progress_files import FAILED, read_progress
from ensemble_kit.run import Run
from ensemble_kit.run.lock import is_held

SPEC, RECORD = "member.json", "fold.json"
# Errors of files that are not JSON or were changed.
UNREADABLE = (DataError, IntegrityError, KeyError, TypeError, ValueError)
DELETE_SPEC = "Delete that file and run the same train-members command, which writes it again"
DAMAGED = "'{}' is damaged: delete the folder '{}' and run train-members to train this fold again"
PASSED_OVER = "{} is damaged: train-members resumes from the state before it, or from the start"


@dataclasses.dataclass(frozen=True)
class JobStatus:
    """One job: `state` is done, running, failed, damaged or waiting; times in seconds.

    `fold` is a pair such as "0-2" for the jobs of `--nested`. The `reason` of a damaged job names
    the damaged file and what to do.
    """

    member: str
    fold: LeftOut
    state: str
    epoch: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    holder: str = ""
    since: str = ""
    reason: str = ""


def run_status(run: Run) -> list[JobStatus]:
    """All jobs of a run, in the order of the requested members; empty for an imported run."""
    if run.is_imported:
        return []
    n_splits = int(run.record["folds"]["n_splits"])
    return [
        _job_status(run, member, left_out)
        for member in run.requested_members()
        for left_out in [*range(n_splits), *planned_pairs(run, member, n_splits)]
    ]


def planned_pairs(run: Run, member: str, n_splits: int) -> list[str]:
    """The pairs of folds that a member is trained without; empty without `--nested`."""
    try:
        nested = read_spec(run, member).get("nested", False)
    except UNREADABLE:
        return []
    return pairs_of(n_splits) if nested else []


def read_spec(run: Run, member: str) -> dict[str, Any]:
    """A member's `member.json`; empty if there is none.

    Raises
    ------
    IntegrityError
        The file is damaged, or was changed after it was written.
    """
    path = run.member_dir(member) / SPEC
    return read_checked(path, advice=DELETE_SPEC) if path.is_file() else {}


def _job_status(run: Run, member: str, fold: LeftOut) -> JobStatus:
    folder = run.fold_dir(member, fold)
    if (folder / RECORD).is_file():
        seconds = _seconds(folder)
        if seconds is None:
            return JobStatus(
                member, fold, "damaged", reason=DAMAGED.format(folder / RECORD, folder)
            )
        return JobStatus(member, fold, "done", seconds=seconds)
    if is_held(folder):
        at = read_progress(folder)
        if at is None:
            return JobStatus(member, fold, "running")
        return JobStatus(
            member, fold, "running", at.epoch, at.epochs, at.seconds, at.seconds_left,
            f"process {at.pid} on {at.host}", at.since,
        )  # fmt: skip
    epoch, passed_over = _stored_epoch(folder)
    failed = _reason(folder)
    reason = "; ".join(text for text in (failed, passed_over) if text)
    return JobStatus(member, fold, "failed" if failed else "waiting", epoch=epoch, reason=reason)


def _seconds(folder: Path) -> float | None:
    """Seconds that a finished job took; None if its record cannot be read."""
    try:
        return float(read_checked(folder / RECORD, advice="")["seconds"])
    except UNREADABLE:
        return None


def _stored_epoch(folder: Path) -> tuple[int | None, str]:
    """The epoch that a job resumes from, and a message about damaged training states."""
    epochs, damaged = [], []
    for path in sorted(folder.glob("resume-*.json")):
        try:
            epochs.append(int(read_checked(path, advice="")["epoch"]))
        except UNREADABLE:
            if path.is_file():  # a job that begins now may have removed it
                damaged.append(f"'{path}'")
    return max(epochs, default=None), PASSED_OVER.format(first_few(damaged)) if damaged else ""


def _reason(folder: Path) -> str:
    """Why a job failed; empty if it did not fail."""
    path = folder / FAILED
    if not path.is_file():
        return ""
    try:
        return str(read_json(path)["reason"])
    except UNREADABLE:
        return f"it failed, and the file with the reason is damaged: '{path}'"
