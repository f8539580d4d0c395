"""Stain augmentation: haematoxylin, eosin and DAB are separated, and each is made stronger or weaker.

Vectors: Ruifrok & Johnston, Anal Quant Cytol Histol 23:291-299, 2001. As augmentation: Tellez et
al., IEEE TMI 37(9):2126-2136, 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_kit.images.augmentation.geometry import uniform
from ensemble_kit.images.loading.to_device import to_device

# Optical densities of red, green, blue: haematoxylin, eosin, DAB; unit length each.
STAIN_VECTORS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
# Shift of a stain's amount over the whole image, as a share of `spread`.
_SHIFT = 0.1


def draw_stains(n: int, spread: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random stain changes of `n` pictures: each stain is multiplied by 1 - spread .. 1 + spread.

    Optical density is linear in the stains, so this is one matrix and one offset for it: shapes
    (n, 3, 3) and (n, 3, 1).
    """
    vectors = torch.tensor(STAIN_VECTORS)
    scale = 1 + uniform(3 * n, spread, generator).view(-1, 1, 3)
    shift = uniform(3 * n, _SHIFT * spread, generator).view(-1, 1, 3)
    # Densities are columns here: density' = vectors.T @ diag(scale) @ inv(vectors.T) @ density.
    matrix = (vectors.T * scale) @ torch.linalg.inv(vectors.T)
    return matrix, (vectors.T * shift).sum(dim=2, keepdim=True)


def restained(images: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Images whose optical densities are `matrix @ density + offset`.

    Parameters
    ----------
    images : Tensor of float, shape (batch, channels, height, width)
        0 .. 255; every triplet of channels is one picture with its own stains.
    matrix, offset : Tensor
        As `draw_stains` gives them, one for each picture.

    Returns
    -------
    Tensor of float, same shape
        0 .. 255.

    Examples
    --------
    >>> white = torch.full((1, 3, 8, 8), 255.0)
    >>> drawn = draw_stains(1, 0.0, torch.Generator().manual_seed(0))
    >>> torch.allclose(restained(white, *drawn), white)
    True
    """
    height, width = images.shape[2:]
    pictures = images.reshape(len(matrix), 3, height * width)
    # One grey level is added so that black has a density; it is subtracted again.
    density = -torch.log10((pictures + 1) / 256)
    changed = torch.baddbmm(
        to_device(offset, images.device), to_device(matrix, images.device), density
    )
    return (torch.pow(10.0, -changed) * 256 - 1).clamp_(0, 255).view(images.shape)
