"""Out of memory on the CPU: errors of the allocator, and SIGKILL by the kernel."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from ensemble_kit import faults
from ensemble_kit.errors import EnvironmentFault
from ensemble_kit.launch.local import LocalEngine
from ensemble_kit.launch.remote import run_command
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.events import EpochEnded, Event, JobFailed, JobStarted, Notice
from ensemble_kit.members.jobs.status import run_status
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run

TINY = Member(
    "tiny_cnn",
    image_size=16,
    pretrained=False,
    recipe=Recipe(epochs=3, batch_size=16, learning_rate=3e-3),
)

# Each thread's arena reserves many MiB of addresses.
ONE_ARENA = {**os.environ, "MALLOC_ARENA_MAX": "1"}
# A small batch comes first, so that torch loads all its libraries before the limit is set.
LIMITED = """
import resource, sys
from pathlib import Path
import torch
from ensemble_kit.folds import make_folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.events import Notice
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run

slides, folder, room, size = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
torch.set_num_threads(1)
# oneDNN maps code for every new shape, which fails under a limit on addresses.
torch.backends.mkldnn.set_flags(False)
manifest = Manifest.from_folders(slides, group_pattern=r"(P\\d+)_")

def train(name, batch_size, image_size):
    recipe = Recipe(epochs=1, batch_size=batch_size)
    member = Member("tiny_resnet", name=name, image_size=image_size, pretrained=False, recipe=recipe)
    fit_members(
        [member], manifest, make_folds(manifest, 2, seed=0), Run(folder / name), device="cpu",
        precision="fp32", shard=(1, 2), tensorboard=False,
        listener=lambda event: print(event.text) if isinstance(event, Notice) else None,
    )

train("small", 2, 96)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + room * 2**20, -1))
import ensemble_kit.cli as cli
cli.app = lambda **_: train("large", 32, size)
cli.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits addresses on Linux")
def test_row_37_out_of_memory_on_the_cpu_splits_batches_into_parts(
    slides: Path, processes: Any, tmp_path: Path
) -> None:
    # The unused reserve of a process varies by dozens of MiB.
    for room in (60, 40, 80, 30):
        done = processes.python(LIMITED, slides, tmp_path / str(room), room, 96, env=ONE_ARENA)
        assert done.returncode in {0, 4}, done.stderr
        if done.returncode == 0 and "2 parts" in done.stdout:
            return
    pytest.fail("no run ran out of memory and finished")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits addresses on Linux")
def test_row_37_if_no_part_fits_into_memory_the_run_ends_with_exit_4(
    slides: Path, processes: Any, tmp_path: Path
) -> None:
    done = processes.python(LIMITED, slides, tmp_path, 60, 448, env=ONE_ARENA)
    assert done.returncode == 4, done.stderr
    assert "memory" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "want"),
    [
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), True),
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("could not create a primitive"), False),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_row_37_memory_errors_are_distinguished_from_other_errors(
    error: Exception, want: bool
) -> None:
    assert faults.is_out_of_memory(error) is want


def test_row_37_a_memory_error_outside_a_step_is_an_environment_fault(tmp_path: Path) -> None:
    def read() -> None:
        with faults.as_machine_fault(tmp_path):
            try:
                raise MemoryError
            except MemoryError as error:
                raise RuntimeError("while reading") from error

    with pytest.raises(EnvironmentFault, match="memory"):
        read()
    with pytest.raises(KeyError), faults.as_machine_fault(tmp_path):
        raise KeyError("another error is not changed")


def live_workers() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if child.status() != psutil.STATUS_ZOMBIE
        and "ensemble_kit.launch.worker" in " ".join(child.cmdline())
    ]


@pytest.mark.slow
def test_row_37_the_job_of_a_killed_worker_is_run_again_with_fewer_workers(
    trained: Any, tmp_path: Path
) -> None:
    events: list[Event] = []
    n_workers: list[int] = []
    killed: list[int] = []

    def kill_first(event: Event) -> None:
        events.append(event)
        if isinstance(event, EpochEnded) and not killed and len(live_workers()) == 2:
            worker = live_workers()[0]
            killed.append(worker.pid)
            worker.kill()
        elif isinstance(event, JobStarted) and killed:
            n_workers.append(len(live_workers()))

    fit_members(
        [TINY.model_copy(update={"recipe": Recipe(epochs=40, batch_size=16)})], trained.manifest,
        trained.folds, Run(tmp_path / "run"), device="cpu", listener=kill_first,
        engine=LocalEngine(slots=2, threads=1),
    )  # fmt: skip
    printed = " ".join(e.text for e in events if isinstance(e, Notice))
    assert "SIGKILL" in printed
    assert "at most 1 " in printed
    assert not any(isinstance(e, JobFailed) for e in events)
    assert n_workers[1:]
    assert set(n_workers[1:]) == {1}, n_workers
    assert len(list((tmp_path / "run").rglob("fold.json"))) == 3


@pytest.mark.slow
def test_row_40_a_lost_device_fails_only_its_job_and_removes_no_slots(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "sitecustomize.py"
    broken.write_text(
        "import sys\n"
        "if 'ensemble_kit.launch.worker' in ' '.join(sys.orig_argv):\n"
        "    import ensemble_kit.members.jobs.run_job as home\n"
        "    real = home.run_job\n"
        "    def run_job(one, tell):\n"
        "        if one.fold == 0:\n"
        "            raise RuntimeError('CUDA error: unspecified launch failure')\n"
        "        real(one, tell)\n"
        "    home.run_job = run_job\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    events: list[Event] = []
    with pytest.raises(Exception, match="RuntimeError: CUDA error: unspecified launch failure"):
        fit_members(
            [TINY], trained.manifest, trained.folds, Run(tmp_path / "run"), device="cpu",
            listener=events.append, engine=LocalEngine(slots=2, threads=1),
        )  # fmt: skip
    assert [e.fold for e in events if isinstance(e, JobFailed)] == [0]
    assert not any(isinstance(e, Notice) and "at most 1 " in e.text for e in events)
    assert len(list((tmp_path / "run").rglob("fold.json"))) == 2
    states = {job.fold: job for job in run_status(Run(tmp_path / "run"))}
    assert {k: job.state for k, job in states.items()} == {0: "failed", 1: "done", 2: "done"}
    assert "RuntimeError: CUDA error: unspecified launch failure" in states[0].reason


def test_row_37_a_killed_command_is_run_once_more_and_counted(tmp_path: Path) -> None:
    once = (
        "import os, signal, sys\nfrom pathlib import Path\nmark = Path(sys.argv[1])\n"
        "if mark.exists():\n    sys.exit(0)\n"
        "mark.touch()\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = ["-c", once, str(tmp_path / "mark")]
    assert run_command(command) == (0, "", 1)
    always = ["-c", "import os; os.kill(os.getpid(), 9)"]
    assert run_command(always) == (-9, "", 2)
    assert run_command(["-c", "raise SystemExit('no')"]) == (1, "no", 0)


def test_row_37_out_of_memory_outside_a_job_ends_the_command_with_exit_4(
    cli: Any, slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: Any, **__: Any) -> Any:
        raise MemoryError("Unable to allocate 2.00 GiB for an array")

    monkeypatch.setattr("ensemble_kit.members.fit_members.build_tile_sets", no_room)
    code, printed = cli(
        "train-members", "--data", slides, "--members", "tiny_cnn", "--no-pretrained"
    )
    assert code == 4
    assert "Unable to allocate 2.00 GiB" in printed
    assert "Traceback" not in printed
