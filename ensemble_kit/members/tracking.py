"""Training curves for the tools that people watch them in: TensorBoard, and MLflow as an extra.

Watchers like any other: they get events and write them down.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, Self

from ensemble_kit.errors import EnvironmentFault
from ensemble_kit.members.events import EpochEnded, Event, JobStarted, Watcher

FIGURES = (
    "train_loss",
    "train_accuracy",
    "val_log_loss",
    "val_accuracy",
    "val_balanced_accuracy",
    "learning_rate",
    "images_per_second",
)


def both(one: Watcher, other: Watcher) -> Watcher:
    """A watcher that tells two."""

    def tell(event: Event) -> None:
        one(event)
        other(event)

    return tell


class TensorBoard:
    """Writes `<folder>/<member>-fold-<k>/`: one curve per figure and epoch. Used as a context.

    A job that begins anew or goes on takes back what an earlier training said of the same epochs.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[tuple[str, int | str], Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for writer in self._writers.values():
            writer.close()

    def __call__(self, event: Event) -> None:
        if isinstance(event, JobStarted):
            if (event.member, event.fold) in self._writers:
                self._writers.pop((event.member, event.fold)).close()
            return
        if not isinstance(event, EpochEnded):
            return
        key = (event.member, event.fold)
        if key not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            self._writers[key] = SummaryWriter(
                str(self._folder / f"{event.member}-fold-{event.fold}"), purge_step=event.epoch
            )
        for name, value in dataclasses.asdict(event).items():
            if name in FIGURES:
                self._writers[key].add_scalar(name, value, event.epoch)
        if event.epoch + 1 == event.epochs:
            self._writers.pop(key).close()


class MLflow:
    """Logs each job's curves as a run of an MLflow experiment. Used as a context.

    Raises
    ------
    EnvironmentFault
        MLflow is not installed.
    """

    def __init__(self, experiment: str, tracking_uri: str | None = None) -> None:
        # Read when MLflow is imported: it would look up its maker's host, even for a local folder.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise EnvironmentFault(
                "Logging to MLflow needs the mlflow package",
                "it is not installed",
                "Install it: pip install 'ensemble-kit[mlflow]'",
            ) from error
        self._client = MlflowClient(tracking_uri)
        known = self._client.get_experiment_by_name(experiment)
        self._experiment = (
            known.experiment_id if known else self._client.create_experiment(experiment)
        )
        self._runs: dict[tuple[str, int | str], str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for run in self._runs.values():
            self._client.set_terminated(run)

    def __call__(self, event: Event) -> None:
        if not isinstance(event, EpochEnded):
            return
        key = (event.member, event.fold)
        if key not in self._runs:
            name = f"{event.member} fold {event.fold}"
            self._runs[key] = self._client.create_run(self._experiment, run_name=name).info.run_id
        for name, value in dataclasses.asdict(event).items():
            if name in FIGURES:
                self._client.log_metric(self._runs[key], name, float(value), step=event.epoch)
