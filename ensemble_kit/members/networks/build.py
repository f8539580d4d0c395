"""Building a member's network with its initial weights: published, from a checkpoint, or random."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import ensemble_kit.members.architectures.dense_cnn  # noqa: F401  (registers networks with timm)
from ensemble_kit.errors import DataError
from ensemble_kit.members.architectures.timm_factory import created
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.init_checkpoint import weights_for
from ensemble_kit.members.networks.pretrained import no_weights
from ensemble_kit.members.registry import FIXED_SIZE, timm_name, unfit


def build_network(
    member: Member, n_classes: int, *, image_size: int, in_channels: int = 3
) -> nn.Module:
    """The member's network with a head for `n_classes` and its initial weights.

    The head is random, unless a checkpoint has a head of the same shape. Random weights come from
    torch's current generator: the caller seeds it. timm adapts pretrained stems to `in_channels`.

    Raises
    ------
    DataError
        An unknown network, or a checkpoint that does not fit it.
    EnvironmentFault
        The pretrained weights are not available.
    """
    name = timm_name(member.network)
    settings: dict[str, Any] = {
        "num_classes": n_classes,
        "in_chans": in_channels,
        "drop_rate": member.drop_rate,
        "drop_path_rate": member.recipe.regularize.drop_path,
    }
    if name in FIXED_SIZE:
        settings["img_size"] = image_size
    published = member.starts_published
    model = _created(member, name, published, settings)
    if member.weights:
        first = weights_for(model, member.weights, head_modules(model))
        model.load_state_dict(first.tensors, strict=False)
    return model


def _created(member: Member, name: str, published: bool, settings: dict[str, Any]) -> nn.Module:
    try:
        if member.head:
            return _with_head(member, name, published, settings)
        plain = created(name, published, settings)
    except TypeError as error:
        raise DataError(
            f"The network '{member.network}' does not accept the settings of its member: {error}",
            "not every network has drop_rate or drop_path",
            "Leave drop_rate or drop_path out for this network",
        ) from error
    except ValueError as error:
        raise unfit(member.network, error) from error
    except Exception as error:
        if not published:
            raise
        reason = str(error).partition("\n")[0][:160]
        raise no_weights(
            [member.network], f"cannot be loaded ({type(error).__name__}: {reason})"
        ) from error
    return plain


def _with_head(member: Member, name: str, published: bool, settings: dict[str, Any]) -> nn.Module:
    made: Any = created(
        "ek_with_head", False, {**settings, "backbone": name, "hidden": member.head}
    )
    backbone: Any = made.body
    if published:
        backbone = _created(member.model_copy(update={"head": ()}), name, True, settings)
        own = made.body.state_dict()
        made.body.load_state_dict({k: v for k, v in backbone.state_dict().items() if k in own})
    # Inputs are normalised as in the backbone's pretraining.
    for key in ("mean", "std", "interpolation"):
        made.pretrained_cfg[key] = backbone.pretrained_cfg[key]
    return made


def head_modules(model: nn.Module) -> list[str]:
    """Names of the modules that are the classifier; distilled networks have two."""
    found = model.get_classifier()  # type: ignore[operator]
    heads = found if isinstance(found, tuple) else (found,)
    return [name for name, module in model.named_modules() if any(module is h for h in heads)]


def head_parameters(model: nn.Module) -> list[str]:
    """Names of the classifier's parameters."""
    heads = tuple(f"{name}." for name in head_modules(model))
    return [name for name, _ in model.named_parameters() if name.startswith(heads)]


def pooled_features(model: nn.Module, images: Tensor) -> Tensor:
    """The input of the classifier (`get_classifier()`), shape (n, n_features).

    The dense layers of `Member.head` belong to the classifier.

    Raises
    ------
    DataError
        The network has no pooled features.
    """
    return _head(model, images)[0]


def logits_and_features(model: nn.Module, images: Tensor) -> Tensor:
    """Logits, then pooled features, of one forward pass, shape (n, n_classes + n_features)."""
    pooled, unpooled = _head(model, images)
    network: Any = model
    return torch.cat([network.forward_head(unpooled), pooled], dim=1)


def _head(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Pooled features, and the feature maps before pooling."""
    network: Any = model
    try:
        unpooled: Tensor = network.forward_features(images)
        pooled: Tensor = network.forward_head(unpooled, pre_logits=True)
    except (AttributeError, TypeError) as error:
        raise DataError(
            f"{type(model).__name__} has no pooled features before its classifier ({error})",
            "keep_features and cache_features need them",
            "Remove keep_features and cache_features, or this network",
        ) from error
    return pooled.flatten(1), unpooled
