"""Maps in the space of the input: integrated gradients, GradientSHAP and occlusion.

Maps are signed and summed over colour channels. They do not depend on the other images of the batch.

References
----------
Sundararajan, M., Taly, A., & Yan, Q. (2017). Axiomatic attribution for deep networks. ICML.
Lundberg, S. M., & Lee, S.-I. (2017). A unified approach to interpreting model predictions. NeurIPS.
Zeiler, M. D., & Fergus, R. (2014). Visualizing and understanding convolutional networks. ECCV.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn

STEPS = 32
# Cells of occlusion on the shorter side.
CELLS = 8
SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class InputPass:
    """A batch, its logits, and a white image as the baseline (no tissue).

    Parameters
    ----------
    model : torch.nn.Module
    images, white : Tensor, shape (n, channels, height, width) and (1, channels, height, width)
        Normalised inputs of the network.
    name : str
        Name of the network in errors.
    """

    model: nn.Module
    images: Tensor
    white: Tensor
    name: str = ""

    @property
    def logits(self) -> Tensor:
        """Logits, shape (n, n_outputs)."""
        with torch.no_grad():
            found: Tensor = self.model(self.images)
        return found

    def maps(self, directions: Tensor) -> Tensor:
        """Signed maps of the scores `(logits * direction).sum(1)`; see `HookedPass.maps`."""
        raise NotImplementedError


class IntegratedGradients(InputPass):
    """The mean gradient on the straight line from a white image, times the difference to it."""

    def maps(self, directions: Tensor) -> Tensor:
        """Signed maps, shape (n_directions, n, height, width)."""
        total = torch.zeros(len(directions), *self.images[:, 0].shape, device=self.images.device)
        for start, share in self._path():
            way = self.images - start
            point = (start + share * way).detach().requires_grad_()
            with torch.enable_grad():
                scores = (self.model(point)[None] * directions).sum(dim=(1, 2))
            for d, score in enumerate(scores):
                (slope,) = torch.autograd.grad(score, point, retain_graph=d + 1 < len(scores))
                total[d] += (slope * way).sum(dim=1)
        return total / STEPS

    def _path(self) -> Iterator[tuple[Tensor, float]]:
        """The baseline of each step, and the step's position between baseline (0) and image (1)."""
        for k in range(STEPS):
            yield self.white, (k + 0.5) / STEPS


class GradientShap(IntegratedGradients):
    """Integrated gradients at random points, from white and the image's mean colour alternately."""

    def _path(self) -> Iterator[tuple[Tensor, float]]:
        draws = torch.rand(STEPS, generator=torch.Generator().manual_seed(SEED))
        mean = self.images.mean(dim=(2, 3), keepdim=True)
        for k, draw in enumerate(draws.tolist()):
            # For each baseline: one random point in each of STEPS / 2 equal intervals.
            yield (self.white, mean)[k % 2], (k // 2 + draw) / (STEPS / 2)


class Occlusion(InputPass):
    """The decrease of the score if a cell is covered with white."""

    def maps(self, directions: Tensor) -> Tensor:
        """Signed maps, shape (n_directions, n, rows, columns): `CELLS` on the shorter side."""
        height, width = self.images.shape[2:]
        cell = max(min(height, width) // CELLS, 1)
        rows, columns = -(-height // cell), -(-width // cell)
        whole = self._scores(self.images, directions)
        out = torch.empty(*whole.shape, rows, columns, device=whole.device)
        for r in range(rows):
            for c in range(columns):
                covered = self.images.clone()
                covered[:, :, r * cell : (r + 1) * cell, c * cell : (c + 1) * cell] = self.white[
                    :, :, :1, :1
                ]
                out[..., r, c] = whole - self._scores(covered, directions)
        return out

    def _scores(self, images: Tensor, directions: Tensor) -> Tensor:
        with torch.no_grad():
            return (self.model(images)[None] * directions).sum(dim=2)
