"""Training curves for TensorBoard and MLflow."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ensemble_kit.errors import EnvironmentFault
from ensemble_kit.members.jobs import tracking
from ensemble_kit.members.jobs.events import EpochEnded, Event, JobStarted, Notice
from ensemble_kit.members.jobs.tracking import TensorBoard, both


def epoch(number: int, loss: float, *, epochs: int) -> EpochEnded:
    return EpochEnded("a", 0, number, epochs, 1e-3, loss, 0.5, 0.7, 0.5, 0.5, "nothing", 1.0, 10.0)


def write_curve(folder: Path, losses: list[float], *, first: int = 0, epochs: int = 4) -> None:
    with TensorBoard(folder) as listener:
        send_epochs(listener, losses, first=first, epochs=epochs)


def send_epochs(listener: TensorBoard, losses: list[float], *, first: int, epochs: int) -> None:
    listener(JobStarted("a", 0, epochs, first, "cpu", "fp32"))
    for number, loss in enumerate(losses, start=first):
        listener(epoch(number, loss, epochs=epochs))


def curve(folder: Path) -> list[tuple[int, float]]:
    read = EventAccumulator(str(folder / "a-fold-0")).Reload()
    return [(e.step, e.value) for e in read.Scalars("train_loss")]


def test_a_repeated_training_replaces_its_earlier_curve(tmp_path: Path) -> None:
    write_curve(tmp_path, [8.0, 7.0, 6.0, 5.0])
    write_curve(tmp_path, [3.0, 2.0], epochs=2)
    assert curve(tmp_path) == [(0, 3.0), (1, 2.0)]


def test_a_resumed_job_keeps_the_curve_of_its_earlier_epochs(tmp_path: Path) -> None:
    write_curve(tmp_path, [8.0, 7.0, 6.0])
    write_curve(tmp_path, [5.0, 4.0], first=2)
    assert curve(tmp_path) == [(0, 8.0), (1, 7.0), (2, 5.0), (3, 4.0)]


def test_a_job_that_starts_again_replaces_its_curve(tmp_path: Path) -> None:
    with TensorBoard(tmp_path) as listener:
        send_epochs(listener, [8.0, 7.0], first=0, epochs=3)
        send_epochs(listener, [3.0, 2.0, 1.0], first=0, epochs=3)
    assert curve(tmp_path) == [(0, 3.0), (1, 2.0), (2, 1.0)]


def test_curves_that_cannot_be_written_give_one_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[Event] = []
    seen: list[Event] = []
    full = Path("/dev/full")
    monkeypatch.setattr(tracking, "_event_file", lambda _: full.open("wb"))
    with TensorBoard(tmp_path, printed.append) as listener:
        forward = both(seen.append, listener)
        for number in range(3):
            forward(epoch(number, 1.0, epochs=3))
    assert len(seen) == 3
    (notice,) = printed
    assert isinstance(notice, Notice)
    assert str(tmp_path) in notice.text
    assert os.strerror(errno.ENOSPC) in notice.text


def test_a_file_in_place_of_the_folder_gives_one_notice(tmp_path: Path) -> None:
    printed: list[Event] = []
    (tmp_path / "tensorboard").touch()
    with TensorBoard(tmp_path / "tensorboard", printed.append) as listener:
        send_epochs(listener, [2.0, 1.0], first=0, epochs=2)
    assert len(printed) == 1


def test_an_mlflow_store_that_refuses_metrics_gives_one_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = pytest.importorskip("mlflow.tracking").MlflowClient
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    printed: list[Event] = []

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with tracking.MLflow("slides", (tmp_path / "mlruns").as_uri(), printed.append) as listener:
        monkeypatch.setattr(client, "log_metric", refuse)
        for number in range(2):
            listener(epoch(number, 1.0, epochs=2))
    (notice,) = printed
    assert isinstance(notice, Notice)
    assert os.strerror(errno.ENOSPC) in notice.text


def test_an_mlflow_store_that_cannot_be_reached_is_an_environment_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "mlruns").touch()
    with pytest.raises(EnvironmentFault):
        tracking.MLflow("slides", (tmp_path / "mlruns" / "below").as_uri())


def test_telemetry_of_mlflow_is_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    code = (
        "import sys\nfrom ensemble_kit.members.jobs.tracking import MLflow\n"
        "MLflow('slides', sys.argv[1])\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "print(is_telemetry_disabled())\n"
    )
    uri = (tmp_path / "mlruns").as_uri()
    done = subprocess.run([sys.executable, "-c", code, uri], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == "True", done.stderr
