"""Files about a running or failed job: its process, its progress, and the reason of a failure."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import platform
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ensemble_kit.errors import DataError, EnsembleKitError, EnvironmentFault, JobsFailedError
from ensemble_kit.files import read_json, write_json
from ensemble_kit.run.lock import held

PROGRESS, FAILED = "progress.json", "failed.json"


@dataclasses.dataclass(frozen=True)
class Progress:
    """Progress of a running job; times in seconds."""

    pid: int
    host: str
    since: str
    first: int
    epoch: int
    epochs: int
    seconds: float
    updated: float

    @property
    def seconds_left(self) -> float | None:
        """Expected remaining time; None before this process has finished an epoch."""
        done_here = self.epoch - self.first
        return None if not done_here else self.seconds / done_here * (self.epochs - self.epoch)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Lock a job's folder inside a `with` block.

    Raises
    ------
    RunLockedError
        Another process holds the lock; the message names it.
    """
    with held(folder, seconds=2):  # `is_held` takes the lock for a moment
        try:
            yield
        finally:
            (folder / PROGRESS).unlink(missing_ok=True)


def note_progress(folder: Path, first: int, epoch: int, epochs: int, began: float) -> None:
    """Write the progress of this process in its job."""
    seconds = time.perf_counter() - began
    now = datetime.datetime.now(datetime.UTC)
    since = (now - datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds")
    write_json(
        folder / PROGRESS,
        {
            "pid": os.getpid(), "host": platform.node(), "since": since, "first": first, "epoch": epoch,
            "epochs": epochs, "seconds": round(seconds, 2), "updated": now.timestamp(),
        },
    )  # fmt: skip


def read_progress(folder: Path) -> Progress | None:
    """The progress that the last process wrote, or None."""
    try:
        values: dict[str, Any] = read_json(folder / PROGRESS)
        return Progress(**values)
    except (DataError, TypeError):
        return None


def reason_of(error: Exception) -> str:
    """Why a job failed, in one sentence."""
    if isinstance(error, EnsembleKitError):
        return str(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first[:300]}"


def exit_code_of(error: Exception) -> int:
    """The exit code of an error's class; that of a failed job for unexpected errors."""
    return error.exit_code if isinstance(error, EnsembleKitError) else JobsFailedError.exit_code


def note_failure(folder: Path, why: Exception | str) -> None:
    """Write why a job failed, with the traceback of an unexpected error.

    On a full disk nothing is written.
    """
    about = {"reason": why if isinstance(why, str) else reason_of(why)}
    if isinstance(why, Exception) and not isinstance(why, EnsembleKitError):
        about["traceback"] = "".join(traceback.format_exception(why))[-8000:]
    with contextlib.suppress(EnvironmentFault):
        write_json(folder / FAILED, about)


def is_noted(folder: Path) -> bool:
    """Whether a failure is recorded; a starting job removes the record of an earlier failure."""
    return (folder / FAILED).is_file()


def forget_failure(folder: Path) -> None:
    """Remove the record of a failure, before the job is run again."""
    (folder / FAILED).unlink(missing_ok=True)
