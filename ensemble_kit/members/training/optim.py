"""The optimizer and its schedule: parameter groups, and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from timm.models._manipulate import group_parameters
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.optim import param_groups_layer_decay as layer_decay_groups
from timm.optim import param_groups_weight_decay as weight_decay_groups
from torch import nn

from ensemble_kit.errors import EnvironmentFault, UsageError, did_you_mean
from ensemble_kit.members.recipe import Recipe

MOST_LAYERS = 24
# Smith & Topin 2019, "Super-convergence": warm-up over 30 % of the steps from 1/25 of the peak.
ONE_CYCLE_RISE, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1e-4


def make_optimizer(
    model: nn.Module, recipe: Recipe, head: Iterable[str] = ()
) -> torch.optim.Optimizer:
    """The recipe's optimizer over groups of parameters, each with its own `lr_scale`.

    Parameters
    ----------
    head : iterable of str
        Names of the classifier's parameters, which learn at `head_rate` times the rate.

    Raises
    ------
    UsageError, EnvironmentFault
        As `check_optimizer`.
    """
    optim = recipe.optim
    check_optimizer(optim.name)
    # Position embeddings and class tokens, named by the network.
    no_decay: Any = getattr(model, "no_weight_decay", tuple)()
    if optim.layer_decay < 1:
        layers = _in_layers(model)
        groups = layer_decay_groups(
            layers, recipe.weight_decay, no_decay, layer_decay=optim.layer_decay
        )
    else:
        groups = weight_decay_groups(model, recipe.weight_decay, no_weight_decay_list=no_decay)
    groups = _with_head(groups, model, set(head), optim.head_rate)
    fused: dict[str, Any] = {"fused": True} if _has_fused_step(optim.name, model) else {}
    made: torch.optim.Optimizer = create_optimizer_v2(
        groups, opt=optim.name, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, **fused
    )
    return made


def check_optimizer(name: str) -> None:
    """Refuse an optimizer that cannot train here.

    Raises
    ------
    UsageError
        timm has none called `name`, or it needs second derivatives.
    EnvironmentFault
        It needs a device or a package that this machine lacks.
    """
    known, inner = [str(one) for one in list_optimizers()], name.removeprefix("lookahead_")
    if inner not in known:
        raise UsageError(
            f"Unknown optimizer '{name}'",
            "an optimizer has a name of timm, or lookahead_ and such a name",
            did_you_mean(name, known),
        )
    if get_optimizer_info(inner).second_order:
        raise UsageError(
            f"The optimizer '{name}' needs second derivatives",
            "only optimizers with first derivatives can be used",
            "Choose another one, such as adamw",
        )
    try:
        create_optimizer_v2([nn.Parameter(torch.zeros(2, 2))], opt=name, lr=1e-3)
    except Exception as error:  # optimizers raise various errors for missing packages
        raise EnvironmentFault(
            f"The optimizer '{name}' does not run here: {(str(error).splitlines() or [type(error).__name__])[0][:160]}",
            "some optimizers need packages beside torch",
            "Choose one that needs torch only, such as adamw",
        ) from error


def _has_fused_step(name: str, model: nn.Module) -> bool:
    # A fused step takes a third of the time of single steps, on CPUs too.
    devices = {p.device.type for p in model.parameters()}
    return name in {"adam", "adamw", "sgd"} and devices <= {"cpu", "cuda"}


def _in_layers(model: Any) -> Any:
    """The network with layer groups for timm: its blocks, or its stages if it has many blocks.

    Usual decays are meant for a dozen layers. Over DenseNet121's 60 blocks, a decay of .75 would
    reduce the rate of the first block to 4e-8 of the full rate.
    """
    if not hasattr(model, "group_matcher"):
        return model
    by_block = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    if max(by_block.values()) < MOST_LAYERS:
        return model
    return SimpleNamespace(
        named_parameters=model.named_parameters,
        group_matcher=lambda **_: model.group_matcher(coarse=True),
    )


def _with_head(
    groups: Sequence[dict], model: nn.Module, head: set[str], head_rate: float
) -> list[dict]:
    ids = {id(p) for name, p in model.named_parameters() if name in head}
    out = []
    for group in groups:
        params, scale = list(group["params"]), float(group.get("lr_scale", 1.0))
        for inside, factor in ((False, 1.0), (True, head_rate)):
            part = [p for p in params if (id(p) in ids) == inside]
            if part:
                out.append(
                    {
                        "params": part,
                        "weight_decay": group["weight_decay"],
                        "lr_scale": scale * factor,
                    }
                )
    return out


def rate_at(step: int, recipe: Recipe, steps_per_epoch: int, losses: Sequence[float] = ()) -> float:
    """The learning rate of the 0-based `step`: linear warm-up, then the schedule.

    Parameters
    ----------
    losses : sequence of float
        Validation loss after each finished epoch, for `plateau`. Those of
        `epochs_before_full_rate` are ignored.

    Examples
    --------
    >>> recipe = Recipe(epochs=2, learning_rate=1.0, warmup_epochs=1)
    >>> [round(rate_at(step, recipe, 2), 3) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    peak, total = recipe.learning_rate, recipe.epochs * steps_per_epoch
    if recipe.schedule == "one-cycle":
        return peak * _one_cycle(step / max(total - 1, 1))
    if recipe.schedule == "cyclic":
        return peak * _of_its_cycle(step, recipe, steps_per_epoch)
    # In a training shorter than twice its warm-up, the rate still decreases in the second half.
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total // 2)
    if step < warmup:
        return peak * (step + 1) / warmup
    if recipe.schedule == "constant":
        return peak
    if recipe.schedule == "step":
        drops = (step // steps_per_epoch) // recipe.optim.step_epochs
        return float(peak * recipe.optim.step_factor**drops)
    if recipe.schedule == "plateau":
        full_rate_losses = losses[epochs_before_full_rate(recipe) :]
        drops = plateau_drops(full_rate_losses, recipe.optim.plateau_epochs)
        return float(peak * recipe.optim.step_factor**drops)
    return peak * _half_cosine((step - warmup) / max(total - warmup, 1))


def epochs_before_full_rate(recipe: Recipe) -> int:
    """Number of first epochs with warm-up or a frozen backbone; patience does not count them.

    Examples
    --------
    >>> epochs_before_full_rate(Recipe(epochs=9, warmup_epochs=1.5))
    2
    >>> epochs_before_full_rate(Recipe(epochs=9, optim={"head_only_epochs": 4}))
    4
    """
    one_cycle = recipe.schedule == "one-cycle"
    warmup = min(recipe.warmup_epochs, recipe.epochs / 2)
    rise = ONE_CYCLE_RISE * recipe.epochs if one_cycle else warmup
    return min(max(math.ceil(rise), recipe.optim.head_only_epochs), recipe.epochs)


def _of_its_cycle(step: int, recipe: Recipe, steps_per_epoch: int) -> float:
    """One cosine per cycle, each from the peak; warm-up takes at most half of the first cycle."""
    ends = [epochs * steps_per_epoch for epochs in recipe.snapshot_epochs]
    start, end = next(
        (a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True) if step < b or b == ends[-1]
    )
    warmup = 0 if start else min(round(recipe.warmup_epochs * steps_per_epoch), end // 2)
    if step < warmup:
        return (step + 1) / warmup
    return _half_cosine((step - start - warmup) / (end - start - warmup))


def _half_cosine(done: float) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * done))


def _one_cycle(done: float) -> float:
    if done < ONE_CYCLE_RISE:
        return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * (1 - _half_cosine(done / ONE_CYCLE_RISE))
    past_peak = (done - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE)
    return ONE_CYCLE_END + (1 - ONE_CYCLE_END) * _half_cosine(past_peak)


def plateau_drops(losses: Sequence[float], patience: int) -> int:
    """Number of times the loss did not improve for `patience` epochs; each drop restarts the count.

    Examples
    --------
    >>> plateau_drops([1.0, 0.9, 0.95, 0.91, 0.92], patience=3)
    1
    """
    best, waited, drops = math.inf, 0, 0
    for loss in losses:
        if loss < best:
            best, waited = loss, 0
        else:
            waited += 1
        if waited >= patience:
            drops, waited = drops + 1, 0
    return drops


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's learning rate to `rate` times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
