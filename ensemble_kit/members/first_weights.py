"""First weights from a file: which of its tensors a network takes, its stem adapted where it must be.

Reads tensors only; builds no network and loads nothing into one.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.members.dense_networks import WithHead

# How many batches a normalisation has seen: older and exported files leave it out.
COUNTER = "num_batches_tracked"


# Classifiers of middle layers, which only a network's first training used; timm leaves them out.
AUXILIARY = ("aux1", "aux2", "AuxLogits")


def weights_for(model: nn.Module, path: Path, head: Iterable[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that fit `model`; its head may be another one.

    A file of the plain network fits its body where it has a head of our own. A stem for three
    channels is adapted to another number as timm does.

    Parameters
    ----------
    head : iterable of str
        Names of the modules that are the classifier.

    Raises
    ------
    DataError
        The file is no checkpoint, or one of another architecture.
    """
    state = read_weights(path)
    own = model.state_dict()
    if isinstance(model, WithHead) and not any(k.startswith("body.") for k in state):
        state = {f"body.{k}": v for k, v in state.items()}
    fitting = _fitting(state, own)
    heads = {*head, *_classifiers(model), *_classifiers(getattr(model, "body", None), "body.")}
    lacking = [k for k in own if k not in fitting and not _is_free(k, heads)]
    if lacking:
        raise _other_architecture(path, "lacks or reshapes", lacking, len(own))
    # What is no float is a counter or an index, never a weight.
    left = [
        k
        for k, v in state.items()
        if k not in own and v.is_floating_point() and not _is_free(k, heads)
    ]
    if left:
        raise _other_architecture(path, "has more than the network takes:", left, len(state))
    return fitting


def _classifiers(network: nn.Module | None, prefix: str = "") -> list[str]:
    """Where timm says that a network's own classifiers stand, and where auxiliary ones would."""
    declared: Any = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    names = (declared,) if isinstance(declared, str) else declared
    return [prefix + name for name in (*names, *AUXILIARY)]


def _is_free(name: str, heads: Collection[str]) -> bool:
    """Whether a tensor may be another one, or none: a counter's, or one of the classifiers'."""
    return name.endswith(COUNTER) or any(name.startswith(f"{h}.") for h in heads)


def _other_architecture(path: Path, what: str, names: list[str], n_all: int) -> DataError:
    return DataError(
        "A checkpoint given as first weights fits the network, its head aside",
        f"'{path}' {what} {len(names)} of {n_all} tensors: {first_few(names, 3)}",
        "Give a checkpoint of the same architecture",
    )


def _fitting(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    adapted = {k: _adapted(v, own[k].shape) for k, v in state.items() if k in own}
    return {k: v for k, v in adapted.items() if v.shape == own[k].shape}


def _adapted(weight: Tensor, shape: torch.Size) -> Tensor:
    """A stem's kernels for as many channels as `shape` has; anything else as it is."""
    kernels = weight.ndim == len(shape) == 4
    if kernels and weight.shape[1] == 3 != shape[1]:
        return adapt_input_conv(shape[1], weight)  # type: ignore[no-any-return]
    return weight


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of a `.pt`/`.pth` without code in it, by name.

    Raises
    ------
    DataError
        It is no such file, or holds numbers that are not finite.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            held: Any = load_file(path)
        else:
            held = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch says many things of what it cannot read
        raise _bad_weights(path, _what_it_is_not(path, error)) from error
    state = held.get("state_dict", held.get("model", held)) if isinstance(held, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise _bad_weights(path, "it holds no mapping of names to tensors")
    return _finite(path, {k.removeprefix("module."): v for k, v in state.items()})


def _finite(path: Path, state: dict[str, Tensor]) -> dict[str, Tensor]:
    broken = [k for k, v in state.items() if not bool(torch.isfinite(v).all())]
    if broken:
        raise DataError(
            "First weights are finite numbers",
            f"'{path}' holds NaN or infinite ones in {len(broken)} of {len(state)} tensors: "
            f"{first_few(broken, 3)}",
            "Give a checkpoint from before its training went wrong",
        )
    return state


def _what_it_is_not(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or "cannot be read").lower()
    if path.suffix == ".safetensors":
        return "it is no whole .safetensors file"
    with path.open("rb") as file:
        begins = file.read(2)
    if isinstance(error, pickle.UnpicklingError) and (begins == b"PK" or begins[:1] == b"\x80"):
        return "it holds Python objects, which could run code, and not tensors alone"
    return "it is no whole PyTorch file"


def _bad_weights(path: Path, fault: str) -> DataError:
    return DataError(
        "First weights are a file of tensors: .safetensors, or .pt/.pth without code in it",
        f"'{path}': {fault}",
        "Check the path, or save the network's state_dict() as .safetensors",
    )
