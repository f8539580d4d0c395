"""Augmentation and normalisation of a batch of tiles, on whatever device they lie.

One resampling for all geometry, one folded colour matrix with the normalisation in it; every
sample draws its own. Does not know labels, files or epochs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_kit.errors import UsageError
from ensemble_kit.images.presets import PRESETS, Augmentation

__all__ = ["PRESETS", "Augmentation", "augment_batch"]

_LUMA = (0.299, 0.587, 0.114)
_PADDING = {"reflect": "reflection", "border": "border", "white": "zeros"}


def augment_batch(
    tiles_uint8: Tensor,
    augmentation: Augmentation | None,
    *,
    generator: torch.Generator,
    mean: Sequence[float],
    std: Sequence[float],
    size: int | None = None,
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
    mean, std : sequence of float, length channels or 3
        In units of 0 .. 1.
    size : int or None
        Height in pixels of the output (the width keeps the shape); resized first, antialiased
        bicubic.

    Returns
    -------
    Tensor of float32, shape (batch, channels, height, width)
        `(clip(image, 0, 1) - mean) / std`.

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
    mean, std = _per_channel("mean", mean, channels), _per_channel("std", std, channels)
    if augmentation is None or augmentation.is_identity:
        return _normalised(_resized(tiles_uint8, size), mean, std)
    images = _resized(_flipped(tiles_uint8, augmentation, generator), size)
    if augmentation.stain:
        from ensemble_kit.images.stains import jitter_stains

        images = jitter_stains(images, augmentation.stain, generator=generator)
    if augmentation.policy != "none":
        from ensemble_kit.images.policy import apply_policy

        images = apply_policy(
            images, augmentation.policy, fill=augmentation.fill, generator=generator
        )
    if augmentation.has_affine:
        images = _resampled(
            images, _affine(len(images), augmentation, generator), augmentation.fill
        )
    if not augmentation.has_color:
        return _normalised(images, mean, std)
    return _recolored(images, augmentation, generator, mean, std)


def _per_channel(name: str, values: Sequence[float], channels: int) -> list[float]:
    numbers = [float(v) for v in values]
    if len(numbers) not in (3, channels) or channels % 3:
        raise UsageError(
            f"{name} has one value per channel",
            f"got {len(numbers)} for {channels} channels",
            "Give 3 or all of them",
        )
    return numbers if len(numbers) == channels else numbers * (channels // 3)


def _resized(tiles: Tensor, size: int | None) -> Tensor:
    """Float images of 0 .. 255, shape (batch, channels, height, width)."""
    images = tiles.permute(0, 3, 1, 2).contiguous().float()
    height, width = images.shape[2:]
    if size is None or size == height:
        return images
    shape = (size, round(size * width / height))
    return F.interpolate(images, shape, mode="bicubic", antialias=True, align_corners=False).clamp_(
        0, 255
    )


def _normalised(images: Tensor, mean: list[float], std: list[float]) -> Tensor:
    # In place: `images` is always a fresh copy here. White fill may lie a hair outside 0 .. 255.
    for c, (m, s) in enumerate(zip(mean, std, strict=True)):
        images[:, c].clamp_(0, 255).mul_(1 / (255 * s)).sub_(m / s)
    return images


def _flipped(tiles: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Mirrored and turned by quarters on the stored bytes: exact, no resampling."""
    n = len(tiles)
    draws = torch.rand(3, n, generator=generator).to(tiles.device)
    if augmentation.flip_horizontal:
        tiles = torch.where((draws[0] < 0.5)[:, None, None, None], tiles.flip(2), tiles)
    if augmentation.flip_vertical:
        tiles = torch.where((draws[1] < 0.5)[:, None, None, None], tiles.flip(1), tiles)
    if augmentation.quarter_turns and tiles.shape[1] == tiles.shape[2]:
        # With both flips drawn, one transposition reaches all eight poses; else half of them.
        tiles = torch.where((draws[2] < 0.5)[:, None, None, None], tiles.transpose(1, 2), tiles)
    return tiles


def _uniform(n: int, width: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(n, generator=generator) * 2 - 1) * width


