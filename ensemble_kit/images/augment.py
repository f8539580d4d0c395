"""Augmentation and normalisation of a batch of tiles, on whatever device they lie.

One resampling for all geometry, one folded colour matrix with the normalisation in it; every
sample draws its own. Other colour spaces come after it: augmentation is of RGB. Does not know
labels, files or epochs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_kit.errors import UsageError
from ensemble_kit.images.color_space import color_channels, in_color
from ensemble_kit.images.geometry import affine_maps, draw_poses, pose_maps, posed, resampled
from ensemble_kit.images.policy import apply_policy
from ensemble_kit.images.presets import PRESETS, Augmentation
from ensemble_kit.images.recolor import recolored
from ensemble_kit.images.stains import jitter_stains

# Samples that are worked on at once: their buffers stay in a processor's cache, which halves the
# time there. The same on every device, so that all of them draw alike.
BLOCK = 16

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
        `ensemble_kit.images.color_space`.

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
    out = torch.empty((len(tiles_uint8), channels, *shape), device=tiles_uint8.device)
    for block, part in zip(tiles_uint8.split(BLOCK), out.split(BLOCK), strict=True):
        _augment(block, augmentation, generator, *first, part)
    if color == "rgb":
        return out
    blocks = [_scaled(in_color(part, color), mean, std) for part in out.split(BLOCK)]
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def _augment(
    tiles_uint8: Tensor,
    augmentation: Augmentation | None,
    generator: torch.Generator,
    mean: list[float],
    std: list[float],
    out: Tensor,
) -> None:
    """Write the normalised images (batch, channels, height, width) of these tiles to `out`."""
    shape = out.shape[2:]
    if augmentation is None or augmentation.is_identity:
        _normalise(_resized(tiles_uint8.permute(0, 3, 1, 2), shape), mean, std, out)
        return
    square = tiles_uint8.shape[1] == tiles_uint8.shape[2]
    poses = draw_poses(len(tiles_uint8), augmentation, generator, square=square)
    planar = tiles_uint8.permute(0, 3, 1, 2)
    # Poses are free where images are resampled anyway; else they are exact on the stored bytes.
    images = _resized(planar if augmentation.has_affine else posed(planar, poses), shape)
    if augmentation.stain:
        images = jitter_stains(images, augmentation.stain, generator=generator)
    if augmentation.policy != "none":
        images = apply_policy(
            images, augmentation.policy, fill=augmentation.fill, generator=generator
        )
    if augmentation.has_affine:
        maps = pose_maps(poses) @ affine_maps(len(images), augmentation, generator)
        images = resampled(images, maps, augmentation.fill)
    if augmentation.has_color:
        recolored(images, augmentation, generator, mean, std, out)
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
