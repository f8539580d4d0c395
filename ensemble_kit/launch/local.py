"""The local engine: worker processes, one per slot, each taking jobs until none is left.

A worker that dies is replaced, and its job tried once more. Knows processes and pipes; the jobs
do the rest.
"""

from __future__ import annotations

import dataclasses
import os
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence

from ensemble_kit.launch.worker import DONE
from ensemble_kit.members.collect import collect
from ensemble_kit.members.events import JobFailed, Notice, Watcher, from_json
from ensemble_kit.members.job import Job

MIN_BYTES_PER_SLOT = 3 * 2**30
TRIES = 2


def default_slots(n_jobs: int, device: str) -> int:
    """How many jobs run side by side: one per core on a CPU, as far as memory goes; one on a GPU.

    On two cores, two one-thread processes finish small networks 1.1 to 1.6 times sooner than one
    process with two threads; see `experiments/benchmarks`.
    """
    if device != "cpu":
        return 1
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(n_jobs, cores, memory // MIN_BYTES_PER_SLOT))


@dataclasses.dataclass(eq=False)
class LocalEngine:
    """Runs jobs in `slots` worker processes on this machine.

    Parameters
    ----------
    slots : int
    threads : int
        Of each worker; 0 shares the cores out evenly.
    """

    slots: int
    threads: int = 0

    def __call__(self, jobs: Sequence[Job], watcher: Watcher) -> list[JobFailed]:
        """Run all jobs; return those that failed."""
        return _Pool(self.slots, self.threads or self._share(), jobs, watcher).run()

    def _share(self) -> int:
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else (os.cpu_count() or 1)
        )
        return max(1, cores // self.slots)


@dataclasses.dataclass(eq=False)
class _Worker:
    process: subprocess.Popen[str]
    job: Job | None = None
    failed: JobFailed | None = None


class _Pool:
    def __init__(self, slots: int, threads: int, jobs: Sequence[Job], watcher: Watcher) -> None:
        self._slots, self._threads, self._watcher = slots, threads, watcher
        self._waiting = deque(jobs)
        self._run = jobs[0].run
        self._tries: dict[tuple[str, int | str], int] = {}
        self._failures: list[JobFailed] = []
        self._workers: list[_Worker] = []
        self._lines: queue.Queue[tuple[_Worker, str | None]] = queue.Queue()

    def run(self) -> list[JobFailed]:
        try:
            for _ in range(min(self._slots, len(self._waiting))):
                self._start_worker()
            while self._workers:
                worker, line = self._lines.get()
                if line is None:
                    self._on_death(worker)
                elif line == DONE:
                    self._on_done(worker)
                else:
                    self._on_event(worker, line)
        finally:
            self._stop_all()
        return self._failures

    def _start_worker(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads)}
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "ensemble_kit.launch.worker",
                str(self._run.path),
                str(self._threads),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=environment,
            # Ctrl-C reaches the parent alone; it ends its workers itself.
            start_new_session=True,
        )
        worker = _Worker(process)
        self._workers.append(worker)
        threading.Thread(target=self._read, args=(worker,), daemon=True).start()
        self._give_job(worker)

    def _read(self, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            self._lines.put((worker, line.rstrip("\n")))
        self._lines.put((worker, None))

    def _give_job(self, worker: _Worker) -> None:
        stdin = worker.process.stdin
        assert stdin is not None
        worker.failed = None
        if not self._waiting:
            worker.job = None
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

    def _on_event(self, worker: _Worker, line: str) -> None:
        event = from_json(line)
        if isinstance(event, JobFailed):
            worker.failed = event
            self._failures.append(event)
        self._watcher(event)

    def _on_done(self, worker: _Worker) -> None:
        if worker.job is not None and worker.failed is None:
            collect(worker.job)
        self._give_job(worker)

    def _on_death(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        code = worker.process.wait()
        job = worker.job
        if job is None:
            return
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = (
            " (the kernel ends processes so when memory runs out)"
            if code == -signal.SIGKILL
            else ""
        )
        if self._tries[job.member.name, job.fold] < TRIES:
            self._watcher(
                Notice(
                    f"{job.member.name} fold {job.fold}: its worker ended by {how}{hint}; trying once more."
                )
            )
            self._waiting.appendleft(job)
        else:
            reason = f"its worker ended by {how}{hint}, {TRIES} times"
            self._failures.append(JobFailed(job.member.name, job.fold, reason))
            self._watcher(self._failures[-1])
        if self._waiting:
            self._start_worker()

    def _stop_all(self) -> None:
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.wait()
