"""Reads a file of weights: every mapping of names to tensors in it, by where it stands.

Knows no network. Nothing in a file can run code; tensors are not looked at, only their names.
"""

from __future__ import annotations

import dataclasses
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ensemble_kit.archives import check_unpacked
from ensemble_kit.errors import DataError, EnsembleKitError, first_few

_MAX_DEPTH = 4
# A training's state of its optimizer has tensors under the network's names, which are no weights.
_NO_WEIGHTS = "optim"
# What torch.compile and sharded training put between the names of modules.
_WRAPPERS = frozenset(("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"))


@dataclasses.dataclass(frozen=True, eq=False)
class WeightFile:
    """What a file of weights holds.

    Parameters
    ----------
    path : Path
    places : mapping of str to mapping of str to Tensor
        Tensors by name, by the keys that lead to them: "" for the file itself, `state_dict`,
        `ema.model`.
    top : tuple of str
        The keys of the file itself, where it has others than names of tensors.
    """

    path: Path
    places: Mapping[str, Mapping[str, Tensor]]
    top: tuple[str, ...]

    def described(self) -> str:
        """What the file holds, for an error: its keys, and the first tensors of each place."""
        described = [
            f"{len(tensors)} tensors{f' under {place!r}' if place else ''}: "
            + first_few((f"{k} {tuple(v.shape)}" for k, v in tensors.items()), 3)
            for place, tensors in self.places.items()
        ]
        keys = [f"the keys {first_few(self.top, 8)}"] if self.top else []
        return "it holds " + "; ".join([*keys, *described[:4]])


def read_weights(path: Path) -> WeightFile:
    """The tensors of a `.safetensors` file, or of a `.pt`/`.pth`/`.ckpt` without code in it.

    Raises
    ------
    DataError
        It is no such file, or holds no tensor under a name.
    EnvironmentFault
        It does not fit into the memory that is free.
    """
    held = _loaded(path)
    if not isinstance(held, dict):
        raise bad_weights(path, f"it holds a {type(held).__name__}, no mapping of names to tensors")
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
    first, *parts = name.split(".")  # at the beginning it is a prefix like any other
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
    except Exception as error:  # torch says many things of what it cannot read
        raise bad_weights(path, _what_it_is_not(path, error)) from error


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2)


def _what_it_is_not(path: Path, error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or "cannot be read").lower()
    if path.suffix == ".safetensors":
        return "it is no whole .safetensors file"
    if isinstance(error, zipfile.BadZipFile):
        return "it is no whole PyTorch file"
    begins = _begins(path)
    if isinstance(error, pickle.UnpicklingError) and (begins == b"PK" or begins[:1] == b"\x80"):
        return "it holds Python objects, which could run code, and not tensors alone"
    return "it is no whole PyTorch file"


def bad_weights(path: Path, fault: str) -> DataError:
    """The error for a file from which no weights can be read."""
    return DataError(
        f"'{path}' holds no readable weights: {fault}",
        "weights are a file of tensors: .safetensors, or .pt/.pth without code in it",
        "Check the path, or save the network's state_dict() as .safetensors: "
        "safetensors.torch.save_file(network.state_dict(), 'weights.safetensors')",
    )
