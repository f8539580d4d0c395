"""The optimizer and its schedule: AdamW without decay on norms and biases, and a rate per step.

Knows no data; the rate is a pure function of the step.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ensemble_kit.members.recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW over two groups: matrices and filters decay, vectors (biases, norms) do not."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    fused = all(p.device.type == "cuda" for p in trained)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, fused=fused)


def rate_at(step: int, recipe: Recipe, steps_per_epoch: int) -> float:
    """The learning rate of the 0-based `step`: linear warm-up, then the schedule.

    Examples
    --------
    >>> recipe = Recipe(epochs=2, learning_rate=1.0, warmup_epochs=1)
    >>> [round(rate_at(step, recipe, 2), 3) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total - 1)
    if step < warmup:
        return recipe.learning_rate * (step + 1) / warmup
    if recipe.schedule == "constant":
        return recipe.learning_rate
    done = (step - warmup) / max(total - warmup, 1)
    return recipe.learning_rate * 0.5 * (1.0 + math.cos(math.pi * done))


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
