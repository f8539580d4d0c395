"""Events of a training run: frozen values that are passed to one function, the listener."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class TilesProgress:
    """Number of decoded images so far."""

    done: int
    total: int
    image_size: int


@dataclasses.dataclass(frozen=True)
class JobStarted:
    """A (member, fold) job begins; `first_epoch` is above 0 if it resumes."""

    member: str
    fold: int | str
    epochs: int
    first_epoch: int
    device: str
    precision: str


@dataclasses.dataclass(frozen=True)
class EpochEnded:
    """An epoch of a job ended; `val_on` names the rows of the validation metrics.

    `val_predicted_classes` is the number of classes among the predictions for those rows.
    """

    member: str
    fold: int | str
    epoch: int
    epochs: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    val_log_loss: float
    val_accuracy: float
    val_balanced_accuracy: float
    val_on: str
    seconds: float
    images_per_second: float
    val_predicted_classes: int = 0


@dataclasses.dataclass(frozen=True)
class JobFinished:
    """A job's logits and weights are stored."""

    member: str
    fold: int | str
    seconds: float
    chosen_epoch: int


@dataclasses.dataclass(frozen=True)
class JobSkipped:
    """A job was already finished."""

    member: str
    fold: int | str


@dataclasses.dataclass(frozen=True)
class JobFailed:
    """A job failed; the others continue. `exit_code` is that of its error's class."""

    member: str
    fold: int | str
    reason: str
    exit_code: int = 5


@dataclasses.dataclass(frozen=True)
class Notice:
    """A message for the user."""

    text: str


Event = TilesProgress | JobStarted | EpochEnded | JobFinished | JobSkipped | JobFailed | Notice
Listener = Callable[[Event], None]


_BY_NAME = {
    kind.__name__: kind
    for kind in (TilesProgress, JobStarted, EpochEnded, JobFinished, JobSkipped, JobFailed, Notice)
}


def to_json(event: Event) -> str:
    """An event as one line, for a listener in another process."""
    return json.dumps({"event": type(event).__name__, **dataclasses.asdict(event)})


def from_json(line: str) -> Event:
    """The event that `to_json` wrote.

    Examples
    --------
    >>> from_json(to_json(JobSkipped("resnet18", 2)))
    JobSkipped(member='resnet18', fold=2)
    """
    values = json.loads(line)
    return _BY_NAME[values.pop("event")](**values)


def ignore_event(event: Event) -> None:
    """A listener that ignores all events."""
