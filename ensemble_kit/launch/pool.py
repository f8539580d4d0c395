"""A pool of worker processes: started, given jobs, replaced after a crash, ended."""

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
from ensemble_kit.members.jobs.events import JobFailed, Listener, Notice, from_json
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.jobs.progress_files import is_noted, note_failure

TRIES = 2


@dataclasses.dataclass(eq=False)
class Worker:
    """A process, its current job, and the events of that job."""

    process: subprocess.Popen[str]
    job: Job | None = None
    failed: JobFailed | None = None
    gpu: str = ""
    words: str = ""
    retired: bool = False


class Pool:
    """Runs jobs in up to `slots` processes of `threads` threads each.

    Parameters
    ----------
    resize : callable, optional
        Computes the number of slots from the largest peak memory so far; None keeps the number.
    gpus : sequence of str
        GPUs to distribute the workers over. If empty, each worker sees all GPUs.
    """

    def __init__(
        self,
        slots: int,
        threads: int,
        jobs: Sequence[Job],
        listener: Listener,
        *,
        resize: Callable[[Peak], int] | None = None,
        gpus: Sequence[str] = (),
    ) -> None:
        self._slots, self._threads, self._listener = slots, threads, listener
        self._resize, self._gpus = resize, list(gpus)
        self._waiting = deque(jobs)
        self._run = jobs[0].run
        self._peak: Peak | None = None
        self._tries: dict[tuple[str, LeftOut], int] = {}
        self._failures: list[JobFailed] = []
        self._workers: list[Worker] = []
        self._lines: queue.Queue[tuple[Worker, str | None]] = queue.Queue()

    def run(self) -> list[JobFailed]:
        """Run all jobs; return those that failed. All workers are ended in every case."""
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
            sys.stderr.write(f"{line}\n")  # output of a library that prints while it is loaded
        else:
            event = from_json(line)
            if isinstance(event, JobFailed):
                worker.failed = event
                self._fail(event)
            else:
                self._listener(event)

    def _active(self) -> list[Worker]:
        return [worker for worker in self._workers if not worker.retired]

    def _fill(self) -> None:
        while self._waiting and len(self._active()) < self._slots:
            self._start_worker()

    def _start_worker(self) -> None:
        gpu = least_used(self._gpus, [worker.gpu for worker in self._active()])
        own = {"OMP_NUM_THREADS": str(self._threads)}
        if gpu:
            own["CUDA_VISIBLE_DEVICES"] = gpu
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
            # Ctrl-C reaches the parent only, which ends its workers.
            start_new_session=True,
        )  # fmt: skip
        worker = Worker(process, gpu=gpu)
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
            pass  # the process has ended: its reader reports this next, and the job is tried again

    def _on_peak(self, peak: Peak) -> None:
        self._peak = peak if self._peak is None else self._peak.larger(peak)
        wanted = self._resize(self._peak) if self._resize else self._slots
        if wanted == self._slots:
            return
        need = self._peak.gpu or self._peak.host
        self._listener(
            Notice(
                f"A job needs {need / 2**30:.1f} GiB here: from now on {wanted} jobs run at the same time."
            )
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
            return "signal SIGKILL (probably out of memory)"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def _take_less_memory(self) -> None:
        fewer = max(1, self._slots // 2)
        # The measured memory was too small: the number of slots is not increased again.
        self._resize = None
        if fewer < self._slots:
            self._slots = fewer
            self._listener(Notice(f"For the rest of this run, jobs run at most {fewer} at a time."))

    def _try_again(self, job: Job, how: str) -> None:
        name = f"{job.member.name} fold {job.fold}"
        if self._tries[job.member.name, job.fold] < TRIES:
            self._listener(
                Notice(f"{name}: its process ended with {how}; the job is started again.")
            )
            self._waiting.appendleft(job)
            return
        reason = f"its process ended with {how}, {TRIES} times"
        self._fail(JobFailed(job.member.name, job.fold, reason))

    def _fail(self, failed: JobFailed) -> None:
        """Report a failed job, and record it for `status` if the job could not do so."""
        folder = self._run.fold_dir(failed.member, failed.fold)
        if failed.exit_code != RunLockedError.exit_code and not is_noted(folder):
            note_failure(folder, failed.reason)
        self._failures.append(failed)
        self._listener(failed)

    def _stop_all(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()


def least_used(gpus: Sequence[str], taken: Sequence[str]) -> str:
    """The GPU with the fewest workers; empty if there is none.

    Examples
    --------
    >>> least_used(["0", "1"], taken=["0"])
    '1'
    """
    return min(gpus, key=list(taken).count, default="")
