"""Grad-CAM and Layer-CAM of a batch in one forward pass, with gradients back to one layer only.

Maps are signed: evidence against the score is negative.

References
----------
Selvaraju, R. R., et al. (2017). Grad-CAM. ICCV. Jiang, P.-T., et al. (2021). LayerCAM. IEEE TIP 30.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ensemble_kit.explanation.target_layer import TargetLayer


@dataclasses.dataclass(frozen=True, eq=False)
class HookedPass:
    """The forward pass of a batch, with the autograd graph from the target layer on.

    Parameters
    ----------
    logits : Tensor, shape (n, n_outputs)
    features : Tensor
        Output of the layer.
    weigh : callable
        Makes maps of activations and gradients, both (n, channels, height, width).
    """

    logits: Tensor
    features: Tensor
    target: TargetLayer
    image_shape: tuple[int, int]
    weigh: Callable[[Tensor, Tensor], Tensor]

    def maps(self, directions: Tensor) -> Tensor:
        """Signed maps of the scores `(logits * direction).sum(1)`.

        Parameters
        ----------
        directions : Tensor, shape (n_directions, n, n_outputs)

        Returns
        -------
        Tensor, shape (n_directions, n, height, width)
        """
        return torch.stack([self._map(one) for one in directions])

    def _map(self, direction: Tensor) -> Tensor:
        score = (self.logits * direction).sum()
        (slope,) = torch.autograd.grad(score, self.features, retain_graph=True, allow_unused=True)
        slope = torch.zeros_like(self.features) if slope is None else slope
        activations, gradients = (
            self.target.as_grid(one.detach(), self.image_shape) for one in (self.features, slope)
        )
        return self.weigh(activations, gradients)


def hooked_pass(
    model: nn.Module, target: TargetLayer, images: Tensor, weigh: Callable[[Tensor, Tensor], Tensor]
) -> HookedPass:
    """Run a batch through a network and store the output of `target`.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode. Parameters may have gradients disabled.
    images : Tensor, shape (n, channels, height, width)

    Raises
    ------
    DataError
        The network does not use the layer, or the layer returns several arrays.
    """
    outputs: list[Tensor] = []

    def cut(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise target.refused(f"returns {len(output)} arrays")
        outputs.append(output.detach().requires_grad_())
        return outputs[-1].clone()  # later layers may change it in place

    handle = target.module.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            logits = model(images)
    finally:
        handle.remove()
    if not outputs:
        raise target.refused("is not used by the network")
    height, width = images.shape[2:]
    return HookedPass(logits, outputs[-1], target, (height, width), weigh)


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Sum of the channels, each weighted by its mean gradient."""
    return torch.einsum("nk,nkhw->nhw", gradients.mean(dim=(2, 3)), activations)


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Sum of the channels, each cell weighted by its own positive gradient."""
    return (gradients.clamp(min=0) * activations).sum(dim=1)
