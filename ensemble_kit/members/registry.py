"""The catalogue of networks, their groups, and their cost. Any other timm name works too."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ensemble_kit.errors import DataError, first_few

if TYPE_CHECKING:
    from torch import nn

# Name -> (timm's name, native input size in pixels).
NETWORKS = {
    "efficientnet_b0": ("efficientnet_b0", 224),
    "efficientnet_b1": ("efficientnet_b1", 240),
    "efficientnet_b2": ("efficientnet_b2", 260),
    "efficientnet_b3": ("efficientnet_b3", 300),
    "efficientnet_b4": ("efficientnet_b4", 380),
    "efficientnetv2_b0": ("tf_efficientnetv2_b0", 224),
    "efficientnetv2_b1": ("tf_efficientnetv2_b1", 240),
    "efficientnetv2_b2": ("tf_efficientnetv2_b2", 260),
    "efficientnetv2_b3": ("tf_efficientnetv2_b3", 300),
    "efficientnetv2_s": ("tf_efficientnetv2_s", 384),
    "resnet18": ("resnet18", 224),
    "densenet121": ("densenet121", 224),
    "efficientnetv2_m": ("tf_efficientnetv2_m", 480),
    "efficientnetv2_l": ("tf_efficientnetv2_l", 480),
    "efficientnetv2_rw_t": ("efficientnetv2_rw_t", 288),
    "efficientnetv2_rw_s": ("efficientnetv2_rw_s", 384),
    "basic_cnn": ("ek_basic_cnn", 224),
    "basic_cnn_flat": ("ek_basic_cnn_flat", 1024),
    "cnn4": ("ek_cnn4", 224),
    "cnn3_sigmoid": ("ek_cnn3_sigmoid", 512),
    "cnn3_two_sigmoids": ("ek_cnn3_two_sigmoids", 512),
    "tiny_cnn": ("ek_tiny_cnn", 32),
    "tiny_resnet": ("ek_tiny_resnet", 32),
    "tiny_mobile": ("ek_tiny_mobile", 32),
}
_SIZES = dict(NETWORKS.values())
# timm's prefixes of networks that are named by a path or an address.
PLACES = ("hf-hub:", "hf_hub:", "local-dir:")
# Networks whose papers use dropout after each dense layer, by timm's names.
_DROP_RATES = {"ek_basic_cnn": 0.5, "ek_basic_cnn_flat": 0.5, "ek_cnn4": 0.5}
# Networks that are built for one input size.
FIXED_SIZE = ("ek_basic_cnn_flat", "ek_cnn3_sigmoid", "ek_cnn3_two_sigmoids")
_ALL = (
    *(f"efficientnet_b{i}" for i in range(5)),
    *(f"efficientnetv2_b{i}" for i in range(4)),
    "efficientnetv2_s",
    "resnet18",
    "densenet121",
)
GROUPS = {
    "efficientnetv1": tuple(n for n in _ALL if n.startswith("efficientnet_b")),
    "efficientnetv2": tuple(n for n in _ALL if n.startswith("efficientnetv2")),
    "small": ("tiny_cnn", "tiny_resnet", "tiny_mobile"),
    "all": _ALL,
}


@dataclasses.dataclass(frozen=True)
class Cost:
    """Parameters of a network, and the cost of one forward pass over one image.

    Parameters
    ----------
    parameters : int
    macs : int
        Multiply-accumulates.
    activations : int
        Number of output values of all convolution and dense layers. Training time follows it where
        memory is the limit (Radosavovic et al. 2020, "Designing network design spaces").
    """

    parameters: int
    macs: int
    activations: int

    @property
    def work(self) -> float:
        """Time of a training step, relative to other networks on the same machine.

        One activation takes as long as 560 multiply-accumulates: fitted to ResNet18 and
        EfficientNet-B0 at 224 px in bf16 on two CPU cores. The estimate is 1.01 of the measured
        time for EfficientNetV2-B0 and .88 for DenseNet121.
        """
        return self.activations + self.macs / 560


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Network names with groups replaced by their members, in order, without duplicates.

    Settings after a colon apply to each network of the group.

    Examples
    --------
    >>> expand(["resnet18", "small"])
    ('resnet18', 'tiny_cnn', 'tiny_resnet', 'tiny_mobile')
    >>> expand(["small:seed=1"])
    ('tiny_cnn:seed=1', 'tiny_resnet:seed=1', 'tiny_mobile:seed=1')
    """
    out: dict[str, None] = {}
    for name in names:
        head, colon, rest = name.partition(":")
        out.update({one + colon + rest: None for one in GROUPS.get(head, (head,))})
    return tuple(out)


