"""Initial checkpoints: find the tensors of a network in a file.

Other tools store a network under various keys and prefixes (`state_dict`, `model.`,
`module.encoder_q.`). Key and prefix are found by the names of the network's tensors.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.members.architectures.dense_cnn import WithHead
from ensemble_kit.members.networks.weight_file import WeightFile, read_weights

# Older and exported files lack the batch counter of batch normalisation.
COUNTER = "num_batches_tracked"
# Auxiliary classifiers, used for pretraining only; timm leaves them out.
AUXILIARY = ("aux1", "aux2", "AuxLogits")
# If several networks in a file fit: averaged ones come first and momentum encoders last.
_AVERAGED = frozenset(("ema", "teacher", "swa", "averaged"))
_MOMENTUM = frozenset(("k", "key", "momentum", "target"))
_TRIED = 20


@dataclasses.dataclass(frozen=True, eq=False)
class FirstWeights:
    """The tensors of a file that fit a network.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        Tensors by the network's names.
    note : str
        Names the network that was used, if the file holds several; else empty.
    """

    tensors: Mapping[str, Tensor]
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidate:
    """The tensors under one key of the file with one prefix, by the network's names."""

    place: str
    prefix: str
    tensors: Mapping[str, Tensor]
    n_known: int

    @property
    def rank(self) -> tuple[int, int]:
        words = set(re.split(r"[^a-z]+", f"{self.place}.{self.prefix}".lower()))
        kind = 0 if words & _AVERAGED else 2 if words & _MOMENTUM else 1
        return kind, -self.n_known

    @property
    def called(self) -> str:
        """The key and prefix, as a user finds them in the file."""
        return f"'{'.'.join(part for part in (self.place, self.prefix) if part).rstrip('.')}'"


def weights_for(model: nn.Module, path: Path, head: Iterable[str]) -> FirstWeights:
    """The tensors of a checkpoint that fit `model`; its classifier may differ.

    They may be under any key of the file, with any prefix. If several networks fit, averaged
    weights (EMA, teacher) come first, then others in the file's order, then momentum encoders
    (`encoder_k`). A checkpoint of the plain network fits the backbone of a network with
    `Member.head`. timm adapts a stem for three channels to another number of channels.

    Parameters
    ----------
    model : torch.nn.Module
    path : Path
    head : iterable of str
        Names of the modules that are the classifier.

    Raises
    ------
    DataError
        The file is no checkpoint, has another architecture, or holds values that are not finite.
    """
    file = read_weights(path)
    own = model.state_dict()
    heads = {*head, *_classifiers(model), *_classifiers(getattr(model, "body", None), "body.")}
    added = ("", "body.") if isinstance(model, WithHead) else ("",)
    found = sorted(_candidates(file, own, added), key=lambda c: -c.n_known)[:_TRIED]
    faults = [_mismatch(c.tensors, own, heads) for c in found]
    fit = sorted(
        (c for c, fault in zip(found, faults, strict=True) if not fault), key=lambda c: c.rank
    )
    if not fit:
        lacks = f"has no tensor of the network's names, such as {first_few(own, 2)}"
        raise _other_architecture(file, faults[0] if faults else lacks)
    taken = _finite(path, _fitting(fit[0].tensors, own))
    return FirstWeights(taken, _note(path, fit))


def _candidates(
    file: WeightFile, own: Mapping[str, Tensor], added: tuple[str, ...]
) -> Iterator[_Candidate]:
    depth = 1 + max(name.count(".") for name in own)
    for place, tensors in file.places.items():
        known = Counter(
            (name[: len(name) - len(end)], more)
            for name in tensors
            for end in _ends(name, depth)
            for more in added
            if more + end in own
        )
        for (prefix, more), n in known.items():
            inside = {
                more + k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)
            }
            yield _Candidate(place, prefix, inside, n)


def _ends(name: str, depth: int) -> Iterator[str]:
    """The last 1, 2, ... `depth` parts of a dotted name."""
    parts = name.rsplit(".", depth)
    for i in range(max(0, len(parts) - depth), len(parts)):
        yield ".".join(parts[i:])


def _mismatch(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: Collection[str]
) -> str:
    """Why the tensors do not fit the network; empty if they fit."""
    fitting = _fitting(tensors, own)
    lacking = [k for k in own if k not in fitting and not _is_free(k, heads)]
    if lacking:
        shapes = (
            f"{k} {tuple(own[k].shape)}"
            + (f", in the file {tuple(tensors[k].shape)}" if k in tensors else "")
            for k in lacking
        )
        return f"lacks or reshapes {len(lacking)} of {len(own)} tensors: {first_few(shapes, 3)}"
    # Integer tensors are counters or indices, not weights.
    left = [
        k
        for k, v in tensors.items()
        if k not in own and v.is_floating_point() and not _is_free(k, heads)
    ]
    if left:
        return (
            f"has more than the network takes: {len(left)} of {len(tensors)} tensors: "
            f"{first_few(left, 3)}"
        )
    return ""


def _classifiers(network: nn.Module | None, prefix: str = "") -> list[str]:
    """Names of a network's classifiers according to timm, and of auxiliary ones."""
    declared: Any = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    names = (declared,) if isinstance(declared, str) else declared
    return [prefix + name for name in (*names, *AUXILIARY)]


def _is_free(name: str, heads: Collection[str]) -> bool:
    """Whether a tensor may differ or be missing: a batch counter, or part of a classifier."""
    return name.endswith(COUNTER) or any(name.startswith(f"{h}.") for h in heads)


def _other_architecture(file: WeightFile, fault: str) -> DataError:
    return DataError(
        f"'{file.path}' does not fit the network: it {fault}; {file.described()}",
        "an initial checkpoint must have the network's tensors, except for the classifier",
        "Give a checkpoint of the same architecture",
    )


def _note(path: Path, fit: list[_Candidate]) -> str:
    if len(fit) == 1:
        return ""
    others = first_few((c.called for c in fit[1:]), 3)
    return (
        f"'{path}' holds {len(fit)} networks that fit. {fit[0].called} is used, not {others}. "
        "Averaged weights (EMA, teacher) are preferred; momentum encoders come last."
    )


def _fitting(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the network's names and shapes.

    Others are not read: a small file may declare tensors of any size.
    """
    adapted = {k: _adapted(v, own[k].shape) for k, v in state.items() if k in own and _is_plain(v)}
    return {k: v for k, v in adapted.items() if v.shape == own[k].shape}


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized


def _adapted(weight: Tensor, shape: torch.Size) -> Tensor:
    """A stem's kernels adapted to the number of channels in `shape`; other weights unchanged."""
    kernels = weight.ndim == len(shape) == 4
    if kernels and weight.shape == (shape[0], 3, *shape[2:]) and shape[1] != 3:
        return adapt_input_conv(shape[1], weight)  # type: ignore[no-any-return]
    return weight


def _finite(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    broken = [k for k, v in state.items() if not _is_finite(v)]
    if broken:
        raise DataError(
            f"'{path}' holds NaN or infinite values in {len(broken)} of {len(state)} tensors: "
            f"{first_few(broken, 3)}",
            "weights must be finite numbers",
            "Give a checkpoint from before the training diverged",
        )
    return state


def _is_finite(tensor: Tensor) -> bool:
    # `isfinite` does not support 8-bit floats.
    small = tensor.is_floating_point() and tensor.element_size() == 1
    return bool(torch.isfinite(tensor.float() if small else tensor).all())
