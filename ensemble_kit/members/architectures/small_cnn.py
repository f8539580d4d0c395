"""Small networks for small images: plain, residual and mobile blocks.

Importing this file registers them with timm. They have no published weights.
"""

from __future__ import annotations

from typing import Any

from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SmallNetwork(nn.Module):
    """A small CNN for small images: a stack of blocks, global pooling, one linear layer.

    Parameters
    ----------
    block : str
        `plain` (convolution), `residual` (two with a shortcut) or `mobile` (depth-wise separable).
    widths : tuple of int
        Channels of each stage; each stage halves the image.
    num_classes, in_chans : int
    drop_rate : float
    """

    def __init__(
        self,
        block: str = "plain",
        widths: tuple[int, ...] = (16, 32, 64),
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = widths[-1]
        stages: list[nn.Module] = []
        channels = in_chans
        for width in widths:
            stages += [_BLOCKS[block](channels, width), nn.MaxPool2d(2)]
            channels = width
        self.stages = nn.Sequential(*stages)
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(channels, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.fc

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # noqa: ARG002
        """Layer groups for timm: each stage, the classifier."""
        return {"stages": r"^stages\.(\d+)"}

    def forward_features(self, x: Tensor) -> Tensor:
        """Feature maps, shape (n, num_features, height, width)."""
        out: Tensor = self.stages(x)
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = x.mean(dim=(2, 3))  # (n, num_features)
        return pooled if pre_logits else self.fc(self.drop(pooled))

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (n, num_classes) for images of shape (n, in_chans, size, size)."""
        return self.forward_head(self.forward_features(x))


def _convolution(channels: int, width: int, *, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )


class _Residual(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_convolution(channels, width), _convolution(width, width))
        self.shortcut = nn.Conv2d(channels, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x) + self.shortcut(x)
        return out


def _plain(channels: int, width: int) -> nn.Module:
    return _convolution(channels, width)


def _mobile(channels: int, width: int) -> nn.Module:
    # The first stage has few input channels: a full convolution, not a separable one.
    if channels < 8:
        return _convolution(channels, width)
    return nn.Sequential(
        _convolution(channels, channels, groups=channels), _convolution(channels, width, kernel=1)
    )


_BLOCKS = {"plain": _plain, "residual": _Residual, "mobile": _mobile}


def _small(name: str, pretrained: bool, **settings: Any) -> nn.Module:
    model: nn.Module = build_model_with_cfg(
        SmallNetwork,
        name,
        pretrained,
        pretrained_cfg=settings.pop("pretrained_cfg", None) or small_config(),
        **settings,
    )
    return model


def small_config() -> dict[str, Any]:
    """timm's `pretrained_cfg` for the networks of this package."""
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 32, 32),
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": "stages.0.0",
        "classifier": "fc",
    }


@register_model
def ek_tiny_cnn(pretrained: bool = False, **settings: Any) -> nn.Module:
    """Three plain convolutions, 16-32-64."""
    return _small("ek_tiny_cnn", pretrained, **{"block": "plain", **settings})


@register_model
def ek_tiny_resnet(pretrained: bool = False, **settings: Any) -> nn.Module:
    """Three residual blocks, 16-32-64."""
    return _small("ek_tiny_resnet", pretrained, **{"block": "residual", **settings})


@register_model
def ek_tiny_mobile(pretrained: bool = False, **settings: Any) -> nn.Module:
    """Depth-wise separable convolutions, 16-32-64-96."""
    widths = (16, 32, 64, 96)
    return _small("ek_tiny_mobile", pretrained, **{"block": "mobile", "widths": widths, **settings})
