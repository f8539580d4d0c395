"""Geometry of a batch: exact flips and turns, and one resampling for everything else."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble_kit.images.augmentation.presets import Augmentation
from ensemble_kit.images.loading.to_device import to_device

# Symmetries that are turns by 0, 90, 180 and 270 degrees.
TURNS = (0, 5, 3, 6)
_PADDING = {"reflect": "reflection", "border": "border", "white": "zeros"}


def draw_flips(
    n: int, augmentation: Augmentation, generator: torch.Generator, *, square: bool = True
) -> Tensor:
    """Which of the eight symmetries of a square each sample takes, shape (n,).

    Bits: 1 mirrored left to right, 2 upside down, 4 then transposed. Quarter turns alone give the
    four without mirror images; with a flip they give all eight.
    """
    flips = torch.rand(3, n, generator=generator) < 0.5
    across, down = augmentation.flip_horizontal, augmentation.flip_vertical
    turns = augmentation.quarter_turns and square
    if turns and not (across or down):
        return torch.tensor(TURNS)[flips[0] + 2 * flips[1]]
    allowed = (across or turns, down or turns, turns)
    return sum(
        (flips[k].long() * (allowed[k] << k) for k in range(3)), torch.zeros(n, dtype=torch.long)
    )


def flipped(images: Tensor, flips: Tensor) -> Tensor:
    """Images (n, channels, height, width), flipped and turned exactly, without resampling."""
    out = images.clone()
    for flip in flips.unique().tolist():
        if flip:
            rows = to_device(torch.nonzero(flips == flip)[:, 0], images.device)
            turned = images[rows]
            axes = [axis for bit, axis in ((1, 3), (2, 2)) if flip & bit]
            turned = turned.flip(axes) if axes else turned
            out[rows] = turned.transpose(2, 3) if flip & 4 else turned
    return out


def flip_maps(flips: Tensor) -> Tensor:
    """Output-to-input maps of the symmetries, shape (n, 2, 2)."""
    across = 1.0 - 2 * (flips & 1)
    down = 1.0 - (flips & 2)
    mirror = torch.diag_embed(torch.stack([across, down], dim=1))
    swap = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    return torch.where((flips & 4)[:, None, None] > 0, mirror @ swap, mirror)


def uniform(n: int, width: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(n, generator=generator) * 2 - 1) * width


def affine_maps(n: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Output-to-input maps in units of half the image height, shape (n, 2, 3)."""
    angle = uniform(n, math.radians(augmentation.rotation), generator)
    scale_x = 1 + uniform(n, augmentation.zoom, generator)
    scale_y = (
        scale_x if augmentation.zoom_together else 1 + uniform(n, augmentation.zoom, generator)
    )
    shear = uniform(n, augmentation.shear, generator)
    shift = torch.stack([uniform(n, 2 * augmentation.shift, generator) for _ in range(2)], dim=1)
    cos, sin = angle.cos(), angle.sin()
    # turn @ [[1, shear], [0, 1]] @ diag(scale)
    rows = [
        cos * scale_x,
        (cos * shear - sin) * scale_y,
        sin * scale_x,
        (sin * shear + cos) * scale_y,
    ]
    return torch.cat([torch.stack(rows, dim=1).view(n, 2, 2), shift[:, :, None]], dim=2)


def resampled(images: Tensor, maps: Tensor, fill: str) -> Tensor:
    height, width = images.shape[2:]
    maps = to_device(maps, images.device)
    aspect = width / height
    xs = ((torch.arange(width, device=images.device) + 0.5) * 2 / width - 1) * aspect
    ys = (torch.arange(height, device=images.device) + 0.5) * 2 / height - 1
    a, b, c = maps.unbind(dim=2)  # (n, 2) each
    unit = to_device(torch.tensor([aspect, 1.0]), images.device)
    across = (a / unit)[:, None] * xs[:, None]  # (n, width, 2)
    down = (b / unit)[:, None] * ys[:, None] + (c / unit)[:, None]  # (n, height, 2)
    # By hand: torch's affine_grid takes as long as the sampling itself on a CPU. As complex
    # numbers both coordinates are one sum over contiguous memory.
    total = torch.view_as_complex(across)[:, None, :] + torch.view_as_complex(down)[:, :, None]
    grid = torch.view_as_real(total)  # (n, height, width, 2)
    if fill == "white":
        images = images - 255
    out = F.grid_sample(
        images, grid, mode="bilinear", padding_mode=_PADDING[fill], align_corners=False
    )
    return out.add_(255) if fill == "white" else out
