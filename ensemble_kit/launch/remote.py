"""A job as a command, and its end as an event: for engines outside this process.

Only file paths and exit codes are exchanged.
"""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ensemble_kit.errors import EnvironmentFault, RunLockedError
from ensemble_kit.files import read_csv
from ensemble_kit.launch.end_with_parent import child_environment
from ensemble_kit.launch.pool import TRIES
from ensemble_kit.members.jobs.collect import collect
from ensemble_kit.members.jobs.events import EpochEnded, JobFailed, JobFinished, Listener, Notice
from ensemble_kit.members.jobs.fold_files import read_record
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.pooled_features import lacks_features
from ensemble_kit.members.jobs.progress_files import is_noted, note_failure

TYPES: dict[str, Callable[[str], Any]] = {
    "int": lambda text: int(float(text)),
    "float": float,
    "str": str,
}
KILLED = "its process was killed (SIGKILL, probably out of memory)"


def command(job: Job, threads: int) -> list[str]:
    """The arguments of Python for this job, on any node where the run folder has the same path."""
    folder = str(Path(job.run.path).resolve())
    return [
        "-m", "ensemble_kit", "run-job", folder, job.member.name, str(job.fold),
        "--threads", str(threads),
    ]  # fmt: skip


def run_command(arguments: list[str]) -> tuple[int, str, int]:
    """Run the command of one job in a child process.

    A command that is killed (probably out of memory) is run once more.

    Returns
    -------
    exit code, the last lines of output after a failure, and the number of times it was killed
    """
    n_killed = 0
    while True:
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=child_environment(),
        )
        n_killed += done.returncode == -signal.SIGKILL
        if done.returncode != -signal.SIGKILL or n_killed == TRIES:
            return done.returncode, done.stderr.strip()[-2000:], n_killed


def collect_ended(
    job: Job, code: int, words: str, listener: Listener, *, n_killed: int = 0
) -> JobFailed | None:
    """Collect the logits of an ended job, and report its epochs and its end.

    A job without a record in its folder failed.
    """
    record = read_record(job.folder)
    if record is not None and not job.changes() and not lacks_features(job):
        if n_killed:
            listener(Notice(f"{job.member.name} fold {job.fold}: {KILLED}; tried once more."))
        collect(job)
        for epoch in _epochs(job):
            listener(epoch)
        listener(JobFinished(job.member.name, job.fold, record["seconds"], record["chosen_epoch"]))
        return None
    reason = words.splitlines()[-1] if words else f"its process ended with exit code {code}"
    if code == -signal.SIGKILL:
        reason = f"{KILLED}, {n_killed} times"
    reason = reason.removeprefix("error: ")
    if code != RunLockedError.exit_code and not is_noted(job.folder):
        note_failure(job.folder, reason)
    machine = code == EnvironmentFault.exit_code
    failed = JobFailed(job.member.name, job.fold, reason, code if machine else 5)
    listener(failed)
    return failed


def _epochs(job: Job) -> list[EpochEnded]:
    """The events of each epoch, from `history.csv`."""
    rows = read_csv(job.folder / "history.csv").to_dict("records")
    own: dict[str, Any] = {
        "member": job.member.name,
        "fold": job.fold,
        "epochs": job.member.recipe.epochs,
    }
    columns = {
        f.name: TYPES[str(f.type)] for f in dataclasses.fields(EpochEnded) if f.name not in own
    }
    return [
        EpochEnded(
            **own, **{name: read(row[name]) for name, read in columns.items() if name in row}
        )
        for row in rows
    ]
