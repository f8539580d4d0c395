"""A bundle's graph, run by ONNX Runtime or OpenVINO in single precision."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.errors import EnvironmentFault
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import STAINS, TileSpec
from ensemble_kit.inference.backends import ONNX, OPENVINO

GRAPH, IR = "model.onnx", ("model.xml", "model.bin")
BATCH = 16
HE = STAINS[0]
# OpenVINO uses bf16 by default if the processor has it.
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}
Read = Callable[[str], bytes]
Pixels = npt.NDArray[np.uint8]
Run = Callable[[Mapping[str, Pixels]], Sequence[Array]]


class OpenGraph:
    """A graph that is ready to run.

    Parameters
    ----------
    backend : str
    about : mapping
        `graph` in the bundle's record.
    run : callable
        Maps input names to pixels, returns probabilities and member logits.
    """

    def __init__(self, backend: str, about: Mapping[str, Any], run: Run) -> None:
        self._backend, self._run, self._join = backend, run, about.get("join", "none")
        self._inputs = {
            one["name"]: (
                TileSpec(one["image_size"], one["stain"], one["stain_norm"]),
                one.get("image", HE),
            )
            for one in about["inputs"]
        }

    @property
    def backend(self) -> str:
        """`onnxruntime` or `openvino`."""
        return self._backend

    @property
    def specs(self) -> Sequence[TileSpec]:
        """Sizes and settings of the tiles that the graph takes."""
        return list(dict.fromkeys(spec for spec, _ in self._inputs.values()))

    def logits(self, tiles: Mapping[TileSpec, Tiles]) -> Array:
        """Logits of all members, shape (n_images, n_members, n_classes), float32."""
        return self.run(tiles)[1]

    def run(self, tiles: Mapping[TileSpec, Tiles]) -> tuple[Array, Array]:
        """Probabilities and member logits of tiles."""
        n = len(tiles[self.specs[0]])
        parts = [
            self._run(
                {
                    name: self._part(spec, image, tiles[spec].pixels[start : start + BATCH])
                    for name, (spec, image) in self._inputs.items()
                }
            )
            for start in range(0, n, BATCH)
        ]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])

    def _part(self, spec: TileSpec, image: str, tiles: Pixels) -> Pixels:
        """The pixels of one input: whole tiles, or one image of a joined pair."""
        if self._join == "none" or spec.stain is not None:
            return np.ascontiguousarray(tiles)
        axis = 3 if self._join == "channels" else 2
        # If the width is odd, the H&E image has the larger half.
        halves = np.split(tiles, [tiles.shape[axis] - tiles.shape[axis] // 2], axis=axis)
        return np.ascontiguousarray(halves[0 if image == HE else 1])

    def run_pixels(self, images: Pixels, pairs: Pixels | None = None) -> tuple[Array, Array]:
        """Probabilities and member logits of whole images, or of pairs of H&E and IHC.

        Parameters
        ----------
        images, pairs : array of uint8, shape (n, height, width, 3)
        """
        given = {
            name: images if image == HE else pairs for name, (_, image) in self._inputs.items()
        }
        proba, logits = self._run(given)  # type: ignore[arg-type]
        return np.asarray(proba), np.asarray(logits)


def open_graph(
    backend: str, about: Mapping[str, Any], read: Read, *, n_threads: int | None = None
) -> OpenGraph:
    """Open a bundle's graph.

    Parameters
    ----------
    about : mapping
        `graph` in the bundle's record.
    read : callable
        Returns the checked content of a file of the bundle.
    n_threads : int, optional
        Threads of the backend. Default: the number of PyTorch's threads.

    Raises
    ------
    EnvironmentFault
        The backend cannot open the graph.
    """
    import torch

    threads = n_threads or torch.get_num_threads()
    try:
        run = _onnx(about, read, threads) if backend == ONNX else _openvino(about, read, threads)
    except EnvironmentFault:
        raise
    except Exception as error:  # each backend raises its own exceptions
        raise _unusable(backend, f"{type(error).__name__}: {str(error).splitlines()[0][:160]}") from error  # fmt: skip
    return OpenGraph(backend, about, run)


def _onnx(about: Mapping[str, Any], read: Read, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        read(about["onnx"]), options, providers=["CPUExecutionProvider"]
    )
    return lambda inputs: session.run(None, dict(inputs))


def _openvino(about: Mapping[str, Any], read: Read, threads: int) -> Run:
    import openvino

    files = [read(one) for one in (about["ir"] or (about["onnx"],))]
    core = openvino.Core()
    model = core.read_model(files[0], files[1] if len(files) > 1 else b"")
    compiled = core.compile_model(model, "CPU", {**PRECISION, "INFERENCE_NUM_THREADS": threads})

    def run(inputs: Mapping[str, Pixels]) -> Sequence[Array]:
        found = compiled(dict(inputs))
        # Copies: the next call writes into the same memory.
        return [np.array(found[i]) for i in range(2)]

    return run


_TRY = (
    "import sys, openvino; core = openvino.Core(); a = [open(f, 'rb').read() for f in sys.argv[1:]]; "
    "core.compile_model(core.read_model(a[0], a[1] if len(a) > 1 else b''), 'CPU', "
    "{'INFERENCE_PRECISION_HINT': 'f32'})"
)


def try_openvino(about: Mapping[str, Any], read: Read) -> None:
    """Compile a graph in a separate process, because the compiler can crash its process.

    Raises
    ------
    EnvironmentFault
        The compiler crashed or failed.
    """
    names = about["ir"] or (about["onnx"],)
    with tempfile.TemporaryDirectory() as scratch:
        places = [Path(scratch) / Path(name).name for name in names]
        for place, name in zip(places, names, strict=True):
            place.write_bytes(read(name))
        done = subprocess.run(
            [sys.executable, "-c", _TRY, *map(os.fspath, places)],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        last_line = (done.stderr.strip().splitlines() or [f"signal {-done.returncode}"])[-1]
        raise _unusable(
            OPENVINO, f"compiling it ended with code {done.returncode} ({last_line[:160]})"
        )


def _unusable(backend: str, what: str) -> EnvironmentFault:
    return EnvironmentFault(
        f"The backend '{backend}' cannot open the graph on this machine",
        what,
        "Use --backend torch, or another version of the package",
    )
