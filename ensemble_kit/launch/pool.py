"""Worker processes that take jobs until none is left: started, fed, replaced, ended.

Knows processes, pipes and how many may run at once; the jobs do the rest.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence

from ensemble_kit.errors import RunLockedError
from ensemble_kit.folds.fold_key import LeftOut
from ensemble_kit.launch.end_with_parent import child_environment
from ensemble_kit.launch.slots import Peak
from ensemble_kit.launch.worker import CRASH, DONE, PEAK
from ensemble_kit.members.jobs.collect import collect
from ensemble_kit.members.jobs.events import JobFailed, Notice, Watcher, from_json
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.progress_files import is_noted, note_failure

TRIES = 2


@dataclasses.dataclass(eq=False)
class Worker:
    """A process, the job it is at, and what it said of it."""

    process: subprocess.Popen[str]
    job: Job | None = None
    failed: JobFailed | None = None
    card: str = ""
    words: str = ""
    retired: bool = False


class Pool:
    """Runs jobs in up to `slots` processes of `threads` threads each.

    Parameters
    ----------
    resize : callable, optional
        From the largest need seen so far to the number of slots; None keeps them.
    cards : sequence of str
        CUDA cards to share the workers out over; empty leaves each worker to see all.
    """

    def __init__(
        self,
        slots: int,
        threads: int,
        jobs: Sequence[Job],
        watcher: Watcher,
        *,
        resize: Callable[[Peak], int] | None = None,
        cards: Sequence[str] = (),
    ) -> None:
        self._slots, self._threads, self._watcher = slots, threads, watcher
        self._resize, self._cards = resize, list(cards)
        self._waiting = deque(jobs)
        self._run = jobs[0].run
        self._peak: Peak | None = None
        self._tries: dict[tuple[str, LeftOut], int] = {}
        self._failures: list[JobFailed] = []
        self._workers: list[Worker] = []
        self._lines: queue.Queue[tuple[Worker, str | None]] = queue.Queue()

    def run(self) -> list[JobFailed]:
        """Run all jobs; return those that failed. However it ends, no worker is left."""
        try:
            self._fill()
            while self._workers:
                worker, line = self._lines.get()
                if line is None:
                    self._on_death(worker)
                else:
                    self._on_line(worker, line)
        finally:
            self._stop_all()
        return self._failures

    def _on_line(self, worker: Worker, line: str) -> None:
        if line == DONE:
            if worker.job is not None and worker.failed is None:
                collect(worker.job)
            self._give_job(worker)
        elif line.startswith(PEAK):
            self._on_peak(Peak(**json.loads(line.removeprefix(PEAK))))
        elif line.startswith(CRASH):
            worker.words = line.removeprefix(CRASH)
        elif not line.startswith("{"):
            sys.stderr.write(f"{line}\n")  # of a library that prints while it is loaded
        else:
            event = from_json(line)
            if isinstance(event, JobFailed):
                worker.failed = event
                self._fail(event)
            else:
                self._watcher(event)

    def _active(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.retired]

    def _fill(self) -> None:
        while self._waiting and len(self._active()) < self._slots:
            self._start_worker()

    def _start_worker(self) -> None:
        card = least_used(self._cards, [worker.card for worker in self._active()])
        own = {"OMP_NUM_THREADS": str(self._threads)}
        if card:
            own["CUDA_VISIBLE_DEVICES"] = card
        process = subprocess.Popen(
            [
                sys.executable, "-m", "ensemble_kit.launch.worker", str(self._run.path),
                str(self._threads),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=child_environment(own),
            # Ctrl-C reaches the parent alone; it ends its workers itself.
            start_new_session=True,
        )  # fmt: skip
        worker = Worker(process, card=card)
        self._workers.append(worker)
        threading.Thread(target=self._read, args=(worker,), daemon=True).start()
        self._give_job(worker)

    def _read(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            self._lines.put((worker, line.rstrip("\n")))
        self._lines.put((worker, None))

    def _give_job(self, worker: Worker) -> None:
        stdin = worker.process.stdin
        assert stdin is not None
        worker.job, worker.failed, worker.words = None, None, ""
        if not self._waiting or len(self._active()) > self._slots:
            worker.retired = True
            stdin.close()
            return
        job = worker.job = self._waiting.popleft()
        key = (job.member.name, job.fold)
        self._tries[key] = self._tries.get(key, 0) + 1
        try:
            stdin.write(f"{job.member.name} {job.fold}\n")
            stdin.flush()
        except BrokenPipeError:
            pass  # it is dead: its reader says so next, and the job is tried again

    def _on_peak(self, peak: Peak) -> None:
        self._peak = peak if self._peak is None else self._peak.larger(peak)
        wanted = self._resize(self._peak) if self._resize else self._slots
        if wanted == self._slots:
            return
        need = self._peak.card or self._peak.host
        self._watcher(
            Notice(f"A job takes {need / 2**30:.1f} GiB here: {wanted} side by side from now on.")
        )
        self._slots = wanted
        self._fill()

    def _on_death(self, worker: Worker) -> None:
        self._workers.remove(worker)
        code, job = worker.process.wait(), worker.job
        if job is not None:
            how = self._how_it_ended(worker, code)
            if code == -signal.SIGKILL:
                self._take_less_memory()
            self._try_again(job, how)
        self._fill()

    def _how_it_ended(self, worker: Worker, code: int) -> str:
        if worker.words:
            return worker.words
        if code == -signal.SIGKILL:
            return "signal SIGKILL, as the kernel ends processes when memory runs out"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _take_less_memory(self) -> None:
        fewer = max(1, self._slots // 2)
        # What was measured has proved too small: the slots grow no more.
        self._resize = None
        if fewer < self._slots:
            self._slots = fewer
            self._watcher(Notice(f"For the rest of this run only {fewer} side by side."))

    def _try_again(self, job: Job, how: str) -> None:
        name = f"{job.member.name} fold {job.fold}"
        if self._tries[job.member.name, job.fold] < TRIES:
            self._watcher(Notice(f"{name}: its worker ended by {how}; trying once more."))
            self._waiting.appendleft(job)
            return
        reason = f"its worker ended by {how}, {TRIES} times"
        self._fail(JobFailed(job.member.name, job.fold, reason))

    def _fail(self, failed: JobFailed) -> None:
        """Tell of a failed job, and note it for `status` where it could not do so itself."""
        folder = self._run.fold_dir(failed.member, failed.fold)
        if failed.exit_code != RunLockedError.exit_code and not is_noted(folder):
            note_failure(folder, failed.reason)
        self._failures.append(failed)
        self._watcher(failed)

    def _stop_all(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()


def least_used(cards: Sequence[str], taken: Sequence[str]) -> str:
    """The card with the fewest workers; empty where there are none to choose from.

    Examples
    --------
    >>> least_used(["0", "1"], taken=["0"])
    '1'
    """
    return min(cards, key=list(taken).count, default="")
