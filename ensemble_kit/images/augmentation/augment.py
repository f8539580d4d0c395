"""Augmentation and normalisation of a batch of tiles, on whatever device they lie.

Every sample draws its own, on the CPU and before anything is computed: the same on every device,
in however many blocks. One resampling for all geometry, one folded colour matrix with the
normalisation in it. Other colour spaces come after it: augmentation is of RGB. Does not know
labels, files or epochs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_kit.errors import UsageError
from ensemble_kit.images.augmentation.color_jitter import draw_colors, recolored
from ensemble_kit.images.augmentation.color_space import color_channels, in_color
from ensemble_kit.images.augmentation.geometry import (
    affine_maps,
    draw_poses,
    pose_maps,
    posed,
    resampled,
)
from ensemble_kit.images.augmentation.presets import PRESETS, Augmentation
from ensemble_kit.images.augmentation.rand_augment import Round, apply_policy, draw_policy
from ensemble_kit.images.augmentation.stain_jitter import draw_stains, restained

# Samples that are worked on at once. A processor's cache holds the buffers of few, which halves
# the time there; a card is given few launches, and bounded buffers: this many numbers each.
CPU_BLOCK = 16
CARD_NUMBERS = 2**25

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
        On the CPU: the same draws on every device.
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
            "Tiles have three channels a picture", f"got {channels}", "Decode them as RGB"
        )
    seen = color_channels(color, channels)
    mean, std = (
        _per_channel(name, values, seen, channels // 3)
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
    block = CPU_BLOCK
    if device.type != "cpu":
        block = max(CPU_BLOCK, CARD_NUMBERS // (channels * shape[0] * shape[1]))
    start = 0
    while start < n:
        some = slice(start, start + block)
        try:
            _write(tiles_uint8[some], drawn and drawn.of(some), *first, out[some])
        except torch.OutOfMemoryError:
            if block == 1:
                raise
            block = max(block // 2, 1)
        else:
            start += block
    if color == "rgb":
        return out
    blocks = [_scaled(in_color(part, color), mean, std) for part in out.split(block)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


@dataclasses.dataclass(frozen=True, eq=False)
class _Draws:
    """What an augmentation does to each sample; None or nothing where it does no such thing."""

    fill: str
    poses: Tensor
    stains: tuple[Tensor, ...] | None
    rounds: list[Round]
    maps: Tensor | None
    colors: tuple[Tensor, ...] | None

    def of(self, some: slice) -> _Draws:
        """What it does to some of them."""
        return _Draws(
            self.fill,
            self.poses[some],
            self.stains and tuple(t[some] for t in self.stains),
            [(chosen[some], amount[some]) for chosen, amount in self.rounds],
            None if self.maps is None else self.maps[some],
            self.colors and tuple(t[some] for t in self.colors),
        )


def _draw(
    n: int, n_pictures: int, augmentation: Augmentation, generator: torch.Generator, *, square: bool
) -> _Draws:
    """Draws for `n` samples; every picture of a sample is stained on its own, so it has its own."""
    shape = (n, n_pictures)
    poses = draw_poses(n, augmentation, generator, square=square)
    stains = maps = colors = None
    if augmentation.stain:
        found = draw_stains(n * n_pictures, augmentation.stain, generator)
        stains = tuple(t.unflatten(0, shape) for t in found)
    rounds = draw_policy(n, augmentation.policy, generator)
    if augmentation.has_affine:
        maps = pose_maps(poses) @ affine_maps(n, augmentation, generator)
    if augmentation.has_color:
        found = draw_colors(n * n_pictures, augmentation, generator)
        colors = tuple(t.unflatten(0, shape) for t in found)
    return _Draws(augmentation.fill, poses, stains, rounds, maps, colors)


def _write(
    tiles_uint8: Tensor, drawn: _Draws | None, mean: list[float], std: list[float], out: Tensor
) -> None:
    """Write the normalised images (batch, channels, height, width) of these tiles to `out`."""
    planar = tiles_uint8.permute(0, 3, 1, 2)
    if drawn is None:
        _normalise(_resized(planar, out.shape[2:]), mean, std, out)
        return
    # Poses are free where images are resampled anyway; else they are exact on the stored bytes.
    whole = posed(planar, drawn.poses) if drawn.maps is None else planar
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
            f"{name} has one value per channel",
            f"got {len(numbers)} for {channels} channels",
            f"Give {channels // n_pictures} or all of them",
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
    # White fill may lie a hair outside 0 .. 255.
    for c, (m, s) in enumerate(zip(mean, std, strict=True)):
        torch.clamp(images[:, c], 0, 255, out=out[:, c]).mul_(1 / (255 * s)).sub_(m / s)
