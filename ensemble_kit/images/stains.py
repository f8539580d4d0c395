"""Stain augmentation: haematoxylin, eosin and DAB separated, each made stronger or weaker.

Does not know slides or scanners. Vectors: Ruifrok & Johnston, Anal Quant Cytol Histol 23:291-299,
2001; as augmentation: Tellez et al., IEEE TMI 37(9):2126-2136, 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ensemble_kit.images.geometry import uniform
from ensemble_kit.images.send import sent

# Optical densities of red, green, blue: haematoxylin, eosin, DAB; unit length each.
STAIN_VECTORS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
# Shift of a stain's amount as a share of `spread`: a haze over the whole field.
_HAZE = 0.1


def jitter_stains(images: Tensor, spread: float, *, generator: torch.Generator) -> Tensor:
    """Images whose three stains are scaled by 1 - spread .. 1 + spread, each on its own.

    Optical density is linear in the stains, so this is one 3 x 3 matrix between a logarithm and
    an exponential.

    Parameters
    ----------
    images : Tensor of float, shape (batch, channels, height, width)
        0 .. 255; every triplet of channels is a picture with stains of its own.
    spread : float
        0 leaves images alone.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    Tensor of float, same shape
        0 .. 255.

    Examples
    --------
    >>> white = torch.full((1, 3, 8, 8), 255.0)
    >>> out = jitter_stains(white, 0.0, generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(out, white)
    True
    """
    n, channels, height, width = images.shape
    pictures = images.reshape(n * (channels // 3), 3, height * width)
    vectors = torch.tensor(STAIN_VECTORS)
    scale = 1 + uniform(3 * len(pictures), spread, generator).view(-1, 1, 3)
    haze = uniform(3 * len(pictures), _HAZE * spread, generator).view(-1, 1, 3)
    # Densities are columns here: density' = vectors.T @ diag(scale) @ inv(vectors.T) @ density.
    matrix = (vectors.T * scale) @ torch.linalg.inv(vectors.T)
    offset = (vectors.T * haze).sum(dim=2, keepdim=True)
    # One grey level is added so that black has a density; it comes off again.
    density = -torch.log10((pictures + 1) / 256)
    changed = torch.baddbmm(sent(offset, images.device), sent(matrix, images.device), density)
    return (torch.pow(10.0, -changed) * 256 - 1).clamp_(0, 255).view(n, channels, height, width)
