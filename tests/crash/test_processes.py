"""Processes that are killed, orphaned, stopped or started twice."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from ensemble_kit.errors import RunLockedError
from ensemble_kit.launch.slurm import SlurmEngine
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.events import Event, Notice
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run, lock

pytestmark = pytest.mark.slow

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux ends orphans")
ENDLESS = Member(
    "tiny_cnn",
    image_size=16,
    pretrained=False,
    recipe=Recipe(epochs=100_000, batch_size=16, learning_rate=3e-3),
)


def running_jobs(run: Path) -> list[psutil.Process]:
    """All processes on this machine that run a job of this run."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if str(run) in line and ("run-job" in line or "launch.worker" in line):
            found.append(process)
    return found


# -- row 38: no orphans --------------------------------------------------------------------


@LINUX
@pytest.mark.slow
def test_row_38_a_job_ends_at_once_if_its_parent_is_killed(
    trained: Any, processes: Any, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    fit_in_thread = threading.Thread(target=plan, args=(trained, run))
    fit_in_thread.start()
    fit_in_thread.join()
    code = (
        "import sys\nfrom ensemble_kit.launch.remote import run_command\n"
        "run_command(['-m', 'ensemble_kit', 'run-job', sys.argv[1], 'tiny_cnn', '0'])\n"
    )
    engine = processes.started([sys.executable, "-c", code, str(run.path)])
    processes.wait_for(lambda: list(run.path.rglob("resume-*.json")))
    (job,) = [p for p in running_jobs(run.path) if "run-job" in p.cmdline()]
    engine.kill()
    engine.wait()
    job.wait(timeout=60)
    assert not running_jobs(run.path)
    assert not list(run.path.rglob("fold.json"))


@LINUX
def test_row_38_a_job_ends_if_its_parent_died_before_the_first_check(processes: Any) -> None:
    code = (
        "from ensemble_kit.launch.end_with_parent import end_with_parent as e; e(); print('alive')"
    )
    named = {**os.environ, "ENSEMBLE_KIT_PARENT": "1"}
    done = processes.python(code, env=named)
    assert (done.returncode, done.stdout) == (1, "")
    named["ENSEMBLE_KIT_PARENT"] = str(os.getpid())
    assert processes.python(code, env=named).stdout == "alive\n"
    assert processes.python(code).stdout == "alive\n"


def plan(trained: Any, run: Run) -> None:
    """Write the run's files without running a job."""

    def engine(jobs: Any, listener: Any) -> list[Any]:
        return []

    fit_members(
        [ENDLESS],
        trained.manifest,
        trained.folds,
        run,
        device="cpu",
        engine=engine,
        tensorboard=False,
    )


# -- row 59: jobs of a cluster end with the command that submitted them ---------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.dense)]
)
def test_row_59_stopping_the_command_cancels_its_slurm_array_and_reports_it(
    trained: Any, processes: Any, tmp_path: Path, number: int
) -> None:
    pytest.importorskip("submitit")
    run = Run(tmp_path / "run")
    plan(trained, run)
    code = (
        "import sys, click\n"
        "import ensemble_kit.cli as cli\n"
        "from ensemble_kit.launch.slurm import SlurmEngine\n"
        "from ensemble_kit.members.jobs.job_spec import open_job\n"
        "from ensemble_kit.run import Run\n"
        "def work(**_):\n"
        "    job = open_job(Run(sys.argv[1]), 'tiny_cnn', 0)\n"
        "    engine = SlurmEngine(gpus=0, cpus=1, minutes=5, cluster='local')\n"
        "    engine([job], lambda event: print(event.text, flush=True))\n"
        "cli.app = work\n"
        "cli.main()\n"
    )
    command = processes.started(
        [sys.executable, "-c", code, str(run.path)],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    processes.wait_for(lambda: list(run.path.rglob("resume-*.json")))
    assert running_jobs(run.path)
    command.send_signal(number)
    printed, _ = command.communicate(timeout=60)
    assert command.returncode == 128 + number
    assert "1 of 1" in printed
    processes.wait_for(lambda: not running_jobs(run.path))


def test_row_59_finished_tasks_are_not_cancelled(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[int] = []

    class Task:
        job_id = "7_0"

        def __init__(self, number: int) -> None:
            self.number = number

        def done(self) -> bool:
            return self.number == 0

        def result(self) -> Any:
            if self.number == 0:
                return 1, "error: no", 0
            raise KeyboardInterrupt

        def cancel(self, check: bool) -> None:
            cancelled.append(self.number)

    class Executor:
        def map_array(self, *_: Any) -> list[Task]:
            return [Task(n) for n in range(3)]

    monkeypatch.setattr(SlurmEngine, "_executor", lambda self, job: Executor())
    events: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        fit_members(
            [ENDLESS], trained.manifest, trained.folds, Run(tmp_path / "run"), device="cpu",
            engine=SlurmEngine(), listener=events.append, tensorboard=False,
        )  # fmt: skip
    assert cancelled == [1, 2]
    assert any(isinstance(e, Notice) and "2 of 3" in e.text for e in events)


def test_row_59_ending_status_watch_stops_no_job(
    trained: Any, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: float) -> None:
        raise KeyboardInterrupt

    copy = trained.copied_to(tmp_path / "copy")
    (copy.run.fold_dir("tiny_cnn", 0) / "fold.json").unlink()
    monkeypatch.setattr(time, "sleep", stop)
    code, printed = cli("status", copy.run.path, "--watch")
    assert code == 0
    assert "5 of 6" in printed
    assert "Stopped" not in printed


# -- row 7: two trainers, one run ----------------------------------------------------------


@pytest.mark.slow
def test_row_7_a_second_training_is_refused_until_the_first_is_killed(
    slides: Path, processes: Any, tmp_path: Path
) -> None:
    line = processes.command(slides, tmp_path / "run", "--slots", 1)
    first = processes.started(line)
    processes.wait_for(lambda: list((tmp_path / "run").rglob("resume-*.json")))
    second = processes.finished(line)
    assert second.returncode == 6
    assert f"process {first.pid} on {os.uname().nodename}" in second.stderr
    first.kill()
    first.wait()
    third = processes.started(line)
    assert third.stdout is not None
    lines = iter(third.stdout.readline, "")
    assert any(re.search(r"after epoch \d", printed) for printed in lines)


# -- row 8: locks that do not work ---------------------------------------------------------

LOCKLESS = (
    "import errno, fcntl, os, platform, sys\n"
    "host, folder, fault = sys.argv[1:]\n"
    "def flock(*_):\n"
    "    number = getattr(errno, fault, 0)\n"
    "    if number:\n        raise OSError(number, os.strerror(number))\n"
    "fcntl.flock = flock\n"
    "platform.node = lambda: host\n"
    "from ensemble_kit.run import Run, lock\n"
    "lock.HEARTBEAT_SECONDS = 0.2\n"
    "lock._place = lambda: host\n"
    "import ensemble_kit.cli as cli\n"
    "def work(**_):\n"
    "    with Run(folder).locked():\n"
    "        print('held', flush=True); sys.stdin.read()\n"
    "cli.app = work\n"
    "cli.main()\n"
)


# Locks that are always granted, and locks that the file system refuses.
@pytest.mark.parametrize("fault", ["granted", "ENOLCK", "EOPNOTSUPP"])
def test_row_8_if_locks_fail_a_live_heartbeat_blocks_another_host(
    processes: Any, tmp_path: Path, fault: str
) -> None:
    def on(host: str) -> list[str]:
        return [sys.executable, "-c", LOCKLESS, host, str(tmp_path / "run"), fault]

    def holds(process: Any) -> bool:
        return process.stdout.readline() == "held\n"

    alpha = processes.started(on("alpha"), stdin=subprocess.PIPE)
    assert holds(alpha)
    for host in ("beta", "alpha"):
        refused = processes.finished(on(host), stdin=subprocess.DEVNULL)
        assert refused.returncode == 6, refused.stderr
        assert f"process {alpha.pid} on alpha" in refused.stderr
    alpha.kill()
    alpha.wait()
    beta = processes.started(on("beta"), stdin=subprocess.PIPE)
    assert holds(beta)


def test_row_8_one_of_several_simultaneous_locks_succeeds(tmp_path: Path) -> None:
    code = (
        "import fcntl, sys, time\nfrom pathlib import Path\n"
        "fcntl.flock = lambda *_: None\n"
        "from ensemble_kit.errors import RunLockedError\n"
        "from ensemble_kit.run.lock import held\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "try:\n"
        "    with held(Path(sys.argv[1])):\n"
        "        print('held', flush=True); sys.stdin.read()\n"
        "except RunLockedError:\n    print('refused', flush=True)\n"
    )
    many = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "run")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(6)
    ]  # fmt: skip
    try:
        for process in many:
            assert process.stdout is not None
            process.stdout.readline()
        for process in many:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        printed = [p.stdout.readline().strip() for p in many if p.stdout]
        assert sorted(printed) == ["held", *["refused"] * 5]
    finally:
        for process in many:
            process.kill()
            process.wait()


def test_row_8_the_heartbeat_file_of_a_dead_process_with_a_reused_number_is_ignored(
    tmp_path: Path,
) -> None:
    with lock.held(tmp_path):
        content = (tmp_path / lock.HEARTBEAT).read_text()
        with pytest.raises(RunLockedError, match=f"process {os.getpid()} on"), lock.held(tmp_path):
            pass
    started = lock.Holder(**lock.json.loads(content)).started
    (tmp_path / lock.HEARTBEAT).write_text(content.replace(started, "1"))
    with lock.held(tmp_path):
        assert lock.is_held(tmp_path)
    assert not lock.is_held(tmp_path)
    assert not (tmp_path / lock.HEARTBEAT).exists()


def test_row_8_the_heartbeat_file_of_another_process_is_not_removed(tmp_path: Path) -> None:
    with lock.held(tmp_path):
        content = (tmp_path / lock.HEARTBEAT).read_text()
        lock._remove(tmp_path, "the token of a dead process")
        assert (tmp_path / lock.HEARTBEAT).read_text() == content
