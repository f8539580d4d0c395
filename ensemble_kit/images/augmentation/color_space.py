"""Colour spaces for networks: RGB, luma, stain amounts (HED), CIE L*a*b*.

Batches are converted after augmentation. So augmentation always works on RGB, and all colour spaces
share one set of tiles.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.images.augmentation.color_jitter import LUMA
from ensemble_kit.images.augmentation.stain_jitter import STAIN_VECTORS
from ensemble_kit.images.loading.to_device import to_device

COLORS = ("rgb", "grayscale", "hed", "lab")
# Means over 329 BreakHis images at 100X, and one to two times their spread, rounded. Stronger stains
# and the DAB of IHC (nearly absent in BreakHis) stay within a few spreads.
_HED = ((0.12, 0.04, 0.11), (0.1, 0.1, 0.1))
_LAB = ((72.0, 15.0, -8.0), (20.0, 20.0, 20.0))
# Linear light of sRGB to CIE XYZ at the white point D65 (IEC 61966-2-1).
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))  # fmt: skip
_KNEE = 6 / 29


def in_color(images: Tensor, color: str) -> Tensor:
    """RGB images in another colour space.

    Parameters
    ----------
    images : Tensor of float, shape (batch, 3 k, height, width)
        0 .. 255; each triplet of channels is one picture.
    color : {"rgb", "grayscale", "hed", "lab"}
        `grayscale` is luma of 0 .. 1 (ITU-R 601), one channel a picture. `hed` is the amounts of
        haematoxylin, eosin and DAB in decadic optical density, unclipped (Ruifrok & Johnston,
        Anal Quant Cytol Histol 23:291-299, 2001). `lab` is CIE L*a*b* at D65: 0 .. 100, and about
        -128 .. 127 twice.

    Returns
    -------
    Tensor of float, shape (batch, channels k, height, width)

    Raises
    ------
    UsageError
        An unknown colour space.

    Examples
    --------
    >>> white = torch.full((1, 3, 1, 1), 255.0)
    >>> [round(abs(v), 3) for v in in_color(white, "lab").flatten().tolist()]
    [100.0, 0.0, 0.0]
    """
    if color == "rgb":
        return images
    n, channels, height, width = images.shape
    pictures = images.reshape(n, channels // 3, 3, height * width)
    if color == "grayscale":
        made = _on_device_of(images, torch.tensor(LUMA).div(255)) @ pictures
    elif color == "hed":
        made = _stain_amounts(pictures)
    elif color == "lab":
        made = _lab(pictures)
    else:
        raise UsageError(
            f"Unknown colour space '{color}'",
            f"the colour spaces are {', '.join(COLORS)}",
            did_you_mean(color, COLORS),
        )
    return made.reshape(n, -1, height, width)


def color_channels(color: str, rgb_channels: int) -> int:
    """The number of input channels of a network for tiles with `rgb_channels`."""
    return rgb_channels // 3 if color == "grayscale" else rgb_channels


def color_statistics(
    color: str, mean: Sequence[float], std: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and standard deviation of a picture's channels, for a network with RGB `mean` and `std`.

    Luma uses the values of RGB. The other spaces have fixed values, which do not depend on a fold.

    Examples
    --------
    >>> mean, std = color_statistics("grayscale", [0.5, 0.5, 0.5], [0.2, 0.2, 0.2])
    >>> round(mean[0], 6), round(std[0], 6)
    (0.5, 0.2)
    """
    if color == "grayscale":
        of_luma = [sum(w * v for w, v in zip(LUMA, values, strict=True)) for values in (mean, std)]
        return (of_luma[0],), (of_luma[1],)
    if color == "rgb":
        return tuple(mean), tuple(std)
    return {"hed": _HED, "lab": _LAB}[color]


def _on_device_of(images: Tensor, constant: Tensor) -> Tensor:
    # A trace keeps the device of `to_device`, and follows `type_as`.
    return to_device(constant, images.device).type_as(images)


def _stain_amounts(pictures: Tensor) -> Tensor:
    # One grey level is added, so that black has a density.
    density = -torch.log10((pictures + 1) / 256)
    to_amounts = torch.linalg.inv(torch.tensor(STAIN_VECTORS, dtype=torch.float64)).T
    return _on_device_of(density, to_amounts.to(density.dtype)) @ density


def _lab(pictures: Tensor) -> Tensor:
    share = pictures / 255
    light = torch.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055).pow(2.4))
    to_xyz = torch.tensor(_XYZ, dtype=torch.float64)
    to_xyz = (to_xyz / to_xyz.sum(dim=1, keepdim=True)).to(light.dtype)
    xyz = _on_device_of(light, to_xyz) @ light
    curved = torch.where(
        xyz > _KNEE**3, xyz.clamp(min=1e-9).pow(1 / 3), xyz / (3 * _KNEE**2) + 4 / 29
    )
    x, y, z = curved.unbind(dim=2)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=2)
