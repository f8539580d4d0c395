"""The layer of a network that Grad-CAM reads, and its output as a grid of cells.

Covers the networks of timm that describe their stages, and those of this package. Computes no map.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor, nn

from ensemble_kit.errors import DataError
from ensemble_kit.members.architectures.dense_cnn import DenseCNN, WithHead
from ensemble_kit.members.architectures.small_cnn import SmallNetwork

OTHER_METHODS = "Use --maps gradientshap or --maps occlusion, which work with every network"


@dataclasses.dataclass(frozen=True, eq=False)
class TargetLayer:
    """One layer of one network.

    Parameters
    ----------
    name : str
        Its name in the network, such as `layer4`.
    module : torch.nn.Module
    n_channels : int
        0 if unknown; the output is then (n, channels, height, width).
    reduction : int
        Input pixels per cell and side; 0 if unknown.
    n_prefix : int
        Tokens before those of the image: class tokens and registers.
    network : str
        What the network is called in an error.
    """

    name: str
    module: nn.Module
    n_channels: int = 0
    reduction: int = 0
    n_prefix: int = 0
    network: str = ""

    def as_grid(self, output: Tensor, image_shape: tuple[int, int]) -> Tensor:
        """The layer's output, or its gradient, as (n, channels, height, width).

        Raises
        ------
        DataError
            The output is not a grid of cells.
        """
        if output.ndim == 4 and self.n_channels in (0, output.shape[1]):
            return output
        if output.ndim == 4 and output.shape[3] == self.n_channels:
            return output.permute(0, 3, 1, 2)
        if output.ndim == 3 and output.shape[2] == self.n_channels and self.reduction:
            height, width = (side // self.reduction for side in image_shape)
            spare = output.shape[1] - height * width
            if spare in (0, self.n_prefix):
                return output[:, spare:].transpose(1, 2).unflatten(2, (height, width))
        raise self.refused(f"gives an array of shape {tuple(output.shape)}")

    def refused(self, what: str) -> DataError:
        """The error that the layer has no grid of cells."""
        return DataError(
            f"The layer '{self.name}' of the network '{self.network}' {what}",
            "Grad-CAM needs a grid of cells, or the tokens of one",
            OTHER_METHODS,
        )


def target_layer(model: nn.Module, *, name: str = "") -> TargetLayer:
    """The last stage of a network before its pooling; of a transformer the first norm of its last block.

    Parameters
    ----------
    model : torch.nn.Module
    name : str
        What the network is called in an error.

    Raises
    ------
    DataError
        The network does not describe its stages.
    """
    if isinstance(model, WithHead):
        return target_layer(model.body, name=name)
    if isinstance(model, SmallNetwork | DenseCNN):
        return _before_pooling(model.stages, name)
    stages = _stages(model)
    if not stages:
        raise DataError(
            f"'{name or type(model).__name__}' has no known layer for Grad-CAM",
            "networks of timm with a feature_info, and those of this package, have one",
            OTHER_METHODS,
        )
    stage = stages[-1]
    found = _last_norm(model, stage["module"])
    return TargetLayer(
        found,
        model.get_submodule(found),
        int(stage["num_chs"]),
        int(stage["reduction"]),
        int(getattr(model, "num_prefix_tokens", 0)),
        name or type(model).__name__,
    )


def _before_pooling(stages: nn.Sequential, name: str) -> TargetLayer:
    """The last layer of our own networks whose cells are not pooled yet."""
    pools = nn.MaxPool2d | nn.AdaptiveAvgPool2d
    last = max(i for i, one in enumerate(stages) if not isinstance(one, pools))
    return TargetLayer(f"stages.{last}", stages[last], network=name)


def _stages(model: nn.Module) -> list[dict[str, Any]]:
    """timm's description of the stages whose modules exist, from the first to the last."""
    described: Any = getattr(model, "feature_info", None) or ()
    every = getattr(described, "info", described)
    modules = dict(model.named_modules())
    return [dict(one) for one in every if one.get("module") in modules]


def _last_norm(model: nn.Module, stage: str) -> str:
    """Behind the last block, a class token alone reaches the head: patches have no gradient there."""
    is_transformer = (
        hasattr(model, "num_prefix_tokens") or getattr(model, "output_fmt", "") == "NHWC"
    )
    norms = [
        name
        for name, _ in model.named_modules()
        if name.startswith(f"{stage}.") and name.endswith(".norm1")
    ]
    # Norms of Swin V2 stand behind the attention, and see that branch of the block alone.
    before_attention = not type(model).__name__.startswith("SwinTransformerV2")
    return norms[-1] if is_transformer and norms and before_attention else stage
