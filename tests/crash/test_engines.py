"""All engines give the same results, also if workers or nodes die."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.errors import EnvironmentFault
from ensemble_kit.files import digest_file
from ensemble_kit.launch.local import LocalEngine
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.events import EpochEnded, Event, JobFinished, JobStarted, Notice
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run

RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=3e-3)
TINY = Member("tiny_cnn", image_size=16, pretrained=False, recipe=RECIPE)


def train(trained: Any, folder: Path, **options: Any) -> list[Event]:
    events: list[Event] = []
    fit_members(
        [TINY],
        trained.manifest,
        trained.folds,
        Run(folder),
        device="cpu",
        listener=events.append,
        **options,
    )
    return events


def stored_digests(folder: Path) -> dict[str, str]:
    files = [
        *folder.glob("predictions/*/*.npy"),
        *folder.glob("members/*/fold-*/model.safetensors"),
    ]
    return {p.relative_to(folder).as_posix(): digest_file(p) for p in files}


@pytest.fixture(scope="module")
def undisturbed(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("engines") / "run"
    train(trained, folder)
    return stored_digests(folder)


@pytest.mark.slow
def test_two_slots_give_the_same_results_as_one_process(
    trained: Any, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    events = train(trained, tmp_path / "run", engine=LocalEngine(slots=2, threads=1))
    assert stored_digests(tmp_path / "run") == undisturbed
    assert sum(isinstance(e, EpochEnded) for e in events) == 9


def test_shards_split_the_jobs_and_give_the_same_results(
    trained: Any, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    folder = tmp_path / "run"
    first = [e.fold for e in train(trained, folder, shard=(1, 2)) if isinstance(e, JobStarted)]
    second = [e.fold for e in train(trained, folder, shard=(2, 2)) if isinstance(e, JobStarted)]
    assert sorted(first + second) == [0, 1, 2]
    assert first
    assert second
    assert stored_digests(folder) == undisturbed


def test_a_shard_with_finished_jobs_gathers_their_logits(trained: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train(trained, folder)
    whole = stored_digests(folder)
    shutil.rmtree(folder / "predictions")
    train(trained, folder, shard=(1, 2))
    assert stored_digests(folder) == whole


@pytest.mark.slow
def test_run_job_runs_a_planned_job_and_skips_a_finished_one(
    trained: Any, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    folder = tmp_path / "run"
    train(trained, folder, shard=(2, 2))
    command = [sys.executable, "-m", "ensemble_kit", "run-job", str(folder), "tiny_cnn"]
    for fold in ("0", "1", "2"):
        done = subprocess.run([*command, fold, "--threads", "1"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert stored_digests(folder) == undisturbed
    wrong = subprocess.run([*command, "7"], capture_output=True, text=True)
    assert wrong.returncode == 3
    assert "fold '7'" in wrong.stderr


@pytest.mark.slow
def test_slurm_arrays_give_the_same_results_with_the_local_executor(
    trained: Any, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    pytest.importorskip("submitit")
    from ensemble_kit.launch.slurm import SlurmEngine

    with pytest.raises(EnvironmentFault, match="sbatch"):
        train(trained, tmp_path / "none", engine=SlurmEngine(gpus=0))
    train(trained, tmp_path / "run", engine=SlurmEngine(gpus=0, cpus=1, minutes=5, cluster="local"))
    assert stored_digests(tmp_path / "run") == undisturbed


@pytest.mark.dense
def test_ray_gives_the_same_results_after_losing_a_worker_and_a_node(
    trained: Any,
    tmp_path: Path,
    mounted: Any,
    undisturbed: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = pytest.importorskip("ray")
    psutil = pytest.importorskip("psutil")
    from ray.cluster_utils import Cluster

    from ensemble_kit.launch.ray import RayEngine

    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    second = cluster.add_node(num_cpus=1)
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        with pytest.raises(EnvironmentFault, match=r"\b64\b"):
            train(trained, tmp_path / "too-large", engine=RayEngine("auto", cpus=64))
        small = mounted("size=100k")
        with pytest.raises(EnvironmentFault, match=str(small)):
            train(trained, small / "run", engine=RayEngine("auto"), shard=(1, 3))
        interrupt_running_task(trained, tmp_path / "stopped", RayEngine("auto"))
        folder, lost = tmp_path / "run", []

        def kill_a_worker_then_a_node() -> None:
            while not list(folder.rglob("progress.json")):
                time.sleep(0.05)
            for process in psutil.process_iter(["name", "cmdline"]):
                line = " ".join(process.info["cmdline"] or [])
                if "ray::" in line and "IDLE" not in line and "run_command" in line:
                    jobs = process.children()
                    process.kill()
                    lost.append("worker")
                    _, orphans = psutil.wait_procs(jobs, timeout=60)
                    lost.extend("an orphan" for _ in orphans)
                    break
            cluster.remove_node(second, allow_graceful=False)
            lost.append("node")

        threading.Thread(target=kill_a_worker_then_a_node, daemon=True).start()
        events = train(trained, folder, engine=RayEngine("auto"))
        assert lost == ["worker", "node"]
        assert sum(isinstance(e, JobFinished) for e in events) == 3
        assert stored_digests(folder) == undisturbed
    finally:
        ray.shutdown()
        cluster.shutdown()


def interrupt_running_task(trained: Any, folder: Path, engine: Any) -> None:
    """Ctrl-C while a task is running cancels it, ends its process, and sends a notice."""
    psutil = pytest.importorskip("psutil")
    endless = TINY.model_copy(update={"recipe": Recipe(epochs=100_000, batch_size=16)})
    events: list[Event] = []

    def stop() -> None:
        while not list(folder.rglob("resume-*.json")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        fit_members(
            [endless], trained.manifest, trained.folds, Run(folder), device="cpu", engine=engine,
            listener=events.append,
        )  # fmt: skip
    assert any(isinstance(e, Notice) and "Cancelled 3 Ray tasks" in e.text for e in events)
    end = time.monotonic() + 60
    while any(
        str(folder) in " ".join(p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])
    ):
        assert time.monotonic() < end, "a task is still running"
        time.sleep(0.1)


def test_ray_beyond_this_machine_needs_a_token(trained: Any, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    from ensemble_kit.launch.ray import RayEngine

    with pytest.raises(EnvironmentFault, match=r"'ray://10\.0\.0\.1:10001'"):
        train(trained, tmp_path / "run", engine=RayEngine("ray://10.0.0.1:10001"))


def test_an_address_without_a_server_is_reported_at_once() -> None:
    from ensemble_kit.launch.ray import connect

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"

    class NoRay:
        def init(self, **_: object) -> None:
            raise AssertionError("Ray was called")

    for named in (address, f"ray://{address}"):
        with pytest.raises(EnvironmentFault, match=f"'{named}'"):
            connect(NoRay(), named)


@pytest.mark.parametrize(
    ("address", "variable", "refused"),
    [
        ("auto", "", False),
        ("auto", "127.0.0.1:6379", False),
        ("auto", "10.0.0.1:6379", True),
        ("auto", "ray://10.0.0.1:10001", True),
        ("127.0.0.1:6379", "10.0.0.1:6379", False),
        ("[::1]:6379", "", False),
    ],
)
def test_an_address_in_ray_address_needs_a_token(
    monkeypatch: pytest.MonkeyPatch, address: str, variable: str, refused: bool
) -> None:
    from ensemble_kit.launch.ray import refuse_unencrypted

    monkeypatch.setenv("RAY_ADDRESS", variable)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if not refused:
        refuse_unencrypted(address)
        return
    with pytest.raises(EnvironmentFault, match=rf"'{variable}' \(from RAY_ADDRESS\)"):
        refuse_unencrypted(address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    refuse_unencrypted(address)


def test_tensorboard_events_have_the_curves(trained: Any, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = [
        e for e in train(trained, tmp_path / "run") if isinstance(e, EpochEnded) and e.fold == 0
    ]
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard" / "tiny_cnn-fold-0")).Reload()
    for name in ("train_loss", "val_log_loss", "learning_rate"):
        got = [point.value for point in read.Scalars(name)]
        np.testing.assert_allclose(got, [getattr(e, name) for e in events], rtol=1e-6)


def test_mlflow_gets_the_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    from ensemble_kit.members.jobs.tracking import MLflow

    uri = (tmp_path / "mlruns").as_uri()
    with MLflow("slides", uri) as listener:
        for fold in (0, 1):
            listener(
                EpochEnded(
                    "tiny_cnn", fold, 0, 1, 1e-3, 0.5, 0.8, 0.6, 0.7, 0.7, "held-out fold", 1.0, 9.0
                )
            )
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("slides").experiment_id])
    assert sorted(r.info.run_name for r in runs) == ["tiny_cnn fold 0", "tiny_cnn fold 1"]
    assert runs[0].data.metrics["val_log_loss"] == 0.6
