"""One optimizer step over a batch, in as many parts as memory requires.

The step uses the loss of the whole batch; batch normalisation uses the statistics of each part.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ensemble_kit.errors import EnvironmentFault, counted
from ensemble_kit.faults import is_out_of_memory
from ensemble_kit.members.training.out_of_memory import release_cached_memory
from ensemble_kit.members.training.state import Plan, Training

SMALLEST_PARTS = {
    1: "Not even one image fits",
    2: "Not even two images fit, the smallest part for batch normalisation,",
}


def least_part(network: nn.Module) -> int:
    """The smallest number of images in a part: two with training batch normalisation, else one.

    One image can have one value per channel, which has no variance.

    Examples
    --------
    >>> network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    >>> least_part(network), least_part(network.eval())
    (2, 1)
    """
    has_statistics = any(isinstance(m, _BatchNorm) and m.training for m in network.modules())
    return 2 if has_statistics else 1


def cap_parts(training: Training, n_images: int, notice: Callable[[str], None]) -> None:
    """Limit the number of parts of a batch of `n_images`, so that each has at least `least_part`."""
    most, requested = max(n_images // least_part(training.model), 1), training.micro_batches
    if requested > most and most < n_images:
        training.micro_batches = most
        notice(
            f"micro_batches = {requested} is reduced: batches of {n_images} images are computed in "
            f"{counted(most, 'part')}. Batch normalisation needs two images in each part."
        )


def take_step(
    training: Training,
    images: Tensor,
    target: Tensor,
    plan: Plan,
    notice: Callable[[str], None],
    head: nn.Module | None = None,
) -> tuple[Tensor, Tensor]:
    """One optimizer step; if memory runs out, the batch is computed in twice as many parts.

    With a `head`, `images` are cached features, and only the head is trained.

    Raises
    ------
    EnvironmentFault
        The smallest parts do not fit into memory.
    """
    forward, least = head or training.model, least_part(head or training.model)
    most = max(len(images) // least, 1)
    while True:
        try:
            n_parts = min(training.micro_batches, most)
            loss, logits = _forward_backward(training, forward, images, target, plan, n_parts)
            break
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            training.optimizer.zero_grad(set_to_none=True)
            if training.micro_batches >= most:
                raise EnvironmentFault(
                    f"{SMALLEST_PARTS[least]} into the memory of {plan.device} at {images.shape[-1]} px",
                    "a training step needs it",
                    "Use a smaller --image-size or network, or free the device's memory",
                ) from error
            training.micro_batches = min(training.micro_batches * 2, most)
        release_cached_memory(plan.device)
        notice(
            f"Out of memory: each batch is now computed in {training.micro_batches} parts; "
            "a step still uses the whole batch."
        )
    if plan.recipe.optim.clip_norm:
        training.scaler.unscale_(training.optimizer)
        nn.utils.clip_grad_norm_(training.model.parameters(), plan.recipe.optim.clip_norm)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    return loss, logits


def _forward_backward(
    training: Training,
    forward: Callable[[Tensor], Tensor],
    images: Tensor,
    target: Tensor,
    plan: Plan,
    n_parts: int,
) -> tuple[Tensor, Tensor]:
    precision = plan.precision
    training.optimizer.zero_grad(set_to_none=True)
    total = torch.zeros((), device=plan.device)
    whole, parts = plan.loss_of.weight_of(target), []
    for some, wanted in zip(
        images.tensor_split(n_parts), target.tensor_split(n_parts), strict=True
    ):
        with torch.autocast(plan.device.type, dtype=precision.dtype, enabled=precision.autocasts):
            logits = forward(some)
        # Parts are weighted by their samples' weights, so that they add up to the batch's loss.
        share = plan.loss_of.weight_of(wanted) / whole
        loss = plan.loss_of(logits.float(), wanted) * share
        training.scaler.scale(loss).backward()
        total += loss.detach()
        parts.append(logits.detach())
    return total, torch.cat(parts)
