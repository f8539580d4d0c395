"""Augments and normalises a batch of tiles, on the CPU or a GPU.

Random numbers are drawn per sample, on the CPU, before anything is computed. So they are the same
on every device and for every block size. All geometry is one resampling. All colour jitter and the
normalisation are one matrix. Other colour spaces come last, because augmentation works on RGB.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_kit.errors import UsageError
from ensemble_kit.images.augmentation.color_jitter import draw_colors, recolored
from ensemble_kit.images.augmentation.color_space import color_channels, in_color
from ensemble_kit.images.augmentation.geometry import (
    affine_maps,
    draw_flips,
    flip_maps,
    flipped,
    resampled,
)
from ensemble_kit.images.augmentation.presets import PRESETS, Augmentation
from ensemble_kit.images.augmentation.rand_augment import Round, apply_policy, draw_policy
from ensemble_kit.images.augmentation.stain_jitter import draw_stains, restained

# Samples per block. On a CPU the buffers of a small block fit into the cache, which halves the
# time. On a GPU large blocks need few launches; the buffers have at most this many numbers.
CPU_BLOCK = 16
GPU_NUMBERS = 2**25

__all__ = ["PRESETS", "Augmentation", "augment_batch"]


def augment_batch(
    tiles_uint8: Tensor,
    augmentation: Augmentation | None,
    *,
    generator: torch.Generator,
    mean: Sequence[float],
    std: Sequence[float],
    size: int | None = None,
    color: str = "rgb",
) -> Tensor:
    """Normalised images of a batch, each augmented on its own.

    Parameters
    ----------
    tiles_uint8 : Tensor of uint8, shape (batch, height, width, channels)
        Channels are a multiple of three; each triplet is one RGB image of the sample.
    augmentation : Augmentation or None
        None only normalises.
    generator : torch.Generator
        On the CPU, so that the random numbers are the same on every device.
    mean, std : sequence of float, one per channel, or per channel of one picture
        In units of 0 .. 1, or of the colour space.
    size : int or None
        Height in pixels of the output (the width keeps the shape); resized first, antialiased
        bicubic.
    color : {"rgb", "grayscale", "hed", "lab"}
        What the images are converted to, after all augmentation; see
        `ensemble_kit.images.augmentation.color_space`.

    Returns
    -------
    Tensor of float32, shape (batch, channels, height, width)
        `(clip(image, 0, 1) - mean) / std`; in other colour spaces than RGB,
        `(in_color(clip(image, 0, 255), color) - mean) / std`.

    Raises
    ------
    UsageError
        `mean` or `std` of another length.

    Examples
    --------
    >>> tiles = torch.full((2, 8, 8, 3), 255, dtype=torch.uint8)
    >>> out = augment_batch(tiles, PRESETS["light"], generator=torch.Generator().manual_seed(0),
    ...                     mean=[0.5] * 3, std=[0.5] * 3)
    >>> tuple(out.shape), bool(out.max() <= 1)
    ((2, 3, 8, 8), True)
    """
    channels = tiles_uint8.shape[3]
    if channels % 3:
        raise UsageError(
            f"The tiles have {channels} channels",
            "augmentation needs three channels per picture",
            "Decode them as RGB",
        )
    n_channels = color_channels(color, channels)
    mean, std = (
        _per_channel(name, values, n_channels, channels // 3)
        for name, values in (("mean", mean), ("std", std))
    )
    plain = ([0.0] * channels, [1 / 255] * channels)
    first = plain if color != "rgb" else (mean, std)
    height, width = tiles_uint8.shape[1:3]
    shape = (height, width) if size is None else (size, round(size * width / height))
    n, device = len(tiles_uint8), tiles_uint8.device
    out = torch.empty((n, channels, *shape), device=device)
    drawn = None
    if augmentation is not None and not augmentation.is_identity:
        drawn = _draw(n, channels // 3, augmentation, generator, square=height == width)
    block = _write_in_blocks(tiles_uint8, drawn, *first, out)
    if color == "rgb":
        return out
    blocks = [_scaled(in_color(part, color), mean, std) for part in out.split(block)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _write_in_blocks(
    tiles: Tensor, drawn: _Draws | None, mean: list[float], std: list[float], out: Tensor
) -> int:
    """Fill `out` block by block, in smaller blocks if memory runs out; return the last size."""
    block = CPU_BLOCK
    if tiles.device.type != "cpu":
        block = max(CPU_BLOCK, GPU_NUMBERS // math.prod(out.shape[1:]))
    start = 0
    while start < len(tiles):
        some = slice(start, start + block)
        try:
            _write(tiles[some], drawn and drawn.of(some), mean, std, out[some])
        except torch.OutOfMemoryError:
            if block == 1:
                raise
            block = max(block // 2, 1)
        else:
            start += block
    return block


@dataclasses.dataclass(frozen=True, eq=False)
class _Draws:
    """The random changes of each sample; None or empty for changes that are off."""

    fill: str
    flips: Tensor
    stains: tuple[Tensor, ...] | None
    rounds: list[Round]
    maps: Tensor | None
    colors: tuple[Tensor, ...] | None

    def of(self, some: slice) -> _Draws:
        """The changes of some samples."""
        return _Draws(
            self.fill,
            self.flips[some],
            self.stains and tuple(t[some] for t in self.stains),
            [(chosen[some], amount[some]) for chosen, amount in self.rounds],
            None if self.maps is None else self.maps[some],
            self.colors and tuple(t[some] for t in self.colors),
        )


def _draw(
    n: int, n_pictures: int, augmentation: Augmentation, generator: torch.Generator, *, square: bool
) -> _Draws:
    """Random changes of `n` samples; the stain of each picture of a sample is drawn separately."""
    shape = (n, n_pictures)
    flips = draw_flips(n, augmentation, generator, square=square)
    stains = maps = colors = None
    if augmentation.stain:
        found = draw_stains(n * n_pictures, augmentation.stain, generator)
        stains = tuple(t.unflatten(0, shape) for t in found)
    rounds = draw_policy(n, augmentation.policy, generator)
    if augmentation.has_affine:
        maps = flip_maps(flips) @ affine_maps(n, augmentation, generator)
    if augmentation.has_color:
        found = draw_colors(n * n_pictures, augmentation, generator)
        colors = tuple(t.unflatten(0, shape) for t in found)
    return _Draws(augmentation.fill, flips, stains, rounds, maps, colors)


def _write(
    tiles_uint8: Tensor, drawn: _Draws | None, mean: list[float], std: list[float], out: Tensor
) -> None:
    """Write the normalised images (batch, channels, height, width) of these tiles to `out`."""
    planar = tiles_uint8.permute(0, 3, 1, 2)
    if drawn is None:
        _normalise(_resized(planar, out.shape[2:]), mean, std, out)
        return
    # If images are resampled anyway, flips and turns are part of it; else they are exact.
    whole = flipped(planar, drawn.flips) if drawn.maps is None else planar
    images = _resized(whole, out.shape[2:])
    if drawn.stains:
        images = restained(images, *(t.flatten(0, 1) for t in drawn.stains))
    images = apply_policy(images, drawn.rounds, fill=drawn.fill)
    if drawn.maps is not None:
        images = resampled(images, drawn.maps, drawn.fill)
    if drawn.colors:
        matrix, pivot = (t.flatten(0, 1) for t in drawn.colors)
        recolored(images, matrix, pivot, mean, std, out)
    else:
        _normalise(images, mean, std, out)


def _per_channel(name: str, values: Sequence[float], channels: int, n_pictures: int) -> list[float]:
    numbers = [float(v) for v in values]
    if len(numbers) not in (channels // n_pictures, channels):
        raise UsageError(
            f"{name} has {len(numbers)} values for {channels} channels",
            f"it needs {channels // n_pictures} or {channels} values",
            "Give one value per channel",
        )
    return numbers if len(numbers) == channels else numbers * n_pictures


def _scaled(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
    for c, (m, s) in enumerate(zip(mean, std, strict=True)):
        images[:, c].sub_(m).mul_(1 / s)
    return images


def _resized(planar: Tensor, shape: torch.Size) -> Tensor:
    """Float images of 0 .. 255, shape (batch, channels, *shape)."""
    images = planar.to(torch.float32, memory_format=torch.contiguous_format)
    if shape[0] == images.shape[2]:
        return images
    return F.interpolate(
        images, list(shape), mode="bicubic", antialias=True, align_corners=False
    ).clamp_(0, 255)


def _normalise(images: Tensor, mean: list[float], std: list[float], out: Tensor) -> None:
    # White fill may be slightly outside 0 .. 255.
    for c, (m, s) in enumerate(zip(mean, std, strict=True)):
        torch.clamp(images[:, c], 0, 255, out=out[:, c]).mul_(1 / (255 * s)).sub_(m / s)