def _affine(n: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Output-to-input maps in units of half the image height, shape (n, 2, 3)."""
    angle = _uniform(n, math.radians(augmentation.rotation), generator)
    scale_x = 1 + _uniform(n, augmentation.zoom, generator)
    scale_y = (
        scale_x if augmentation.zoom_together else 1 + _uniform(n, augmentation.zoom, generator)
    )
    shear = _uniform(n, augmentation.shear, generator)
    shift = torch.stack([_uniform(n, 2 * augmentation.shift, generator) for _ in range(2)], dim=1)
    cos, sin = angle.cos(), angle.sin()
    # turn @ [[1, shear], [0, 1]] @ diag(scale)
    rows = [
        cos * scale_x,
        (cos * shear - sin) * scale_y,
        sin * scale_x,
        (sin * shear + cos) * scale_y,
    ]
    return torch.cat([torch.stack(rows, dim=1).view(n, 2, 2), shift[:, :, None]], dim=2)


def _resampled(images: Tensor, maps: Tensor, fill: str) -> Tensor:
    n, _, height, width = images.shape
    maps = maps.to(images.device)
    aspect = width / height
    xs = ((torch.arange(width, device=images.device) + 0.5) * 2 / width - 1) * aspect
    ys = (torch.arange(height, device=images.device) + 0.5) * 2 / height - 1
    # By hand: torch's affine_grid takes as long as the sampling itself on a CPU.
    grid = torch.empty((n, height, width, 2), device=images.device)
    for axis, unit in ((0, aspect), (1, 1.0)):
        a, b, c = (maps[:, axis, k, None] / (unit if k < 2 else 1.0) for k in range(3))
        torch.add((a * xs)[:, None, :], (b * ys + c)[:, :, None], out=grid[..., axis])
    if fill == "white":
        images = images - 255
    out = F.grid_sample(
        images, grid, mode="bilinear", padding_mode=_PADDING[fill], align_corners=False
    )
    return out.add_(255) if fill == "white" else out


def _recolored(
    images: Tensor,
    augmentation: Augmentation,
    generator: torch.Generator,
    mean: list[float],
    std: list[float],
) -> Tensor:
    n, channels, height, width = images.shape
    k = channels // 3
    # Every picture of a sample is stained on its own, so it draws its own colours.
    pictures = images.view(n * k, 3, height, width)
    matrix, offset = _color_maps(pictures, augmentation, generator)
    scale = (
        torch.tensor([1 / (255 * s) for s in std], device=images.device)
        .view(1, k, 3)
        .expand(n, k, 3)
    )
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=images.device)
    matrix = matrix * scale.reshape(n * k, 3, 1)
    offset = offset * scale.reshape(n * k, 3) + shift.view(1, k, 3).expand(n, k, 3).reshape(
        n * k, 3
    )
    out = torch.baddbmm(offset[:, :, None], matrix, pictures.reshape(n * k, 3, height * width))
    out = out.view(n, channels, height, width)
    for c, (m, s) in enumerate(zip(mean, std, strict=True)):
        out[:, c].clamp_(-m / s, (1 - m) / s)
    return out


def _color_maps(
    pictures: Tensor, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Matrices (n, 3, 3) and offsets (n, 3) on 0 .. 255: brightness, contrast, saturation, hue."""
    n = len(pictures)
    luma = torch.tensor(_LUMA)
    brightness = 1 + _uniform(n, augmentation.brightness, generator)
    contrast = 1 + _uniform(n, augmentation.contrast, generator)
    saturation = 1 + _uniform(n, augmentation.saturation, generator)
    turn = _uniform(n, 2 * math.pi * augmentation.hue, generator)
    # Contrast pivots on the picture's mean grey; every eighth pixel gives it closely enough.
    grey = pictures[:, :, ::8, ::8].mean(dim=(2, 3)).cpu() @ luma
    identity = torch.eye(3)
    saturate = saturation[:, None, None] * identity + (1 - saturation)[:, None, None] * luma.expand(
        3, 3
    )
    matrix = _hue_rotation(turn) @ saturate * (brightness * contrast)[:, None, None]
    # Saturation and hue keep greys, so the grey offset passes through them unchanged.
    offset = ((1 - contrast) * brightness * grey)[:, None].expand(n, 3)
    return matrix.to(pictures.device), offset.to(pictures.device)


def _hue_rotation(turn: Tensor) -> Tensor:
    """Rotations of RGB about the grey axis (Rodrigues), shape (n, 3, 3)."""
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None] / math.sqrt(3)
    third = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return cos * torch.eye(3) + (1 - cos) * third + sin * cross