def timm_name(network: str) -> str:
    """The name under which timm builds `network`, with its tag of published weights if it has one.

    Raises
    ------
    DataError
        An unknown network or tag (the message names the nearest ones), or an address such as
        `hf-hub:...`.

    Examples
    --------
    >>> timm_name("efficientnetv2_s"), timm_name("efficientnetv2_s.in1k")
    ('tf_efficientnetv2_s', 'tf_efficientnetv2_s.in1k')
    """
    refuse_place(network)
    base, dot, tag = network.partition(".")
    name = NETWORKS.get(base, (base,))[0]
    if base in NETWORKS and not dot:
        return name
    import timm

    import ensemble_kit.members.architectures.dense_cnn  # noqa: F401  (registers ours)

    if not timm.is_model(name):
        near = difflib.get_close_matches(base, {*NETWORKS, *GROUPS, *timm.list_models()}, n=3)
        raise DataError(
            f"Unknown network '{network}'",
            "a network is in the catalogue (ensemble-kit members list) or in timm",
            f"Did you mean {first_few(map(repr, near))}?"
            if near
            else "See timm.list_models() for all names",
        )
    if dot and tag not in (tags := published_tags(base)):
        raise DataError(
            f"'{network}': there are no such pretrained weights",
            f"the pretrained weights of '{base}' are {first_few(tags)}"
            if tags
            else f"timm has none for '{base}'",
            f"Use '{base}'" if not tags else f"Choose one, e.g. {base}.{tags[0]}",
        )
    return f"{name}{dot}{tag}"


def refuse_place(network: str) -> None:
    """Refuse a network named by a path or an address: its weights could change between runs."""
    if network.startswith(PLACES):
        raise DataError(
            f"'{network}' is a path or an address",
            "a network is a name in the catalogue or in timm",
            "Download the weights and give them to their network, as in resnet18:weights=PATH",
        )


def native_size(network: str) -> int:
    """The input size in pixels that the network was designed for."""
    architecture = timm_name(network).partition(".")[0]
    if architecture in _SIZES:
        return _SIZES[architecture]
    import timm

    config = timm.get_pretrained_cfg(timm_name(network))
    return int(config.input_size[-1]) if config else 224


def drop_rate_of(network: str) -> float:
    """The default dropout rate of a network."""
    return _DROP_RATES.get(NETWORKS.get(network, (network,))[0], 0.0)


def published_tags(network: str) -> list[str]:
    """Tags of the weights that timm publishes for `network`, or the tag in its name."""
    import timm

    name, dot, tag = timm_name(network).partition(".")
    if dot:
        return [tag]
    if name.startswith("ek_"):
        return []
    return [one.partition(".")[2] for one in timm.list_pretrained(f"{name}.*")]


@contextlib.contextmanager
def refuse_size(
    network: str, image_size: int, good: int | None = None, *, width: int | None = None
) -> Iterator[None]:
    """Turn the errors of a network that does not accept an input size into a `DataError`.

    Parameters
    ----------
    good : int, optional
        A size that the network accepts. Default: its native size.
    width : int, optional
        Width of images that are not square.
    """
    try:
        yield
    except (RuntimeError, AssertionError) as error:
        good = good or native_size(network)
        problem = f"'{network}' does not accept images of {image_size} px"
        if image_size < good and not _takes_one_size(network):
            problem = f"Images of {image_size} px are too small for '{network}'"
        advice = f"Use another size, e.g. {good}, or another network"
        if width not in {None, image_size}:
            problem = f"'{network}' does not accept images that are not square"
            advice = "Join pairs by stack or channels, or use another network"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160].rstrip(".")
        raise DataError(
            f"{problem} ({reason})",
            "a network must accept the shape and size of its images",
            advice,
        ) from error


def _takes_one_size(network: str) -> bool:
    """Whether timm builds the network for its native size only."""
    import timm

    config = timm.get_pretrained_cfg(timm_name(network))
    return bool(config and config.fixed_input_size)


def unfit(network: str, error: ValueError) -> DataError:
    """The error for a network that does not accept its classes, channels or head."""
    return DataError(
        f"The network '{network}' cannot be built: {error}",
        "a network must accept the number of classes and its classifier settings",
        "Choose another network",
    )


@functools.lru_cache(maxsize=256)
def cost(network: str, image_size: int, n_classes: int = 2, in_channels: int = 3) -> Cost:
    """Parameters, multiply-accumulates and activations, counted without memory for the weights.

    Raises
    ------
    DataError
        An unknown network, or one that does not accept this size or number of classes.
    """
    import timm
    import torch

    import ensemble_kit.members.architectures.dense_cnn  # noqa: F401

    name = timm_name(network)
    sized: dict[str, Any] = {"img_size": image_size} if name in FIXED_SIZE else {}
    with torch.device("meta"):
        try:
            model = timm.create_model(name, num_classes=n_classes, in_chans=in_channels, **sized)
        except ValueError as error:
            raise unfit(network, error) from error
        with refuse_size(network, image_size):
            return counted(model, (image_size, image_size, in_channels))


def counted(model: nn.Module, shape: tuple[int, int, int]) -> Cost:
    """The cost of a network on the meta device for one image of height, width, channels."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    output_sizes: list[int] = []
    hooks = [
        module.register_forward_hook(lambda *args: output_sizes.append(args[2].numel()))
        for module in model.modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    ]
    height, width, channels = shape
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(torch.empty(1, channels, height, width, device="meta"))
    for hook in hooks:
        hook.remove()
    parameters = sum(p.numel() for p in model.parameters())
    return Cost(parameters, counter.get_total_flops() // 2, sum(output_sizes))
