"""The state of a training: values that change from epoch to epoch, and constant ones."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ensemble_kit.members.networks.build import head_parameters
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training.losses import Loss
from ensemble_kit.members.training.optim import make_optimizer
from ensemble_kit.members.training.precision import Precision
from ensemble_kit.members.training.weight_averaging import Average

State = dict[str, Any]


@dataclasses.dataclass
class Training:
    """The values that one training changes from epoch to epoch.

    `state()` and `restore()` cover everything that decides the next step. Random states are not
    stored: every epoch has generators derived from (seed, epoch).
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: Average | None = None
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best_epoch: int = -1
    best_score: float = math.inf
    best_weights: dict[str, Tensor] | None = None
    extra_checkpoints: dict[str, dict[str, Tensor]] = dataclasses.field(default_factory=dict)
    average_beside: bool = False
    rate_factor: float = 1.0
    micro_batches: int = 1

    @classmethod
    def start(
        cls, model: nn.Module, recipe: Recipe, precision: Precision, device: torch.device
    ) -> Training:
        scaler = torch.amp.GradScaler(device.type, enabled=precision.scales_loss)
        optimizer = make_optimizer(model, recipe, head_parameters(model))
        regularize = recipe.regularize
        averages = bool(regularize.ema_decay or regularize.average_last)
        averaged = Average(model, regularize.ema_decay) if averages else None
        return cls(
            model, optimizer, scaler, averaged, micro_batches=recipe.optim.micro_batches,
            average_beside=recipe.regularize.average_beside,
        )  # fmt: skip

    @property
    def epoch(self) -> int:
        """The number of finished epochs."""
        return len(self.history)

    @property
    def chosen_epoch(self) -> int:
        """The 0-based epoch of the final weights: the selected one, else the last."""
        return self.epoch - 1 if self.best_weights is None else self.best_epoch

    @property
    def evaluated(self) -> nn.Module:
        """The network that predicts: the averaged one if it replaces the last weights."""
        return self.model if self.average_beside else self.average

    @property
    def average(self) -> nn.Module:
        """The averaged network; the model itself before the first average."""
        if self.averaged is None or not self.averaged.count:
            return self.model
        return self.averaged.network

    def state(self) -> State:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state(),
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_score": self.best_score,
            "best_weights": self.best_weights,
            "further_weights": self.extra_checkpoints,
            "rate_factor": self.rate_factor,
            "micro_batches": self.micro_batches,
        }

    def restore(self, state: State) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:  # empty if the job ran in another precision before
            self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            self.averaged.restore(state["averaged"])
        # Earlier versions call one column `val_answered_classes`.
        self.history = [
            {k.replace("answered", "predicted"): v for k, v in row.items()}
            for row in state["history"]
        ]
        self.extra_checkpoints = dict(state.get("further_weights", {}))
        for name in ("best_epoch", "best_score", "best_weights", "rate_factor", "micro_batches"):
            setattr(self, name, state[name])


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """The values that stay the same over all epochs of one training."""

    recipe: Recipe
    loss_of: Loss
    n_classes: int
    precision: Precision
    device: torch.device
    seed: int
    name_of: Callable[[int], str]  # row position -> sample id, for messages
    soft: Tensor | None = None  # class probabilities in place of labels, by row position
