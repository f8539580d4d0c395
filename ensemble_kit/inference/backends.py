"""The choice of the backend that runs the networks: PyTorch, ONNX Runtime or OpenVINO."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from ensemble_kit.errors import EnvironmentFault, UsageError, did_you_mean

AUTO, TORCH, ONNX, OPENVINO = "auto", "torch", "onnxruntime", "openvino"
# Backends that need a graph, in the order in which `auto` tries them (experiments/benchmarks/inference.py).
OF_GRAPH = (ONNX, OPENVINO)
BACKENDS = (AUTO, TORCH, *OF_GRAPH)
WITH_GRAPH = "Export the run with --format onnx"


def is_installed(backend: str) -> bool:
    """Whether the package of a backend can be imported."""
    return importlib.util.find_spec(backend) is not None


def choose_backend(requested: str, graph: Mapping[str, Any] | None, *, on_cpu: bool) -> str:
    """The backend to use for a bundle.

    Parameters
    ----------
    requested : str
        One of `BACKENDS`.
    graph : mapping, optional
        `graph` in the bundle's record.
    on_cpu : bool
        Whether the device is the CPU.

    Raises
    ------
    UsageError
        The backend is unknown, or it needs a graph or the CPU.
    EnvironmentFault
        The backend is not installed.
    """
    _refuse_unknown(requested)
    if requested == AUTO:
        usable = [one for one in _usable(graph) if on_cpu and is_installed(one)]
        return (*usable, TORCH)[0]
    if requested == TORCH:
        return requested
    if requested not in _usable(graph):
        raise UsageError(
            f"The backend '{requested}' needs a graph",
            f"this bundle has graphs for {', '.join(_usable(graph)) or 'no backend'}",
            WITH_GRAPH,
        )
    if not on_cpu:
        raise UsageError(
            f"The backend '{requested}' runs on the CPU only",
            "the chosen device is not the CPU",
            "Use --device cpu, or --backend torch",
        )
    refuse_absent(requested)
    return requested


def _usable(graph: Mapping[str, Any] | None) -> list[str]:
    """The backends that can use a bundle's graph. OpenVINO reads ONNX too."""
    if not graph:
        return []
    return [one for one in OF_GRAPH if one == OPENVINO or graph["onnx"]]


def refuse_absent(package: str) -> None:
    """Raise `EnvironmentFault` with the name of the extra if a package is not installed."""
    if not is_installed(package):
        extra = OPENVINO if package == OPENVINO else "onnx"
        raise EnvironmentFault(
            f"The package '{package}' is not installed",
            f"it comes with the extra '{extra}'",
            f"Install it: pip install 'ensemble-kit[{extra}]', or use PyTorch",
        )


def refuse_graph_of_run(requested: str) -> None:
    """Raise `UsageError` if a backend needs a graph: a run folder has no graph."""
    _refuse_unknown(requested)
    if requested not in (AUTO, TORCH):
        raise UsageError(
            f"The backend '{requested}' needs a bundle with a graph",
            "a run folder has none",
            f"{WITH_GRAPH}, then open the bundle",
        )


def _refuse_unknown(requested: str) -> None:
    if requested not in BACKENDS:
        raise UsageError(
            f"Unknown backend '{requested}'",
            f"the backends are {', '.join(BACKENDS)}",
            did_you_mean(requested, BACKENDS),
        )
