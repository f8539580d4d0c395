"""The training loop of one network: visible, seeded per epoch, resumable after any of them.

Knows nothing of folds and files: it gets batches and rows, and hands its state to a callback.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ensemble_kit.arrays import Array, log_softmax
from ensemble_kit.errors import JobsFailedError
from ensemble_kit.images.batches import Batches
from ensemble_kit.members.optim import make_optimizer, rate_at, set_rate
from ensemble_kit.members.precision import Precision
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.seeding import derive_seed

State = dict[str, Any]


@dataclasses.dataclass
class Training:
    """What one job's loop carries from epoch to epoch.

    `state()` and `restore()` cover everything that decides the next step; generators need no
    storing, since every epoch draws from streams derived from (seed, epoch).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best_epoch: int = -1
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] | None = None

    @classmethod
    def start(
        cls, model: nn.Module, recipe: Recipe, precision: Precision, device: torch.device
    ) -> Training:
        scaler = torch.amp.GradScaler(device.type, enabled=precision.scales_loss)
        return cls(model, make_optimizer(model, recipe), scaler)

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def chosen_epoch(self) -> int:
        """The 0-based epoch whose weights count: the last one, unless one was selected."""
        return self.epoch - 1 if self.best_weights is None else self.best_epoch

    def state(self) -> State:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
        }

    def restore(self, state: State) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.history = state["history"]
        self.best_epoch, self.best_loss = state["best_epoch"], state["best_loss"]
        self.best_weights = state["best_weights"]


def run_epochs(
    training: Training,
    batches: Batches,
    loss_of: nn.Module,
    validate: Callable[[nn.Module], tuple[float, float]],
    *,
    recipe: Recipe,
    precision: Precision,
    device: torch.device,
    seed: int,
    after_epoch: Callable[[Training], None],
) -> None:
    """Train until the recipe's epochs are done or its patience is at an end.

    `validate(model)` gives loss and accuracy on the rows that the recipe watches; `after_epoch`
    may store `training.state()`. On return the model holds the chosen epoch's weights.
    """
    while training.epoch < recipe.epochs and not _patience_is_over(training, recipe):
        epoch, began = training.epoch, time.perf_counter()
        with seeded(seed, "epoch", epoch, device=device):
            loss, accuracy, n_images = _train_epoch(
                training, batches, loss_of, recipe, precision, device
            )
        trained_in = time.perf_counter() - began
        val_loss, val_accuracy = validate(training.model)
        training.history.append(
            {
                "epoch": epoch,
                "learning_rate": training.optimizer.param_groups[0]["lr"],
                "train_loss": loss,
                "train_accuracy": accuracy,
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "seconds": time.perf_counter() - began,
                "images_per_second": n_images / trained_in,
            }
        )
        if recipe.select_on != "none" and val_loss < training.best_loss:
            training.best_epoch, training.best_loss = epoch, val_loss
            training.best_weights = copy.deepcopy(training.model.state_dict())
        after_epoch(training)
    if training.best_weights is not None:
        training.model.load_state_dict(training.best_weights)


def _train_epoch(
    training: Training,
    batches: Batches,
    loss_of: nn.Module,
    recipe: Recipe,
    precision: Precision,
    device: torch.device,
) -> tuple[float, float, int]:
    model, optimizer, scaler = training.model.train(), training.optimizer, training.scaler
    steps = len(batches)
    # Sums stay on the device: the host waits once, at the end of the epoch.
    loss_sum = torch.zeros((), device=device)
    correct = torch.zeros((), device=device, dtype=torch.int64)
    n_images = 0
    for step, (images, labels, _) in enumerate(batches.epoch(training.epoch)):
        set_rate(optimizer, rate_at(training.epoch * steps + step, recipe, steps))
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=precision.dtype, enabled=precision.autocasts):
            logits = model(images)
        loss = loss_of(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        loss_sum += loss.detach() * len(labels)
        correct += (logits.detach().argmax(dim=1) == labels).sum()
        n_images += len(labels)
    mean_loss = float(loss_sum) / n_images
    if not math.isfinite(mean_loss):
        raise JobsFailedError(
            "A training loss is a finite number",
            f"it became {mean_loss} in epoch {training.epoch + 1} at rate {optimizer.param_groups[0]['lr']:.3g}",
            "Lower learning_rate, or look for broken images with 'ensemble-kit data check'",
        )
    return mean_loss, int(correct) / n_images, n_images


def _patience_is_over(training: Training, recipe: Recipe) -> bool:
    waited = training.epoch - 1 - training.best_epoch
    return recipe.patience > 0 and training.epoch > 0 and waited >= recipe.patience


def log_loss_and_accuracy(logits: Array, labels: Array) -> tuple[float, float]:
    """Mean cross-entropy (nats) and accuracy of 2-D logits."""
    log_proba = log_softmax(logits)
    return (
        float(-log_proba[np.arange(len(labels)), labels].mean()),
        float((log_proba.argmax(axis=1) == labels).mean()),
    )


@contextlib.contextmanager
def seeded(seed: int, *names: object, device: torch.device) -> Iterator[None]:
    """Give torch's own generators a derived seed inside a block, and their old state after it."""
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, *names))
        yield
