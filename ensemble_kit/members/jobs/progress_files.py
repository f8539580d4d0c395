"""Who is at a job, how far it has come, and why it failed.

Knows nothing of training.
"""

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
    """Where a running job stands; times in seconds."""

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
        """Expected time to the end; None before this process has finished an epoch."""
        done_here = self.epoch - self.first
        return None if not done_here else self.seconds / done_here * (self.epochs - self.epoch)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a job's folder for the length of a `with` block.

    Raises
    ------
    RunLockedError
        Another process holds it; the message says which.
    """
    with held(folder, seconds=2):  # a look at the lock takes it for a moment
        try:
            yield
        finally:
            (folder / PROGRESS).unlink(missing_ok=True)


def note_progress(folder: Path, first: int, epoch: int, epochs: int, began: float) -> None:
    """Write how far this process has come with the job that it holds."""
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
    """What the last holder wrote, or None."""
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
    """The exit code of an error's class; an unexpected one fails its job alone."""
    return error.exit_code if isinstance(error, EnsembleKitError) else JobsFailedError.exit_code


def note_failure(folder: Path, why: Exception | str) -> None:
    """Write why a job failed; of an error that nobody expected where it came from, too.

    A full disk takes no note of itself.
    """
    about = {"reason": why if isinstance(why, str) else reason_of(why)}
    if isinstance(why, Exception) and not isinstance(why, EnsembleKitError):
        about["traceback"] = "".join(traceback.format_exception(why))[-8000:]
    with contextlib.suppress(EnvironmentFault):
        write_json(folder / FAILED, about)


def is_noted(folder: Path) -> bool:
    """Whether a failure is noted; a job that begins takes away the note of its last try."""
    return (folder / FAILED).is_file()


def forget_failure(folder: Path) -> None:
    """Take away the note of a failure: the job is tried again."""
    (folder / FAILED).unlink(missing_ok=True)
