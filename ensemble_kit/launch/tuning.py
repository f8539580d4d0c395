"""Worker processes of a tuning: they run trials of the same studies.

The process that has the run's lock starts them; they end with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import ensemble_kit.errors
from ensemble_kit.errors import EnsembleKitError, JobsFailedError
from ensemble_kit.launch.end_with_parent import child_environment, end_with_parent
from ensemble_kit.launch.memory import visible_gpus
from ensemble_kit.members.training.precision import choose_device
from ensemble_kit.parallel import cores
from ensemble_kit.tune.plan import TunePlan

LOOK_SECONDS = 0.5
ADVICE = "Run the same command: it continues. If memory ran out, use fewer --workers"


@dataclasses.dataclass(frozen=True)
class TuningWorkers:
    """Runs the trials of a tuning in several processes on this machine.

    Parameters
    ----------
    n_workers : int
        Number of processes. They share the cores, and are distributed over the GPUs.
    """

    n_workers: int

    def __call__(
        self, plan: TunePlan, n_trials: int, deadline: float | None, update: Callable[[], None]
    ) -> None:
        """Run all trials. All workers are ended in every case.

        Raises
        ------
        EnsembleKitError
            The error of a worker.
        JobsFailedError
            A worker was killed or crashed.
        """
        job = pickle.dumps((plan, n_trials, deadline))
        workers = [self._started(i, job, plan.device) for i in range(self.n_workers)]
        try:
            while any(worker.poll() is None for worker in workers):
                _refuse_failure(workers)
                update()
                time.sleep(LOOK_SECONDS)
            _refuse_failure(workers)
        finally:
            for worker in workers:
                worker.kill()
            for worker in workers:
                worker.wait()

    def _started(self, number: int, job: bytes, device: str) -> subprocess.Popen[bytes]:
        threads = max(1, cores() // self.n_workers)
        own = {"OMP_NUM_THREADS": str(threads)}
        chosen = choose_device(device)
        if chosen.type == "cuda" and chosen.index is None and (gpus := visible_gpus()):
            own["CUDA_VISIBLE_DEVICES"] = gpus[number % len(gpus)]
        worker = subprocess.Popen(
            [sys.executable, "-m", "ensemble_kit.launch.tuning", str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment(own),
            # Ctrl-C reaches the parent only, which ends its workers.
            start_new_session=True,
        )  # fmt: skip
        assert worker.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its exit code is reported later
            worker.stdin.write(job)
            worker.stdin.close()
        return worker


def _refuse_failure(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        if not worker.poll():
            continue
        assert worker.stdout is not None
        output = worker.stdout.read().decode()
        if output:
            kind, words = json.loads(output.splitlines()[-1])
            raise getattr(ensemble_kit.errors, kind)(*words)
        how = f"exit code {worker.returncode}"
        if worker.returncode < 0:
            how = f"signal {signal.Signals(-worker.returncode).name}"
        raise JobsFailedError(
            f"A worker of the tuning ended with {how}", "all workers must run to the end", ADVICE
        )


def _work(n_threads: int) -> None:
    """Run trials of the plan on standard input."""
    end_with_parent()
    import torch

    from ensemble_kit.run import Run
    from ensemble_kit.tune.storage import database, storage_path
    from ensemble_kit.tune.trial_loop import TimeIsUp, opened, run_trials

    torch.set_num_threads(n_threads)
    plan, n_trials, deadline = pickle.load(sys.stdin.buffer)
    try:
        with database(storage_path(Run(plan.run_path))), contextlib.suppress(TimeIsUp):
            run_trials(opened(plan, deadline), n_trials, deadline)
    except EnsembleKitError as error:
        sys.stdout.write(json.dumps([type(error).__name__, list(error.args)]) + "\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    _work(int(sys.argv[1]))
