"""The number of CPU threads of a job: a resumed job uses as many as before.

The number of threads changes the last digits of sums.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ensemble_kit.errors import IntegrityError
from ensemble_kit.members.jobs.events import Listener, Notice
from ensemble_kit.members.jobs.fold_files import read_record
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.training.state import State


@contextlib.contextmanager
def threads_restored() -> Iterator[None]:
    """Restore the number of threads of this process after the block."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def settle_threads(job: Job, state: State | None, listener: Listener) -> None:
    """Set the number of threads that a CPU job began with; warn if the member's folds differ."""
    if job.device.type != "cpu":
        return
    own = torch.get_num_threads()
    begun = state.get("threads", own) if state is not None else own
    name = f"{job.member.name} fold {job.fold}"
    if begun != own:
        torch.set_num_threads(begun)
        listener(Notice(f"{name} resumes with {begun} CPU threads, as it began, not with {own}."))
    others = {k: n for k, n in _threads_of_finished(job).items() if n != begun}
    if others:
        fold, n = next(iter(others.items()))
        listener(
            Notice(
                f"{name} trains with {begun} CPU threads, {fold} with {n}: the last digits of its "
                "logits can differ from a run with one number of threads. "
                "Use the same --slots and --cpus for identical results."
            )
        )


def _threads_of_finished(job: Job) -> dict[str, int]:
    found = {}
    for folder in sorted(job.run.member_dir(job.member.name).glob("fold-*")):
        # A damaged record is reported by the job of its own fold.
        with contextlib.suppress(IntegrityError):
            record = read_record(folder) or {}
            if folder != job.folder and record.get("device") == "cpu" and "threads" in record:
                found[folder.name.replace("-", " ", 1)] = int(record["threads"])
    return found
