"""Where a run stands: each (member, fold) done, running, failed or waiting.

Reads files only; starts nothing and imports no torch.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from ensemble_kit.errors import DataError
from ensemble_kit.files import read_json
from ensemble_kit.folds.left_out import LeftOut, pairs_of
from ensemble_kit.members.claim import FAILED, read_progress
from ensemble_kit.run import Run
from ensemble_kit.run.hold import is_held

SPEC = "member.json"


@dataclasses.dataclass(frozen=True)
class JobStatus:
    """One job: `state` is done, running, failed or waiting; times in seconds.

    `fold` is a pair such as "0-2" for the jobs of `--nested`.
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
    """All jobs of a run, in the order in which members were asked for."""
    n_splits = int(run.record["folds"]["n_splits"])
    return [
        _job_status(run, member, left_out)
        for member in run.asked_members()
        for left_out in [*range(n_splits), *planned_pairs(run, member, n_splits)]
    ]


def planned_pairs(run: Run, member: str, n_splits: int) -> list[str]:
    """The pairs of folds that a member is trained without, where `--nested` was asked for."""
    try:
        nested = read_json(run.member_dir(member) / SPEC).get("nested", False)
    except DataError:
        return []
    return pairs_of(n_splits) if nested else []


def _job_status(run: Run, member: str, fold: LeftOut) -> JobStatus:
    folder = run.fold_dir(member, fold)
    if (folder / "fold.json").is_file():
        record = read_json(folder / "fold.json")
        return JobStatus(member, fold, "done", seconds=record["seconds"])
    if is_held(folder):
        at = read_progress(folder)
        if at is None:
            return JobStatus(member, fold, "running")
        return JobStatus(
            member, fold, "running", at.epoch, at.epochs, at.seconds, at.seconds_left,
            f"process {at.pid} on {at.host}", at.since,
        )  # fmt: skip
    epoch = _stored_epoch(run, member, fold)
    reason = _reason(run, member, fold)
    return JobStatus(member, fold, "failed" if reason else "waiting", epoch=epoch, reason=reason)


def _stored_epoch(run: Run, member: str, fold: LeftOut) -> int | None:
    records = [read_json(p) for p in run.fold_dir(member, fold).glob("resume-*.json")]
    return max((int(r["epoch"]) for r in records), default=None)


def _reason(run: Run, member: str, fold: LeftOut) -> str:
    try:
        values: dict[str, Any] = read_json(run.fold_dir(member, fold) / FAILED)
    except DataError:
        return ""
    return str(values["reason"])
