"""The layer of a network for Grad-CAM, and its output as a grid of cells.

Supported are the networks of this package, and timm networks with `feature_info`.
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
        0 if unknown. The output is then (n, channels, height, width).
    reduction : int
        Input pixels per cell and side, or 0 if unknown.
    n_prefix : int
        Number of tokens before the image tokens: class tokens and registers.
    network : str
        Name of the network in errors.
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
        raise self.refused(f"returns an array of shape {tuple(output.shape)}")

    def refused(self, what: str) -> DataError:
        """The error for a layer without a grid of cells."""
        return DataError(
            f"The layer '{self.name}' of the network '{self.network}' {what}",
            "Grad-CAM needs a grid of cells or of tokens",
            OTHER_METHODS,
        )


def target_layer(model: nn.Module, *, name: str = "") -> TargetLayer:
    """The last stage of a network before its pooling. For a transformer: `norm1` of its last block.

    Parameters
    ----------
    model : torch.nn.Module
    name : str
        Name of the network in errors.

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
            "the networks of this package, and timm networks with feature_info, have one",
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
    """The last layer before the pooling, for the networks of this package."""
    pools = nn.MaxPool2d | nn.AdaptiveAvgPool2d
    last = max(i for i, one in enumerate(stages) if not isinstance(one, pools))
    return TargetLayer(f"stages.{last}", stages[last], network=name)


def _stages(model: nn.Module) -> list[dict[str, Any]]:
    """timm's description of the stages that exist in the model, in order."""
    described: Any = getattr(model, "feature_info", None) or ()
    every = getattr(described, "info", described)
    modules = dict(model.named_modules())
    return [dict(one) for one in every if one.get("module") in modules]


def _last_norm(model: nn.Module, stage: str) -> str:
    """The layer's name. After a transformer's last block, patches have no gradient if only the class
    token reaches the head. Its `norm1` is used instead.
    """
    is_transformer = (
        hasattr(model, "num_prefix_tokens") or getattr(model, "output_fmt", "") == "NHWC"
    )
    norms = [
        name
        for name, _ in model.named_modules()
        if name.startswith(f"{stage}.") and name.endswith(".norm1")
    ]
    # In Swin V2, norms follow the attention and see only that branch of the block.
    before_attention = not type(model).__name__.startswith("SwinTransformerV2")
    return norms[-1] if is_transformer and norms and before_attention else stage
