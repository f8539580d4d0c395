"""Building a member's network, from timm's catalogue or our own small ones, with its first weights.

Importing this file registers our networks with timm, so that `timm.create_model` builds them too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.members.catalogue import timm_name
from ensemble_kit.members.pretrained import no_weights
from ensemble_kit.members.recipe import Member

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
        self.fc = nn.Linear(channels, num_classes)

    def get_classifier(self) -> nn.Module:
        return self.fc

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
    # The first stage sees few channels: a full convolution there, separable ones after it.
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
        pretrained_cfg=settings.pop("pretrained_cfg", None) or _small_config(),
        **settings,
    )
    return model


def _small_config() -> dict[str, Any]:
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


def build_network(member: Member, n_classes: int, *, in_channels: int = 3) -> nn.Module:
    """The member's network with a new head of `n_classes`, its first weights in place.

    The caller seeds torch: what is not loaded is drawn from its current generator.

    Raises
    ------
    DataError
        An unknown network, or a checkpoint that does not fit it.
    EnvironmentFault
        Pretrained weights are asked for and cannot be had.
    """
    name = timm_name(member.network)
    settings: dict[str, Any] = {"num_classes": n_classes, "in_chans": in_channels}
    if member.drop_rate:
        settings["drop_rate"] = member.drop_rate
    published = member.pretrained and not member.weights and not name.startswith("ek_")
    try:
        model: nn.Module = timm.create_model(name, pretrained=published, **settings)
    except Exception as error:
        if not published:
            raise
        reason = str(error).partition("\n")[0][:160]
        raise no_weights(
            [member.network], f"cannot be loaded ({type(error).__name__}: {reason})"
        ) from error
    if member.weights:
        _load_first_weights(model, member.weights)
    return model


def _load_first_weights(model: nn.Module, path: Path) -> None:
    state = _read_weights(path)
    own = model.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    head = {f"{k}." for k in _head_names(model)}
    lacking = [k for k in own if k not in fitting and not any(k.startswith(h) for h in head)]
    if lacking:
        raise DataError(
            "A checkpoint given as first weights fits the network, its head aside",
            f"'{path}' lacks or reshapes {len(lacking)} of {len(own)} tensors: {first_few(lacking, 3)}",
            "Give a checkpoint of the same architecture",
        )
    model.load_state_dict(fitting, strict=False)


def _head_names(model: nn.Module) -> list[str]:
    classifier = model.get_classifier()  # type: ignore[operator]
    return [name for name, module in model.named_modules() if module is classifier]


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, SafetensorError, ValueError, KeyError, EOFError) as error:
        raise _bad_weights(path, error) from error
    except Exception as error:  # a pickle that would run code raises its own class
        raise _bad_weights(path, error) from error
    state = state.get("state_dict", state.get("model", state)) if isinstance(state, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise _bad_weights(path, ValueError("it holds no mapping of names to tensors"))
    return {k.removeprefix("module."): v for k, v in state.items()}


def _bad_weights(path: Path, error: Exception) -> DataError:
    return DataError(
        "First weights are a file of tensors: .safetensors, or .pt/.pth without code in it",
        f"'{path}': {str(error).splitlines()[0][:160] if str(error) else type(error).__name__}",
        "Check the path, or convert the checkpoint to .safetensors",
    )
