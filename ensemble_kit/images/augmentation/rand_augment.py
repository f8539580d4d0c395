"""TrivialAugment and RandAugment: operations drawn per sample, in batches per operation.

Mueller & Hutter, ICCV 2021 (TrivialAugment, its wide ranges); Cubuk et al., NeurIPS 2020
(RandAugment: two operations of magnitude 9 of 30).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_kit.images.augmentation.geometry import resampled
from ensemble_kit.images.loading.to_device import to_device

# The operation of each sample, as an index in NAMES, and its strength.
Round = tuple[Tensor, Tensor]


def draw_policy(n: int, policy: str, generator: torch.Generator) -> list[Round]:
    """One (`trivial`) or two (`rand`) random operations for each of `n` samples, none for `none`."""
    wide = policy == "trivial"
    rounds = []
    for _ in range({"none": 0, "trivial": 1, "rand": 2}[policy]):
        chosen = torch.randint(len(NAMES), (n,), generator=generator)
        strength = torch.rand(n, generator=generator) if wide else torch.full((n,), 9 / 30)
        sign = torch.randint(2, (n,), generator=generator) * 2 - 1
        ranges = torch.tensor([(WIDE if wide else RAND).get(name, 0.0) for name in NAMES])
        signed = torch.tensor([name in SIGNED for name in NAMES])
        amount = strength * ranges[chosen]
        rounds.append((chosen, torch.where(signed[chosen], amount * sign, amount)))
    return rounds


def apply_policy(images: Tensor, rounds: Sequence[Round], *, fill: str) -> Tensor:
    """Images after the operations that were drawn for them.

    Parameters
    ----------
    images : Tensor of float, shape (batch, channels, height, width)
        0 .. 255.
    rounds : sequence of (chosen, amount), shape (batch,) each
        As `draw_policy` gives them.
    fill : {"reflect", "border", "white"}
        What fills the area outside the image.

    Returns
    -------
    Tensor of float, same shape, 0 .. 255
    """
    for chosen, amounts in rounds:
        images = images.clone()
        for k in chosen.unique().tolist():
            there = torch.nonzero(chosen == k)[:, 0]
            amount = to_device(amounts[there], images.device)
            rows = to_device(there, images.device)
            images[rows] = apply_operation(NAMES[k], images[rows], amount, fill=fill)
    return images


def apply_operation(name: str, images: Tensor, amount: Tensor, *, fill: str = "reflect") -> Tensor:
    """One operation on a batch, its strength per image: `amount` of shape (batch,)."""
    if name in GEOMETRY:
        images = resampled(images, GEOMETRY[name](amount), fill)
    elif name in COLOR:
        images = COLOR[name](images, amount)
    return images.clamp(0, 255)


def _per_image(amount: Tensor) -> Tensor:
    return amount.view(-1, 1, 1, 1)


def _maps(amount: Tensor, entries: dict[tuple[int, int], Tensor]) -> Tensor:
    maps = torch.eye(2, 3, device=amount.device).repeat(len(amount), 1, 1)
    for (row, column), values in entries.items():
        maps[:, row, column] = values
    return maps


def _shear_x(amount: Tensor) -> Tensor:
    return _maps(amount, {(0, 1): amount})


def _shear_y(amount: Tensor) -> Tensor:
    return _maps(amount, {(1, 0): amount})


def _shift_x(amount: Tensor) -> Tensor:
    return _maps(amount, {(0, 2): 2 * amount})


def _shift_y(amount: Tensor) -> Tensor:
    return _maps(amount, {(1, 2): 2 * amount})


def _rotate(amount: Tensor) -> Tensor:
    turn = amount * (math.pi / 180)
    cos, sin = turn.cos(), turn.sin()
    return _maps(amount, {(0, 0): cos, (0, 1): -sin, (1, 0): sin, (1, 1): cos})


def _brightness(images: Tensor, amount: Tensor) -> Tensor:
    return images * _per_image(1 + amount)


def _contrast(images: Tensor, amount: Tensor) -> Tensor:
    grey = _grey(images).mean(dim=(1, 2, 3), keepdim=True)
    return grey + (images - grey) * _per_image(1 + amount)


def _saturation(images: Tensor, amount: Tensor) -> Tensor:
    grey = _grey(images)
    return grey + (images - grey) * _per_image(1 + amount)


def _sharpness(images: Tensor, amount: Tensor) -> Tensor:
    channels = images.shape[1]
    kernel = torch.tensor([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    blurred = F.conv2d(
        padded, to_device(kernel, images.device).expand(channels, 1, 3, 3), groups=channels
    )
    return blurred + (images - blurred) * _per_image(1 + amount)


def _posterize(images: Tensor, amount: Tensor) -> Tensor:
    step = _per_image(2.0 ** amount.round())
    return (images / step).floor() * step


def _solarize(images: Tensor, amount: Tensor) -> Tensor:
    return torch.where(images >= 255 - _per_image(amount), 255 - images, images)


def _autocontrast(images: Tensor, _amount: Tensor) -> Tensor:
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    return torch.where(high > low, (images - low) * (255 / (high - low).clamp(min=1e-3)), images)


def _equalize(images: Tensor, _amount: Tensor) -> Tensor:
    # Pillow's rule, in whole numbers: a level becomes the pixels below it over those of one step.
    levels = images.round().long().clamp(0, 255).flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.long, device=images.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    brightest = counts.gather(2, levels.amax(dim=2, keepdim=True))
    step = (levels.shape[2] - brightest).div(255, rounding_mode="floor")
    below = counts.cumsum(dim=2) - counts
    table = (below + step // 2).div(step.clamp(min=1), rounding_mode="floor").clamp(max=255)
    spread = table.gather(2, levels).to(images.dtype).view_as(images)
    return torch.where(step[..., None] > 0, spread, images)


def _grey(images: Tensor) -> Tensor:
    n, channels, height, width = images.shape
    luma = to_device(torch.tensor((0.299, 0.587, 0.114)), images.device).view(1, 1, 3, 1, 1)
    pictures = images.view(n, channels // 3, 3, height, width)
    return (pictures * luma).sum(dim=2, keepdim=True).expand_as(pictures).reshape(images.shape)


# Amount -> output-to-input maps.
GEOMETRY: dict[str, Callable[[Tensor], Tensor]] = {
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "shift_x": _shift_x,
    "shift_y": _shift_y,
    "rotate": _rotate,
}
# Images and amount -> images.
COLOR: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}
NAMES = ("identity", *GEOMETRY, *COLOR)
SIGNED = frozenset((*GEOMETRY, "brightness", "contrast", "saturation", "sharpness"))
# Full strength: slants and shares of the height, degrees, factors, bits, grey levels.
WIDE = {
    "shear_x": 0.99,
    "shear_y": 0.99,
    "shift_x": 0.14,
    "shift_y": 0.14,
    "rotate": 135.0,
    "brightness": 0.99,
    "contrast": 0.99,
    "saturation": 0.99,
    "sharpness": 0.99,
    "posterize": 6.0,
    "solarize": 255.0,
}
RAND = {
    "shear_x": 0.3,
    "shear_y": 0.3,
    "shift_x": 0.45,
    "shift_y": 0.45,
    "rotate": 30.0,
    "brightness": 0.9,
    "contrast": 0.9,
    "saturation": 0.9,
    "sharpness": 0.9,
    "posterize": 4.0,
    "solarize": 255.0,
}
