"""Colour jitter of a batch as one 3 x 3 matrix per picture, which includes the normalisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ensemble_kit.images.augmentation.geometry import uniform
from ensemble_kit.images.augmentation.presets import Augmentation
from ensemble_kit.images.loading.to_device import to_device

LARGE = 128
LUMA = (0.299, 0.587, 0.114)


def recolored(
    images: Tensor,
    matrix: Tensor,
    pivot: Tensor,
    mean: list[float],
    std: list[float],
    out: Tensor,
) -> None:
    """Write the jittered and normalised `images`, both (n, channels, height, width), to `out`.

    `matrix` and `pivot` are as `draw_colors` gives them, for each picture: each triplet of channels.
    """
    n, channels, height, width = images.shape
    k = channels // 3
    pictures = images.view(n * k, 3, height, width)
    matrix, offset = color_maps(pictures, matrix, pivot)
    steps = torch.tensor([1 / (255 * s) for s in std])
    scale = to_device(steps, images.device).view(1, k, 3).expand(n, k, 3)
    middles = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)])
    shift = to_device(middles, images.device)
    matrix = matrix * scale.reshape(n * k, 3, 1)
    offset = offset * scale.reshape(n * k, 3) + shift.view(1, k, 3).expand(n, k, 3).reshape(
        n * k, 3
    )
    flat = (n * k, 3, height * width)
    torch.baddbmm(offset[:, :, None], matrix, pictures.view(flat), out=out.view(flat))
    for c, (m, s) in enumerate(zip(mean, std, strict=True)):
        out[:, c].clamp_(-m / s, (1 - m) / s)


def draw_colors(
    n: int, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Random colour changes of `n` pictures: brightness, contrast, saturation, hue.

    Matrices (n, 3, 3) on 0 .. 255, and what each picture's mean grey is multiplied by and added.
    """
    luma = torch.tensor(LUMA)
    brightness = 1 + uniform(n, augmentation.brightness, generator)
    contrast = 1 + uniform(n, augmentation.contrast, generator)
    saturation = 1 + uniform(n, augmentation.saturation, generator)
    turn = uniform(n, 2 * math.pi * augmentation.hue, generator)
    identity = torch.eye(3)
    saturate = saturation[:, None, None] * identity + (1 - saturation)[:, None, None] * luma.expand(
        3, 3
    )
    matrix = hue_rotation(turn) @ saturate * (brightness * contrast)[:, None, None]
    # Saturation and hue keep greys, so a grey offset passes through them unchanged.
    return matrix, (1 - contrast) * brightness


def color_maps(pictures: Tensor, matrix: Tensor, pivot: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices (n, 3, 3) and offsets (n, 3) of these pictures, on their device."""
    device = pictures.device
    # Contrast changes around the picture's mean grey; for large pictures every eighth pixel is enough.
    step = 8 if min(pictures.shape[2:]) >= LARGE else 1
    grey = pictures[:, :, ::step, ::step].mean(dim=(2, 3)) @ to_device(torch.tensor(LUMA), device)
    offset = (to_device(pivot, device) * grey)[:, None].expand(len(pictures), 3)
    return to_device(matrix, device), offset


def hue_rotation(turn: Tensor) -> Tensor:
    """Rotations of RGB about the grey axis (Rodrigues), shape (n, 3, 3)."""
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None] / math.sqrt(3)
    third = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return cos * torch.eye(3) + (1 - cos) * third + sin * cross
