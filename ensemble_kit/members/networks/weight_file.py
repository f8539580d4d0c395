"""Read a file of weights: every mapping of names to tensors, by its key in the file.

No code from the file is run.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ensemble_kit.archives import check_unpacked
from ensemble_kit.errors import DataError, EnsembleKitError, first_few

_MAX_DEPTH = 4
# Optimizer states hold tensors under the network's names.
_NO_WEIGHTS = "optim"
# Name parts that torch.compile and sharded training insert.
_WRAPPERS = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))


@dataclasses.dataclass(frozen=True, eq=False)
class WeightFile:
    """The content of a file of weights.

    Parameters
    ----------
    path : Path
    places : mapping of str to mapping of str to Tensor
        Key in the file -> name -> tensor. "" is the top level; others are e.g. `state_dict` or
        `ema.model`.
    top : tuple of str
        The keys of the top level, except names of tensors.
    """

    path: Path
    places: Mapping[str, Mapping[str, Tensor]]
    top: tuple[str, ...]

    def described(self) -> str:
        """The keys of the file and the first tensors under each, for an error message."""
        described = [
            f"{len(tensors)} tensors{f' under {place!r}' if place else ''}: "
            + first_few((f"{k} {tuple(v.shape)}" for k, v in tensors.items()), 3)
            for place, tensors in self.places.items()
        ]
        keys = [f"the keys {first_few(self.top, 8)}"] if self.top else []
        return "it holds " + "; ".join([*keys, *described[:4]])


def read_weights(path: Path) -> WeightFile:
    """The tensors of a `.safetensors` file, or of a `.pt`/`.pth`/`.ckpt` file without code.

    Raises
    ------
    DataError
        The file has another format, or holds no named tensor.
    EnvironmentFault
        The file does not fit into the free memory.
    """
    held = _loaded(path)
    if not isinstance(held, dict):
        raise bad_weights(
            path, f"it holds a {type(held).__name__}, not a mapping of names to tensors"
        )
    places = dict(_places(held))
    top = () if list(places) == [""] else tuple(str(k) for k in held if k not in places.get("", ()))
    if not places:
        raise bad_weights(
            path, f"it holds no mapping of names to tensors; its keys are {first_few(held, 8)}"
        )
    return WeightFile(path, places, top)


def _places(held: Mapping[Any, Any], place: str = "") -> list[tuple[str, dict[str, Tensor]]]:
    named = {k: v for k, v in held.items() if isinstance(k, str)}
    tensors = {_unwrapped(k): v for k, v in named.items() if isinstance(v, Tensor)}
    found = [(place, tensors)] if tensors else []
    if place.count(".") < _MAX_DEPTH - 1:
        for key, value in named.items():
            if isinstance(value, dict) and not key.lower().startswith(_NO_WEIGHTS):
                found += _places(value, f"{place}.{key}" if place else key)
    return found


def _unwrapped(name: str) -> str:
    first, *parts = name.split(".")  # the first part is handled as a prefix
    return ".".join([first, *(part for part in parts if part not in _WRAPPERS)])


def _loaded(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if _begins(path) == b"PK":
            check_unpacked(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, EnsembleKitError):
        raise
    except Exception as error:  # torch raises many kinds of errors for unreadable files
        raise bad_weights(path, _format_error(path, error)) from error


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def _format_error(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or "cannot be read").lower()
    if path.suffix == ".safetensors":
        return "it is not a complete .safetensors file"
    begins = _begins(path)
    if isinstance(error, pickle.UnpicklingError) and (begins == b"PK" or begins[:1] == b"\x80"):
        return "it holds Python objects, which could run code, not only tensors"
    return "it is not a complete PyTorch file"


def bad_weights(path: Path, fault: str) -> DataError:
    """The error for a file from which no weights can be read."""
    return DataError(
        f"'{path}' holds no readable weights: {fault}",
        "weights are a file of tensors: .safetensors, or .pt/.pth without code",
        "Check the path, or save the network's state_dict() as .safetensors: "
        "safetensors.torch.save_file(network.state_dict(), 'weights.safetensors')",
    )
