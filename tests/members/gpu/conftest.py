"""A fake CUDA device for machines without a GPU: CPU tensors with the device `cuda`.

It tracks the device of each tensor and counts when the host would wait for the GPU. As a GPU does,
it refuses operations on tensors of both devices, and random numbers from a CPU generator. It
follows calls of torch, not what happens inside a call; arithmetic and memory are those of the CPU.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import traceback
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
# The host needs the value, or a shape that depends on values.
READS = {
    "item", "tolist", "__bool__", "__float__", "__int__", "__index__", "equal", "allclose",
    "nonzero", "argwhere", "unique", "masked_select", "bincount", "is_nonzero", "__contains__",
    "__repr__", "inverse", "linalg_inv", "linalg_solve",
}  # fmt: skip
# Calls that may have tensors of both devices.
BOTH = {"__set__", "_has_compatible_shallow_copy_type"}
GROUP = torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype
PLAIN = torch._C.DisableTorchFunctionSubclass


class OnGpu(Tensor):
    """A tensor on the fake GPU."""


@dataclasses.dataclass
class Wait:
    """A wait of the host for the GPU: the call, and its callers."""

    call: str
    callers: str


class PretendedGpu(TorchFunctionMode):
    """While it is active, `cuda` is a device; `waits` are the waits of the host."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[Wait] = []

    def wait(self, call: str, *_: object) -> None:
        self.waits.append(Wait(call, "".join(traceback.format_stack(limit=16)[:-2])))

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", str(func))
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        there = any(isinstance(t, OnGpu) for t in tensors)
        if name == "__get__" and (place := _device_attribute(func, args[0])) is not None:
            return place
        if name == "__reduce_ex__":
            with PLAIN():
                return args[0].detach().as_subclass(Tensor).__reduce_ex__(*args[1:])
        if name == "__deepcopy__" and there:
            return _copied(*args)
        if name in {"numpy", "__array__"} and there:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if there and (name in READS or _has_unknown_shape(name, args, kwargs)):
            self.wait(name)
        if name in {"to", "cpu", "cuda"}:
            return self._moved(name, args, kwargs)
        to_gpu = there
        if kwargs.get("device") is not None and name != "_parse_to":
            to_gpu = torch.device(kwargs["device"]).type == "cuda"
            kwargs["device"] = torch.device("cpu")
            if to_gpu and name in {"tensor", "as_tensor", "new_tensor"}:
                self.wait(name)
            if to_gpu and kwargs.get("generator") is not None:
                raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        elif name in {"copy_", "__setitem__"}:
            to_gpu = isinstance(args[0], OnGpu)
            if any(isinstance(t, OnGpu) != to_gpu for t in tensors):
                self.wait(name)
        elif there and name not in BOTH and any(_is_elsewhere(t, name) for t in tensors):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, in {name}: {[type(t).__name__ for t in tensors]}"
            )
        if name in {"__getitem__", "__setitem__"} and isinstance(args[0], OnGpu):
            for index in tree_leaves(args[1], is_leaf=lambda x: isinstance(x, list)):
                mask = isinstance(index, Tensor) and index.dtype == torch.bool
                if mask or isinstance(index, list | np.ndarray):
                    self.wait(f"{name} by {'a mask' if mask else 'numbers of the host'}")
        with PLAIN():
            out = func(*args, **kwargs)
        return tree_map(lambda t: _on(t, to_gpu), out)

    def _moved(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        tensor, *rest = args
        there, dtype, form, quick = isinstance(tensor, OnGpu), None, torch.preserve_format, False
        device: Any = {"cpu": "cpu", "cuda": "cuda"}.get(name)
        if name == "to":
            copies = kwargs.pop("copy", False)
            with PLAIN():
                device, dtype, quick, form = torch._C._nn._parse_to(*rest, **kwargs)
            if rest and isinstance(rest[0], Tensor):
                device = GPU if isinstance(rest[0], OnGpu) else "cpu"
        to_gpu = there if device is None else torch.device(device).type == "cuda"
        # From memory that is not pinned, the host always waits.
        if to_gpu != there and not (quick and to_gpu and getattr(tensor, "is_pinned_here", False)):
            self.wait(f"{name} {device}")
        with PLAIN():
            form = form or torch.preserve_format
            copy = to_gpu != there or (name == "to" and copies)
            out = tensor.to(dtype=dtype or tensor.dtype, memory_format=form, copy=copy)
        return _on(out, to_gpu)


def _is_elsewhere(tensor: Tensor, name: str) -> bool:
    """Whether a CPU tensor is not allowed in a GPU operation; single numbers mostly are."""
    return not isinstance(tensor, OnGpu) and (tensor.dim() > 0 or name in {"stack", "cat"})


def _has_unknown_shape(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the shape of the result depends on values."""
    n_given = len(args) + len(kwargs)
    by_mask = name.startswith("index_put") and any(
        isinstance(t, Tensor) and t.dtype == torch.bool for t in tree_leaves(args[1:])
    )
    return by_mask or (
        (name == "where" and n_given == 1)
        or (name == "one_hot" and n_given == 1)
        or (name == "repeat_interleave" and any(isinstance(a, OnGpu) for a in args[1:]))
    )


def _device_attribute(func: Any, tensor: Tensor) -> Any:
    there = isinstance(tensor, OnGpu)
    on_gpu = {"device": GPU, "is_cuda": True, "is_cpu": False}
    plain = {"is_cuda": False, "is_cpu": True}
    what = (resolve_name(func) or "").removesuffix(".__get__").rpartition(".")[2]
    return (on_gpu if there else plain).get(what)


def _on(value: Any, there: bool) -> Any:
    with PLAIN():
        if there and type(value) is Tensor:
            return value.as_subclass(OnGpu)
        return value.as_subclass(Tensor) if isinstance(value, OnGpu) and not there else value


def _copied(tensor: Tensor, memo: dict[int, Any]) -> Tensor:
    if id(tensor) not in memo:
        with PLAIN():
            new = tensor.detach().as_subclass(Tensor).clone().as_subclass(OnGpu)
        learns = tensor.requires_grad
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        memo[id(tensor)] = torch.nn.Parameter(new, learns) if is_parameter else new
    return memo[id(tensor)]


def _pinned(tensor: Tensor, *_: object) -> Tensor:
    new = tensor.clone()
    new.is_pinned_here = True
    return new


class _Autocast(torch.autocast):
    """The CPU's autocast under the GPU's name."""

    def __init__(self, device_type: str, **options: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, **options)


def _grouped(tensors: Any, *more: Any) -> Any:
    groups = GROUP(tensors, *more)
    return {(GPU, dtype): found for (_, dtype), found in groups.items()}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    """A fake GPU, active during the test."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    mode, replace = PretendedGpu(), monkeypatch.setattr
    known: dict[str, Any] = {
        "is_available": True, "device_count": 1, "mem_get_info": (10**11, 10**11),
        "is_bf16_supported": True, "get_device_name": "fake GPU", "empty_cache": None,
    }  # fmt: skip
    for name, value in known.items():
        replace(torch.cuda, name, mock.Mock(return_value=value))
    replace(torch.cuda, "synchronize", lambda *_: mode.wait("synchronize"))
    replace(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    replace(Tensor, "pin_memory", _pinned)
    replace(torch, "autocast", _Autocast)
    for place in (torch.nn.utils.clip_grad, sys.modules[torch.optim.Optimizer.__module__]):
        replace(place, GROUP.__name__, _grouped)
    replace(torch.optim.Optimizer, "_accelerator_graph_capture_health_check", lambda self: None)
    # Otherwise a module keeps its parameter objects, with their type, and changes only their data.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with mode:
        yield mode
    torch.__future__.set_overwrite_module_params_on_conversion(False)
