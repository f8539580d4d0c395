"""Building a member's network with its first weights: published, from a checkpoint, or random.

Does not train; architectures of our own are in `small_networks` and `dense_networks`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

import ensemble_kit.members.dense_networks  # noqa: F401  (registers ours with timm)
from ensemble_kit.errors import DataError, first_few
from ensemble_kit.members.catalogue import FIXED_SIZE, timm_name
from ensemble_kit.members.pretrained import no_weights
from ensemble_kit.members.recipe import Member


def build_network(
    member: Member, n_classes: int, *, image_size: int, in_channels: int = 3
) -> nn.Module:
    """The member's network with a new head of `n_classes`, its first weights in place.

    The caller seeds torch: what is not loaded is drawn from its current generator. Pretrained
    stems are adapted to other channel counts than 3 as timm does.

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
    if member.recipe.regularize.drop_path:
        settings["drop_path_rate"] = member.recipe.regularize.drop_path
    if name in FIXED_SIZE:
        settings["img_size"] = image_size
    published = member.starts_published
    model = _created(member, name, published, settings)
    if member.weights:
        _load_first_weights(model, member.weights)
    return model


def _created(member: Member, name: str, published: bool, settings: dict[str, Any]) -> nn.Module:
    try:
        if member.head:
            return _with_head(member, name, published, settings)
        plain: nn.Module = timm.create_model(name, pretrained=published, **settings)
    except TypeError as error:
        raise DataError(
            "A network takes the settings that its member names",
            f"'{member.network}' does not: {error}",
            "Leave drop_rate or drop_path out for this network",
        ) from error
    except ValueError as error:
        raise DataError(
            "A network fits the classes", f"'{member.network}': {error}", "Choose another network"
        ) from error
    except Exception as error:
        if not published:
            raise
        reason = str(error).partition("\n")[0][:160]
        raise no_weights(
            [member.network], f"cannot be loaded ({type(error).__name__}: {reason})"
        ) from error
    return plain


def _with_head(member: Member, name: str, published: bool, settings: dict[str, Any]) -> nn.Module:
    made: Any = timm.create_model("ek_with_head", backbone=name, hidden=member.head, **settings)
    body: Any = made.body
    if published:
        body = _created(member.model_copy(update={"head": ()}), name, True, settings)
        own = made.body.state_dict()
        made.body.load_state_dict({k: v for k, v in body.state_dict().items() if k in own})
    # Inputs are normalised as the backbone's weights want them.
    for key in ("mean", "std", "interpolation"):
        made.pretrained_cfg[key] = body.pretrained_cfg[key]
    return made


def head_parameters(model: nn.Module) -> list[str]:
    """Names of the classifier's parameters."""
    head = model.get_classifier()  # type: ignore[operator]
    names = [name for name, module in model.named_modules() if module is head]
    return [n for n, _ in model.named_parameters() if any(n.startswith(f"{h}.") for h in names)]


def pooled_features(model: nn.Module, images: Tensor) -> Tensor:
    """What the classifier sees of some images, shape (n, n_features).

    The network's `get_classifier()` stands right behind it; a head of our own (`Member.head`) is
    that classifier.

    Raises
    ------
    DataError
        The network has no such point.
    """
    network: Any = model
    try:
        pooled: Tensor = network.forward_head(network.forward_features(images), pre_logits=True)
    except (AttributeError, TypeError) as error:
        raise DataError(
            "Pooled features are what a network's classifier sees",
            f"{type(model).__name__} has no such point ({error})",
            "Leave out keep_features and cache_features, or this network",
        ) from error
    return pooled.flatten(1)


def _load_first_weights(model: nn.Module, path: Path) -> None:
    state = _read_weights(path)
    own = model.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    head = set(head_parameters(model))
    lacking = [k for k in own if k not in fitting and k not in head]
    if lacking:
        raise DataError(
            "A checkpoint given as first weights fits the network, its head aside",
            f"'{path}' lacks or reshapes {len(lacking)} of {len(own)} tensors: {first_few(lacking, 3)}",
            "Give a checkpoint of the same architecture",
        )
    model.load_state_dict(fitting, strict=False)


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
