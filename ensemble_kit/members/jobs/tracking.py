"""Listeners that write training curves for TensorBoard, and for MLflow (an optional package)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
import time
from pathlib import Path
from typing import Any, BinaryIO, Self

from ensemble_kit.errors import EnvironmentFault
from ensemble_kit.members.jobs.events import (
    EpochEnded,
    Event,
    JobStarted,
    Listener,
    Notice,
    ignore_event,
)

SCALARS = (
    "train_loss",
    "train_accuracy",
    "val_log_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "learning_rate",
    "images_per_second",
)
NO_CURVES = (
    "TensorBoard curves cannot be written to '{}': {}. Training continues without them; "
    "history.csv of each fold holds the same values."
)


def both(one: Listener, other: Listener) -> Listener:
    """A listener that passes each event to two others."""

    def forward(event: Event) -> None:
        one(event)
        other(event)

    return forward


NO_MLFLOW = (
    "MLflow does not take the metrics: {}. Training continues without it; history.csv of each fold "
    "holds the same values."
)


class TensorBoard:
    """Write `<folder>/<member>-fold-<k>/`: one curve per metric. Used as a context manager.

    A job that resumes or starts again replaces its later epochs in an earlier curve. If a file
    cannot be written, one notice is sent, no more curves are written, and training continues.

    Parameters
    ----------
    folder : Path
    listener : callable
        Receives the notice.
    """

    def __init__(self, folder: Path, listener: Listener = ignore_event) -> None:
        self._folder, self._listener = folder, listener
        self._curves: dict[tuple[str, int | str], Any] = {}
        self._failed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for curve in self._curves.values():
            _close(curve)

    def __call__(self, event: Event) -> None:
        if isinstance(event, JobStarted):
            _close(self._curves.pop((event.member, event.fold), None))
        elif isinstance(event, EpochEnded) and not self._failed:
            try:
                self._write(event)
            except OSError as error:
                self._failed = True
                self._listener(Notice(NO_CURVES.format(self._folder, error.strerror or error)))

    def _write(self, event: EpochEnded) -> None:
        key = (event.member, event.fold)
        if key not in self._curves:
            folder = self._folder / f"{event.member}-fold-{event.fold}"
            self._curves[key] = _event_file(folder)
            _append(self._curves[key], file_version="brain.Event:2")
            # Removes this epoch and later ones of an earlier training.
            _append(self._curves[key], event.epoch, session_log={"status": 1})
        values = dataclasses.asdict(event)
        points = [{"tag": name, "simple_value": values[name]} for name in SCALARS]
        _append(self._curves[key], event.epoch, summary={"value": points})
        if event.epoch + 1 == event.epochs:
            _close(self._curves.pop(key))


def _event_file(folder: Path) -> BinaryIO:
    folder.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads the files of a folder in the order of their names.
    number = sum(1 for _ in folder.iterdir())
    name = f"events.out.tfevents.{int(time.time()):010d}.{platform.node()}.{os.getpid()}.{number}"
    return (folder / name).open("xb")


def _append(file: BinaryIO, step: int = 0, **content: Any) -> None:
    from tensorboard.compat.proto.event_pb2 import Event as Record
    from tensorboard.summary.writer.record_writer import RecordWriter

    record = Record(wall_time=time.time(), step=step, **content)
    RecordWriter(file).write(record.SerializeToString())
    file.flush()


def _close(file: BinaryIO | None) -> None:
    if file is not None:
        # On a full disk the rest of the buffer cannot be written.
        with contextlib.suppress(OSError):
            file.close()


class MLflow:
    """Log each job's curves as a run of an MLflow experiment. Used as a context manager.

    If MLflow does not accept a metric, one notice is sent, no more metrics are logged, and
    training continues.

    Parameters
    ----------
    experiment : str
    tracking_uri : str, optional
        `MLFLOW_TRACKING_URI` by default.
    listener : callable
        Receives the notice.

    Raises
    ------
    EnvironmentFault
        MLflow is not installed, or its server cannot be reached.
    """

    def __init__(
        self, experiment: str, tracking_uri: str | None = None, listener: Listener = ignore_event
    ) -> None:
        # Must be set before the import: MLflow contacts its maker's host, even for a local folder.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        try:
            from mlflow.exceptions import MlflowException
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise EnvironmentFault(
                "The package mlflow is not installed",
                "--mlflow needs it",
                "Install it: pip install 'ensemble-kit[mlflow]'",
            ) from error
        self._listener, self._failed = listener, False
        self._faults = (MlflowException, OSError)
        try:
            self._client = MlflowClient(tracking_uri)
            known = self._client.get_experiment_by_name(experiment)
            self._experiment = (
                known.experiment_id if known else self._client.create_experiment(experiment)
            )
        except self._faults as error:
            raise EnvironmentFault(
                f"MLflow does not answer: {' '.join(str(error).split())[:300]}",
                "--mlflow needs a server or folder that can be reached",
                "Check MLFLOW_TRACKING_URI, or leave out --mlflow",
            ) from error
        self._runs: dict[tuple[str, int | str], str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(*self._faults):
            for run in self._runs.values():
                self._client.set_terminated(run)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, EpochEnded) or self._failed:
            return
        try:
            self._log(event)
        except self._faults as error:
            self._failed = True
            self._listener(Notice(NO_MLFLOW.format(" ".join(str(error).split())[:300])))

    def _log(self, event: EpochEnded) -> None:
        key = (event.member, event.fold)
        if key not in self._runs:
            name = f"{event.member} fold {event.fold}"
            self._runs[key] = self._client.create_run(self._experiment, run_name=name).info.run_id
        for name, value in dataclasses.asdict(event).items():
            if name in SCALARS:
                self._client.log_metric(self._runs[key], name, float(value), step=event.epoch)
