"""Writing an ensemble as an ONNX file or OpenVINO model, after a comparison with PyTorch on real images."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ensemble_kit.arrays import Array
from ensemble_kit.errors import EnvironmentFault, UsageError
from ensemble_kit.export.pixel_graph import PixelGraph
from ensemble_kit.inference.backends import ONNX, OPENVINO, is_installed, refuse_absent
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.golden import TOLERANCE
from ensemble_kit.inference.graphs import GRAPH, IR, open_graph
from ensemble_kit.inference.sources import Source

OPSET = 18
CLASSES = (
    "The predicted class is the class of highest probability. Tied votes, abstentions and costs are "
    "exceptions: load_ensemble handles them."
)
# An ONNX file is a protobuf message, which is limited to 2 GiB.
MAX_BYTES = 19 * 2**30 // 10
OUTPUTS = ("probabilities", "member_logits")
RESIZE = (
    "Images of any size are resized inside the graph by Pillow's bicubic rule, first the width, then the "
    "height. A few pixels in ten thousand differ from Pillow by one grey level. Pillow resizes images that "
    "are much taller than wide in the other order, so their values differ by a few grey levels."
)


def graph_files(
    ensemble: Ensemble, data: Mapping[str, str], fmt: str
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files of a graph, and its entry in the bundle's record.

    Parameters
    ----------
    data : mapping
        The run's data settings: see `PixelGraph`.
    fmt : {"onnx", "openvino"}

    Raises
    ------
    UsageError
        The ensemble cannot be exported as a graph.
    EnvironmentFault
        A package is not installed.
    """
    refuse_absent(ONNX if fmt == "onnx" else OPENVINO)
    refuse_absent("onnx")
    module = PixelGraph(ensemble, data).eval()
    _refuse_too_large(module)
    content = onnx_bytes(module)
    about = {
        "inputs": module.inputs,
        "join": module.join,
        "input_layout": "uint8, (batch, height, width, 3), RGB, any size",
        "outputs": list(OUTPUTS),
        "classes": CLASSES,
        "opset": OPSET,
        "resize": RESIZE,
    }
    if fmt == "onnx":
        return {GRAPH: content}, {"onnx": GRAPH, "ir": None, **about}
    return _intermediate(content), {"onnx": None, "ir": list(IR), **about}


def _refuse_too_large(module: PixelGraph) -> None:
    n_bytes = sum(one.numel() * one.element_size() for one in module.state_dict().values())
    if n_bytes > MAX_BYTES:
        raise UsageError(
            f"The networks are too large for one graph: {n_bytes / 2**30:.1f} GiB",
            f"one ONNX file can have at most {MAX_BYTES / 2**30:.1f} GiB",
            "Use --folds best, or --format bundle",
        )


def onnx_bytes(module: PixelGraph) -> bytes:
    """The module as one ONNX file with dynamic batch, height and width."""
    names = [one["name"] for one in module.inputs]
    axes = {name: {0: "batch", 1: "height", 2: "width"} for name in names}
    # Not the size of a tile, so that the trace contains the resizing.
    example = tuple(
        torch.zeros((2, one["image_size"] + 9, one["image_size"] + 5, 3), dtype=torch.uint8)
        for one in module.inputs
    )
    out = io.BytesIO()
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            example,
            out,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=names,
            output_names=list(OUTPUTS),
            dynamic_axes={**axes, **{name: {0: "batch"} for name in OUTPUTS}},
            external_data=False,
        )
    return out.getvalue()


def _intermediate(content: bytes) -> dict[str, bytes]:
    """OpenVINO's two files, in single precision."""
    import openvino

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / IR[0]
        model = openvino.Core().read_model(content, b"")
        openvino.save_model(model, str(path), compress_to_fp16=False)
        return {name: (Path(scratch) / name).read_bytes() for name in IR}


def compare_graph(
    ensemble: Ensemble, files: dict[str, bytes], about: dict[str, Any], sources: Sequence[Source]
) -> dict[str, float]:
    """The largest difference of a probability between each backend and PyTorch, on real images.

    `NAME` compares the same tiles. `NAME_from_pixels` compares whole images, resized by the graph.

    Raises
    ------
    EnvironmentFault
        A backend gives other probabilities.
    """
    found: dict[str, float] = {}
    want = ensemble.predict_sources(sources)
    tiles = ensemble.tiles_of(sources)
    for backend in (ONNX, OPENVINO):
        if not is_installed(backend) or (backend == ONNX and about["onnx"] is None):
            continue
        graph = open_graph(backend, about, files.__getitem__)
        by_tiles = graph.run(tiles)
        found[backend] = _difference(backend, by_tiles, want.proba, sources)
        by_pixels = [graph.run_pixels(*_whole(one)) for one in sources[:8]]
        whole = np.concatenate([proba for proba, _ in by_pixels])
        found[f"{backend}_from_pixels"] = float(np.abs(whole - want.proba[: len(whole)]).max())
    return found


def _whole(source: Source) -> list[npt.NDArray[np.uint8]]:
    """The pixels of an image or of a pair, with a batch axis."""
    return [source.read(path)[None] for path in (source.path, source.pair_path) if path]


def _difference(
    backend: str, outputs: tuple[Array, Array], want: Array, sources: Sequence[Source]
) -> float:
    proba = outputs[0]
    difference = float(np.abs(proba - want).max())
    if not difference <= TOLERANCE:
        raise EnvironmentFault(
            f"The graph with {backend} does not reproduce PyTorch: the largest difference of a "
            f"probability on {len(sources)} images is {difference:.2g}",
            f"at most {TOLERANCE:g} is accepted",
            "No file was written. Use --format bundle, which predicts with PyTorch",
        )
    return difference
