"""The training loop of one network, seeded per epoch and resumable after any epoch."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ensemble_kit.errors import JobsFailedError, first_few
from ensemble_kit.images.loading.batches import Batches
from ensemble_kit.members.networks.build import head_parameters
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training.frozen_backbone import FrozenBackbone
from ensemble_kit.members.training.losses import mixed
from ensemble_kit.members.training.optim import epochs_before_full_rate, rate_at, set_rate
from ensemble_kit.members.training.state import Plan, State, Training
from ensemble_kit.members.training.step import cap_parts, take_step
from ensemble_kit.members.training.weight_averaging import renew_statistics
from ensemble_kit.seeding import derive_seed

RATE_AFTER_NAN = 0.1


class NotFiniteError(RuntimeError):
    """A loss is not finite; `step` is None for the validation loss."""

    def __init__(self, step: int | None, value: float) -> None:
        super().__init__(step, value)
        self.step, self.value = step, value


def run_epochs(
    training: Training,
    batches: Batches,
    plan: Plan,
    *,
    validate: Callable[[nn.Module], dict[str, float]],
    freeze_backbone: Callable[[], FrozenBackbone],
    after_epoch: Callable[[Training], None],
    notice: Callable[[str], None],
) -> None:
    """Train to the last epoch or to early stopping; the model then has the selected weights.

    Parameters
    ----------
    validate : callable
        Returns at least `log_loss` and `accuracy` of a network on the validation rows.
    freeze_backbone : callable
        Returns the cached features, for recipes with `cache_features`.
    after_epoch : callable
        Called after each epoch; may store `training.state()`.

    Raises
    ------
    JobsFailedError
        A training or validation loss was not finite for the second time. The first time, the epoch
        is repeated with a lower learning rate.
    EnvironmentFault
        The smallest parts of a batch do not fit into memory.
    """
    recipe, backbone = plan.recipe, None
    while training.epoch < recipe.epochs and not _patience_is_over(training, recipe):
        epoch, began = training.epoch, time.perf_counter()
        before = copy.deepcopy(training.state())
        caching = recipe.optim.cache_features and epoch < recipe.optim.head_only_epochs
        backbone = (backbone or freeze_backbone()) if caching else None
        try:
            with seeded(plan.seed, "epoch", epoch, device=plan.device):
                loss, accuracy, n_images = _train_epoch(training, batches, plan, notice, backbone)
            trained_in = time.perf_counter() - began
            _average_epoch(training, batches, plan)
            validation = (backbone.validate if backbone else validate)(training.evaluated)
            # After a bad last step, only the validation loss shows that the weights diverged.
            if not math.isfinite(validation["log_loss"]):
                raise NotFiniteError(None, validation["log_loss"])
        except NotFiniteError as error:
            _roll_back(training, before, error, batches, plan, notice)
            continue
        training.history.append(
            {
                "epoch": epoch,
                "learning_rate": _rate(training, recipe, len(batches) - 1, len(batches)),
                "train_loss": loss,
                "train_accuracy": accuracy,
                **{f"val_{name}": value for name, value in validation.items()},
                "seconds": time.perf_counter() - began,
                "images_per_second": n_images / trained_in,
            }
        )
        _note_best(training, recipe, validation)
        _store_extra_checkpoint(training, recipe)
        after_epoch(training)
    _warn_if_nothing_is_averaged(training, recipe, notice)
    chosen = training.best_weights or training.evaluated.state_dict()
    training.model.load_state_dict(copy.deepcopy(chosen))


def _train_epoch(
    training: Training,
    batches: Batches,
    plan: Plan,
    notice: Callable[[str], None],
    backbone: FrozenBackbone | None,
) -> tuple[float, float, int]:
    recipe, device, epoch, steps = plan.recipe, plan.device, training.epoch, len(batches)
    _set_mode(training.model, recipe, epoch)
    if training.micro_batches > 1:
        cap_parts(training, len(batches.steps(epoch)[0]), notice)
    # Losses and hits stay on the device, so that the host waits only once per epoch.
    of_steps, sizes = torch.zeros(2, steps, device=device), torch.zeros(steps)
    head = backbone.head_of(training.model) if backbone else None
    given = backbone.steps(batches, epoch) if backbone else batches.epoch(epoch)
    for step, (images, labels, positions) in enumerate(given):
        set_rate(training.optimizer, _rate(training, recipe, step, steps))
        target = labels if plan.soft is None else plan.soft[positions]
        if not backbone and (recipe.regularize.mixup or recipe.regularize.cutmix):
            draws = torch.Generator().manual_seed(derive_seed(plan.seed, "mix", epoch, step))
            images, target = mixed(images, target, plan.n_classes, recipe.regularize, draws)
        if not backbone:
            images = images.contiguous(memory_format=torch.channels_last)
        loss, logits = take_step(training, images, target, plan, notice, head)
        of_steps[0, step], sizes[step] = loss, len(labels)
        # For mixed images and soft labels, the class with the largest weight counts as correct.
        wanted = target if target.ndim == 1 else target.argmax(dim=1)
        of_steps[1, step] = (logits.argmax(dim=1) == wanted).sum()
        if recipe.regularize.ema_decay and training.averaged is not None:
            training.averaged.update()
    losses, hits = of_steps.cpu()
    if not bool(torch.isfinite(losses).all()):
        first = int((~torch.isfinite(losses)).nonzero()[0])
        raise NotFiniteError(first, float(losses[first]))
    n_images = int(sizes.sum())
    return float((losses * sizes).sum()) / n_images, float(hits.sum()) / n_images, n_images


def _set_mode(model: nn.Module, recipe: Recipe, epoch: int) -> None:
    model.train()
    head = set(head_parameters(model))
    head_only = epoch < recipe.optim.head_only_epochs
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not head_only or name in head)
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm):
            continue
        if recipe.optim.freeze_batch_norm:
            module.eval().requires_grad_(False)
        # Statistics are no parameters: without `eval()` they would change in a frozen backbone.
        elif head_only and f"{name}.weight" not in head:
            module.eval()


def _rate(training: Training, recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate in one step of the current epoch, before the scale of each group."""
    losses = [row["val_log_loss"] for row in training.history]
    rate = rate_at(training.epoch * steps + step, recipe, steps, losses)
    return rate * training.rate_factor


