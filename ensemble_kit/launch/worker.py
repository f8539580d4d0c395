"""A worker process: reads `member fold` lines from standard input, runs each job, reports events.

The local engine starts it. It ends when its input closes, or at once if its parent has died.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import traceback
from collections.abc import Iterator

from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.folds.fold_key import LeftOut
from ensemble_kit.launch.end_with_parent import end_with_parent
from ensemble_kit.launch.memory import gpu_peak, host_peak
from ensemble_kit.launch.slots import Peak
from ensemble_kit.members.jobs.events import EpochEnded, Event, JobFailed, to_json
from ensemble_kit.members.jobs.progress_files import reason_of
from ensemble_kit.run import Run

# First characters of lines that are not events: the job ended; its peak memory; why the process ends.
DONE, PEAK, CRASH = ".", "^", "!"


def main(run_path: str, n_threads: int) -> None:
    """Run jobs of one run until the input ends."""
    end_with_parent()
    import torch

    from ensemble_kit.members.jobs.job_spec import open_job
    from ensemble_kit.members.jobs.run_job import run_job

    torch.set_num_threads(n_threads)
    # Output of libraries must not be mixed with the events.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    run, measured = Run(run_path), set[str]()
    number: int | None = None

    def forward(event: Event) -> None:
        out.write(to_json(event) + "\n")
        if isinstance(event, EpochEnded) and event.member not in measured:
            measured.add(event.member)
            peak = Peak(host_peak(), *gpu_peak(number))
            out.write(PEAK + json.dumps(dataclasses.asdict(peak)) + "\n")

    for member, fold in _jobs():
        try:
            job = open_job(run, member, fold)
            number = job.device.index
            run_job(job, forward)
        except EnsembleKitError as error:
            forward(JobFailed(member, fold, str(error), error.exit_code))
        except Exception as error:
            # After an error of the device this process cannot be used again.
            traceback.print_exc()
            out.write(f"{CRASH}{reason_of(error)}\n")
            out.flush()
            os._exit(1)
        out.write(DONE + "\n")


def _jobs() -> Iterator[tuple[str, LeftOut]]:
    # A thread reads, so that a closed pipe (the parent has died) ends the process during a job.
    lines: list[str] = []
    arrived = threading.Semaphore(0)

    def read() -> None:
        for line in sys.stdin:
            lines.append(line)
            arrived.release()
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    while True:
        arrived.acquire()
        member, _, fold = lines.pop(0).strip().rpartition(" ")
        yield member, int(fold) if fold.isdecimal() else fold


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
