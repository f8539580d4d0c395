"""Start of jobs: flags reach their engine, and the printed commands work."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.cli.options.launch import Launch
from ensemble_kit.launch.local import LocalEngine
from ensemble_kit.launch.ray import RayEngine
from ensemble_kit.launch.slurm import SlurmEngine
from ensemble_kit.members.jobs.events import JobFailed

CLI = Callable[..., tuple[int, str]]


def words(slides: Path, *flags: object) -> list[object]:
    return [
        "train-members", "--data", slides, "--members", "tiny_cnn", "--image-size", 16, "--folds", 2,
        "--epochs", 1, "--no-pretrained", "--run", "run", *flags,
    ]  # fmt: skip


# -- engines -------------------------------------------------------------------------------


def made(device: str = "auto", **flags: Any) -> Any:
    return Launch.checked(**flags).made(4, device)[0]


def test_options_of_jobs_reach_each_engine() -> None:
    assert made(engine="slurm", cpus=8, gpus=2.0, time_limit=30, slots=5, partition="p") == (
        SlurmEngine("p", cpus=8, gpus=2, minutes=30, at_once=5)
    )
    given = (("account", "lab7"), ("exclusive", ""))
    assert made(engine="slurm", slurm=given, no_wait=True) == (
        SlurmEngine(gpus=1, options=given, wait=False)
    )
    assert made(engine="ray", cpus=2, gpus=0.5, retries=0, ray_address="127.0.0.1:1") == (
        RayEngine("127.0.0.1:1", cpus=2, gpus=0.5, retries=0)
    )
    local = made("cpu", cpus=2, slots=1)
    assert isinstance(local, LocalEngine)
    assert (local.slots, local.threads) == (1, 2)


@pytest.mark.parametrize(("device", "gpus"), [("auto", 1), ("cuda", 1), ("cpu", 0)])
def test_a_cluster_job_uses_one_gpu_unless_the_device_is_cpu(device: str, gpus: int) -> None:
    assert made(device, engine="slurm") == SlurmEngine(gpus=gpus)
    assert made(device, engine="ray") == RayEngine(gpus=gpus)


@pytest.mark.parametrize(
    ("flags", "printed"),
    [
        (("--gpus", 1), "--gpus is for --engine ray and slurm"),
        (("--time-limit", 9, "--engine", "ray"), "--time-limit is for --engine slurm"),
        (("--slots", 2, "--engine", "ray"), "--cpus and --gpus"),
        (("--slurm", "qos=long"), "--slurm is for --engine slurm"),
        (("--no-wait",), "--no-wait is for --engine slurm"),
        (("--slurm", "=x", "--engine", "slurm"), "'=x'"),
        (("--slurm", "partition=p", "--engine", "slurm"), "--partition"),
        (("--slurm", "cpus_per_task=4", "--engine", "slurm"), "--cpus"),
        (("--gpus", 0.5, "--engine", "slurm"), "--gpus"),
    ],
)
def test_a_flag_of_another_engine_is_exit_2(
    cli: CLI, slides: Path, flags: tuple[object, ...], printed: str
) -> None:
    code, text = cli(*words(slides, *flags))
    assert (code, printed in text) == (2, True), text


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_machine_without_a_gpu_submits_jobs_with_a_gpu(
    cli: CLI, slides: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    requested: list[float] = []

    def submit(self: SlurmEngine, jobs: Any, listener: Any) -> list[JobFailed]:
        requested.append(self.gpus)
        return [JobFailed(job.member.name, job.fold, "no Slurm here") for job in jobs]

    monkeypatch.setattr(SlurmEngine, "__call__", submit)
    code, printed = cli(*words(slides, "--engine", "slurm", "--device", device))
    assert (code, requested) == (5, [1]), printed
    spec = json.loads(Path("run/members/tiny_cnn/member.json").read_text())
    assert (spec["device"], spec["precision"], spec["settled"]) == (device, "auto", {})


@pytest.fixture
def slurm_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sbatch` and `srun` that accept an array and do not start it."""
    pytest.importorskip("submitit")
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "srun", "squeue", "sacct", "scancel"):
        program = tmp_path / "bin" / name
        program.write_text("#!/bin/sh\necho Submitted batch job 42\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


@pytest.mark.usefixtures("slurm_here")
def test_no_wait_submits_an_array_with_its_options(cli: CLI, slides: Path) -> None:
    flags = [
        "--slurm", "account=lab7", "--slurm", "qos=long run", "--slurm", "exclusive",
        "--slurm", "python=apptainer exec x.sif python", "--slurm", "setup=module load cuda",
    ]  # fmt: skip
    code, printed = cli(*words(slides, "--engine", "slurm", "--no-wait", *flags))
    assert code == 0, printed
    assert "42" in printed
    assert "2 jobs" in printed
    assert "ensemble-kit status run" in printed
    assert "All 2 jobs are done" not in printed
    script = next(Path("run/slurm").glob("*.sh"))
    text = script.read_text()
    for line in ("#SBATCH --account=lab7", "#SBATCH --qos='long run'", "#SBATCH --exclusive\n", "module load cuda", "apptainer exec x.sif python -u -m submitit"):  # fmt: skip
        assert line in text
    code, printed = cli("status", "run")
    assert code == 0
    assert "0 of 2 jobs" in printed


@pytest.mark.usefixtures("slurm_here")
def test_jobs_in_the_slurm_queue_are_not_submitted_again(
    cli: CLI, slides: Path, tmp_path: Path
) -> None:
    flags = words(slides, "--engine", "slurm", "--no-wait")
    squeue = tmp_path / "bin" / "squeue"
    assert cli(*flags)[0] == 0
    squeue.write_text("#!/bin/sh\necho 41_0\necho 42_1\n")
    code, printed = cli(*flags)
    assert (code, "42_1" in printed, "42_0" in printed) == (6, True, False), printed
    assert "scancel 42)" in printed
    squeue.write_text("#!/bin/sh\nexit 0\n")
    assert cli(*flags)[0] == 0


# -- shards --------------------------------------------------------------------------------


def test_only_the_last_shard_prints_the_stack_command(cli: CLI, slides: Path) -> None:
    assert [Launch(shard=(i, 2)).own(list("abcde")) for i in (1, 2)] == [list("ace"), list("bd")]
    assert Launch().own(["a", "b"]) == ["a", "b"]
    common = words(slides, "--device", "cpu", "--slots", 1)
    code, printed = cli(*common, "--shard", "1/2")
    assert code == 0
    assert " for 1 job." in printed
    assert "ensemble-kit status run" in printed
    assert "stack" not in printed
    code, printed = cli(*common, "--shard", "2/2")
    assert code == 0
    assert "ensemble-kit stack --method all --run run" in printed


# -- next command -------------------------------------------------------------------------


def test_the_command_printed_by_tune_trains_the_same_data(cli: CLI, slides: Path) -> None:
    flags = words(slides, "--device", "cpu", "--run", "my runs/r9")[1:]
    code, printed = cli("tune", *flags, "--trials", 5)
    assert code == 0
    line = next(line for line in printed.splitlines() if "Next: " in line)
    typed = shlex.split(line.split("Next: ensemble-kit ")[1].split(" (uses")[0])
    assert typed[0] == "train-members"
    assert "--trials" not in typed
    code, printed = cli(*typed, "--slots", 1)
    assert code == 0, printed
    assert "(tuned)" in printed


# -- one job -------------------------------------------------------------------------------


def test_run_job_writes_training_curves(cli: CLI, slides: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert cli(*words(slides, "--device", "cpu", "--slots", 1, "--shard", "1/2"))[0] == 0
    done = [int(p.parent.name.removeprefix("fold-")) for p in Path("run").rglob("fold.json")]
    (left,) = {0, 1} - set(done)
    assert cli("run-job", "run", "tiny_cnn", left)[0] == 0
    read = EventAccumulator(f"run/tensorboard/tiny_cnn-fold-{left}").Reload()
    assert [point.step for point in read.Scalars("train_loss")] == [0]
