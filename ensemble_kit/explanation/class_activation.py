"""Grad-CAM and Layer-CAM of a batch in one pass: gradients run from the logits to one layer only.

Maps are signed: what speaks against the score is negative.

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
    """A batch that went through a network once, with the graph behind the target layer.

    Parameters
    ----------
    logits : Tensor, shape (n, n_outputs)
    features : Tensor
        Output of the layer.
    weigh : callable
        Map of activations and gradients, both (n, channels, height, width).
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
    model: nn.Module,
    target: TargetLayer,
    images: Tensor,
    weigh: Callable[[Tensor, Tensor], Tensor],
) -> HookedPass:
    """One forward pass of a batch that keeps the output of `target`.

    Parameters
    ----------
    model : torch.nn.Module
        In evaluation mode; its parameters need no gradients.
    images : Tensor, shape (n, channels, height, width)

    Raises
    ------
    DataError
        The network does not use the layer, or the layer does not give one array.
    """
    kept: list[Tensor] = []

    def cut(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise target.refused(f"gives {len(output)} arrays")
        kept.append(output.detach().requires_grad_())
        return kept[-1].clone()  # what follows may change it in place

    handle = target.module.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            logits = model(images)
    finally:
        handle.remove()
    if not kept:
        raise target.refused("is not used by it")
    height, width = images.shape[2:]
    return HookedPass(logits, kept[-1], target, (height, width), weigh)


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighted by their mean gradient."""
    return torch.einsum("nk,nkhw->nhw", gradients.mean(dim=(2, 3)), activations)


def layercam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Each cell of each channel weighted by its own positive gradient."""
    return (gradients.clamp(min=0) * activations).sum(dim=1)
