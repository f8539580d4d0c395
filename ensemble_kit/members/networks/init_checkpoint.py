"""First weights from a file: which of its tensors a network takes, its stem adapted where it must be.

Builds no network and loads nothing into one. Files of other tools keep a network under keys and
prefixes of their own (`state_dict`, `model.`, `module.encoder_q.`): the place and the prefix are
found by the names of the network's own tensors.
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

# How many batches a normalisation has seen: older and exported files leave it out.
COUNTER = "num_batches_tracked"
# Classifiers of middle layers, which only a network's first training used; timm leaves them out.
AUXILIARY = ("aux1", "aux2", "AuxLogits")
# Of several networks in a file that fit, averaged ones come first and momentum encoders last.
_AVERAGED = frozenset(("ema", "teacher", "swa", "averaged"))
_MOMENTUM = frozenset(("k", "key", "momentum", "target"))
_TRIED = 20


@dataclasses.dataclass(frozen=True, eq=False)
class FirstWeights:
    """The tensors of a file that a network takes.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        By the network's own names.
    note : str
        Which of several networks in the file was taken; empty where there is one.
    """

    tensors: Mapping[str, Tensor]
    note: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class _Candidate:
    """Tensors of one place in the file whose names begin with one prefix, by the network's names."""

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
        """What a user can look for in the file."""
        return f"'{'.'.join(part for part in (self.place, self.prefix) if part).rstrip('.')}'"


def weights_for(model: nn.Module, path: Path, head: Iterable[str]) -> FirstWeights:
    """The tensors of a checkpoint that fit `model`; its head may be another one.

    They may stand under any key of the file, and their names may have any prefix. Where several
    networks in a file fit, averaged weights (EMA, teacher) come first, then others in the file's
    order, then momentum encoders (`encoder_k`). A file of the plain network fits its body where it
    has a head of our own. A stem for three channels is adapted to another number as timm does.

    Parameters
    ----------
    head : iterable of str
        Names of the modules that are the classifier.

    Raises
    ------
    DataError
        The file is no checkpoint, one of another architecture, or one with numbers that are not
        finite.
    """
    file = read_weights(path)
    own = model.state_dict()
    heads = {*head, *_classifiers(model), *_classifiers(getattr(model, "body", None), "body.")}
    added = ("", "body.") if isinstance(model, WithHead) else ("",)
    found = sorted(_candidates(file, own, added), key=lambda c: -c.n_known)[:_TRIED]
    faults = [_misfit(c.tensors, own, heads) for c in found]
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


def _misfit(
    tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], heads: Collection[str]
) -> str:
    """What keeps tensors from being those of the network; empty where nothing does."""
    fitting = _fitting(tensors, own)
    lacking = [k for k in own if k not in fitting and not _is_free(k, heads)]
    if lacking:
        shapes = (
            f"{k} {tuple(own[k].shape)}"
            + (f", in the file {tuple(tensors[k].shape)}" if k in tensors else "")
            for k in lacking
        )
        return f"lacks or reshapes {len(lacking)} of {len(own)} tensors: {first_few(shapes, 3)}"
    # What is no float is a counter or an index, never a weight.
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
    """Where timm says that a network's own classifiers stand, and where auxiliary ones would."""
    declared: Any = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    names = (declared,) if isinstance(declared, str) else declared
    return [prefix + name for name in (*names, *AUXILIARY)]


def _is_free(name: str, heads: Collection[str]) -> bool:
    """Whether a tensor may be another one, or none: a counter's, or one of the classifiers'."""
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
        f"'{path}' holds {len(fit)} networks that fit. The first weights are those of "
        f"{fit[0].called}, not of {others}: averaged weights (EMA, teacher) come first, momentum "
        "encoders last, others in the order of the file."
    )


def _fitting(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the network's names and shapes; others are looked at no further.

    A file of a few bytes may hold tensors that claim any size.
    """
    adapted = {k: _adapted(v, own[k].shape) for k, v in state.items() if k in own and _is_plain(v)}
    return {k: v for k, v in adapted.items() if v.shape == own[k].shape}


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_quantized


def _adapted(weight: Tensor, shape: torch.Size) -> Tensor:
    """A stem's kernels for as many channels as `shape` has; anything else as it is."""
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
    # Floats of 8 bits know no test of their own.
    small = tensor.is_floating_point() and tensor.element_size() == 1
    return bool(torch.isfinite(tensor.float() if small else tensor).all())
