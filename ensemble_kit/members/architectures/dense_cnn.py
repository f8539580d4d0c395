"""CNNs with dense layers, and timm backbones with a dense head. Importing registers them with timm.

They have no published weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models import build_model_with_cfg, register_model
from timm.models._manipulate import group_with_matcher
from timm.optim import auto_group_layers
from torch import Tensor, nn

from ensemble_kit.members.architectures.small_cnn import small_config
from ensemble_kit.members.architectures.timm_factory import created


class DenseCNN(nn.Module):
    """Convolution stages, then dense layers, as in older HER2 and histology systems.

    Parameters
    ----------
    widths : tuple of int
        Channels of each 3x3 convolution; each stage ends in 2x2 max pooling.
    dense : tuple of int
        Widths of the dense layers before the classifier.
    pool : int
        Side of the pooled feature map before the dense layers. 0: no pooling, so that the network
        accepts one image size only.
    padding : int
        Padding of the convolutions; 0 is "valid".
    batch_norm : bool
    activation : {"relu", "sigmoid"}
        Activation of the dense layers.
    one_output : bool
        One sigmoid output z for two classes, returned as the two logits (0, z): their softmax is
        the sigmoid, and cross-entropy on them is binary cross-entropy on z.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        dense: tuple[int, ...],
        *,
        pool: int = 4,
        padding: int = 1,
        batch_norm: bool = False,
        activation: str = "relu",
        one_output: bool = False,
        img_size: int | tuple[int, int] = 224,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if one_output and not num_classes:
            raise ValueError("a network with one sigmoid output keeps its own head")
        if one_output and num_classes != 2:
            raise ValueError(
                f"a network with one sigmoid output has two classes, not {num_classes}"
            )
        if not isinstance(img_size, int):  # timm passes (height, width)
            img_size = int(img_size[0])
        self.num_classes, self.one_output = num_classes, one_output
        stages: list[nn.Module] = []
        self._per_stage = 4 if batch_norm else 3
        channels, side = in_chans, img_size
        for width in widths:
            stages.append(nn.Conv2d(channels, width, 3, padding=padding))
            stages += [nn.BatchNorm2d(width)] if batch_norm else []
            stages += [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            channels, side = width, (side - 2 + 2 * padding) // 2
        if pool:
            stages.append(nn.AdaptiveAvgPool2d(pool))
        self.stages = nn.Sequential(*stages)
        features = channels * (pool or side) ** 2
        layers: list[nn.Module] = []
        for width in dense:
            after: nn.Module = nn.Sigmoid() if activation == "sigmoid" else nn.ReLU(inplace=True)
            layers += [nn.Linear(features, width), after, nn.Dropout(drop_rate)]
            features = width
        self.num_features = features
        self.dense = nn.Sequential(nn.Flatten(), *layers)
        outputs = 1 if one_output else num_classes
        self.fc = nn.Linear(features, outputs) if outputs else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.fc

    def group_matcher(self, coarse: bool = False) -> Callable[[str], tuple[int, int]]:  # noqa: ARG002
        """Layer groups for timm: each stage, each dense layer, the classifier."""

        def layer_of(name: str) -> tuple[int, int]:
            part, *rest = name.split(".")
            if part == "stages":
                return 0, int(rest[0]) // self._per_stage
            return (1, int(rest[0])) if part == "dense" else (2, 0)

        return layer_of

    def forward_features(self, x: Tensor) -> Tensor:
        """Feature maps, shape (n, channels, height, width)."""
        out: Tensor = self.stages(x)
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        features: Tensor = self.dense(x)  # (n, num_features)
        if pre_logits:
            return features
        z = self.fc(features)
        return torch.cat([torch.zeros_like(z), z], dim=1) if self.one_output else z

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n, num_classes) for images of shape (n, in_chans, size, size)."""
        return self.forward_head(self.forward_features(x))


class WithHead(nn.Module):
    """A timm backbone up to its pooling, then dense layers and a classifier.

    Parameters
    ----------
    backbone : str
        timm's name.
    hidden : tuple of int
        Widths of the dense layers.
    """

    def __init__(
        self,
        backbone: str,
        hidden: tuple[int, ...],
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        plain = {"num_classes": 0, "in_chans": in_chans, "drop_rate": 0.0, **settings}
        self.body = created(backbone, False, plain)
        body: Any = self.body
        # Some networks widen the pooled features before their classifier.
        features: int = getattr(body, "head_hidden_size", body.num_features)
        layers: list[nn.Module] = []
        for width in hidden:
            layers += [nn.Linear(features, width), nn.ReLU(inplace=True), nn.Dropout(drop_rate)]
            features = width
        self.num_features = features
        self.head = nn.Sequential(*layers, nn.Linear(features, num_classes))

    def get_classifier(self) -> nn.Module:
        return self.head

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Layer groups for timm: those of the backbone, then the head."""
        body: Any = self.body
        if hasattr(body, "group_matcher"):
            named = ((n.removeprefix("body."), p) for n, p in self.named_parameters())
            layers = group_with_matcher(named, body.group_matcher(coarse=coarse), reverse=True)
        else:
            layers = auto_group_layers(body)
        last = 1 + max(layers.values())
        return lambda name: layers.get(name.removeprefix("body."), last)

    def no_weight_decay(self) -> set[str]:
        """Names of the backbone's parameters without weight decay."""
        return {f"body.{name}" for name in getattr(self.body, "no_weight_decay", set)()}

    def forward_features(self, x: Tensor) -> Tensor:
        """The backbone's pooled features, shape (n, features)."""
        out: Tensor = self.body(x)
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n, num_classes)."""
        return self.forward_head(self.forward_features(x))


def _dense(name: str, pretrained: bool, **settings: Any) -> nn.Module:
    config = settings.pop("pretrained_cfg", None) or {
        **small_config(),
        "input_size": (3, 224, 224),
    }
    model: nn.Module = build_model_with_cfg(
        DenseCNN, name, pretrained, pretrained_cfg=config, **settings
    )
    return model


@register_model
def ek_basic_cnn(pretrained: bool = False, **settings: Any) -> nn.Module:
    """Four convolutions 8-16-32-64, dense 64-128-256, dropout."""
    shape = {"widths": (8, 16, 32, 64), "dense": (64, 128, 256)}
    return _dense("ek_basic_cnn", pretrained, **{**shape, **settings})


@register_model
def ek_basic_cnn_flat(pretrained: bool = False, **settings: Any) -> nn.Module:
    """`ek_basic_cnn` without pooling of the last feature map; accepts one image size."""
    shape = {"widths": (8, 16, 32, 64), "dense": (64, 128, 256), "pool": 0}
    return _dense("ek_basic_cnn_flat", pretrained, **{**shape, **settings})


@register_model
def ek_cnn4(pretrained: bool = False, **settings: Any) -> nn.Module:
    """Four blocks of convolution, batch normalisation and pooling, 32-64-128-256, dense 128, dropout."""
    shape = {"widths": (32, 64, 128, 256), "dense": (128,), "pool": 1, "batch_norm": True}
    return _dense("ek_cnn4", pretrained, **{**shape, **settings})


@register_model
def ek_cnn3_sigmoid(pretrained: bool = False, **settings: Any) -> nn.Module:
    """Three valid 3x3 convolutions 32-64-128, dense 256, one sigmoid output; accepts one image size."""
    shape = {"widths": (32, 64, 128), "dense": (256,), "pool": 0, "padding": 0, "one_output": True}
    return _dense("ek_cnn3_sigmoid", pretrained, **{**shape, **settings})


@register_model
def ek_cnn3_two_sigmoids(pretrained: bool = False, **settings: Any) -> nn.Module:
    """`ek_cnn3_sigmoid` with a sigmoid also after its dense layer."""
    shape = {"widths": (32, 64, 128), "dense": (256,), "pool": 0, "padding": 0, "one_output": True}
    return _dense(
        "ek_cnn3_two_sigmoids", pretrained, **{**shape, "activation": "sigmoid", **settings}
    )


@register_model
def ek_with_head(pretrained: bool = False, **settings: Any) -> nn.Module:
    """A timm network (`backbone`) with dense layers (`hidden`) before its classifier."""
    config = settings.pop("pretrained_cfg", None) or {**small_config(), "classifier": "head"}
    model: nn.Module = build_model_with_cfg(
        WithHead, "ek_with_head", pretrained, pretrained_cfg=config, **settings
    )
    return model