def _average_epoch(training: Training, batches: Batches, plan: Plan) -> None:
    """Add the epoch's weights to the average of the last ones, and renew its batch statistics."""
    recipe, average = plan.recipe, training.averaged
    first = recipe.epochs - recipe.regularize.average_last
    if average is None or not recipe.regularize.average_last or training.epoch < first:
        return
    average.update()
    # A frozen backbone or frozen normalisation already has its statistics.
    is_frozen = training.epoch < recipe.optim.head_only_epochs
    if not is_frozen and not recipe.optim.freeze_batch_norm:
        with torch.autocast(
            plan.device.type, dtype=plan.precision.dtype, enabled=plan.precision.autocasts
        ):
            renew_statistics(average.network, _images(training, batches))


def _images(training: Training, batches: Batches) -> Iterator[Tensor]:
    """The images of the current epoch, in the same parts as in training."""
    for images, _, _ in batches.epoch(training.epoch):
        whole = images.contiguous(memory_format=torch.channels_last)
        # Batch normalisation needs at least two images in each part.
        yield from whole.tensor_split(min(training.micro_batches, max(len(whole) // 2, 1)))


def _warn_if_nothing_is_averaged(
    training: Training, recipe: Recipe, notice: Callable[[str], None]
) -> None:
    last, epoch = recipe.regularize.average_last, training.chosen_epoch
    if last and epoch < recipe.epochs - last:
        notice(
            f"Nothing was averaged: the weights are those of epoch {epoch + 1}, and average_last = "
            f"{last} begins in epoch {recipe.epochs - last + 1} of {recipe.epochs}. Use ema_decay "
            "for an average at any epoch."
        )


def _roll_back(
    training: Training,
    before: State,
    error: NotFiniteError,
    batches: Batches,
    plan: Plan,
    notice: Callable[[str], None],
) -> None:
    what = _not_finite(error, training.epoch, batches, plan)
    if before["rate_factor"] < 1.0:
        raise JobsFailedError(
            f"{what}, again after the learning rate was lowered",
            "the training needs a finite loss",
            "Lower learning_rate, or check the images with 'ensemble-kit data check'",
        )
    training.restore(before)
    training.rate_factor = RATE_AFTER_NAN
    notice(
        f"{what[0].upper()}{what[1:]}: rolled back to the epoch before. Training continues with "
        f"{RATE_AFTER_NAN:g} times the learning rate."
    )


def _not_finite(error: NotFiniteError, epoch: int, batches: Batches, plan: Plan) -> str:
    if error.step is None:
        return f"the validation loss became {error.value} after epoch {epoch + 1}"
    images = first_few(plan.name_of(int(row)) for row in batches.steps(epoch)[error.step])
    return f"the loss became {error.value} in epoch {epoch + 1}, step {error.step + 1} (images {images})"


def _note_best(training: Training, recipe: Recipe, validation: dict[str, float]) -> None:
    if recipe.select_on == "none":
        return
    metric = recipe.regularize.select_metric
    score = validation[metric] if metric == "log_loss" else -validation[metric]
    if score < training.best_score:
        training.best_epoch, training.best_score = training.epoch - 1, score
        training.best_weights = copy.deepcopy(training.evaluated.state_dict())


def _store_extra_checkpoint(training: Training, recipe: Recipe) -> None:
    """Store the weights of separate members: snapshots, and the average at the selected epoch."""
    for k, epochs in enumerate(recipe.snapshot_epochs[:-1], start=1):
        if training.epoch == epochs:
            training.extra_checkpoints[f"snap{k}"] = copy.deepcopy(training.evaluated.state_dict())
    chosen = recipe.epochs if recipe.select_on == "none" else training.best_epoch + 1
    if recipe.regularize.average_beside and training.epoch == chosen:
        name = recipe.extra_checkpoints[-1]
        training.extra_checkpoints[name] = copy.deepcopy(training.average.state_dict())


def _patience_is_over(training: Training, recipe: Recipe) -> bool:
    """Whether `patience` epochs at the full learning rate brought no improvement."""
    since = max(training.best_epoch + 1, epochs_before_full_rate(recipe))
    return recipe.patience > 0 and training.epoch - since >= recipe.patience


@contextlib.contextmanager
def seeded(seed: int, *names: object, device: torch.device) -> Iterator[None]:
    """Seed torch's generators inside the block and restore their state afterwards."""
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, *names))
        yield
