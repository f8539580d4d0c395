"""The speed of a bundle on this machine, with each installed backend in a separate process.

The golden images of the bundle are predicted.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

from ensemble_kit.errors import UsageError
from ensemble_kit.inference.backends import OF_GRAPH, TORCH, is_installed
from ensemble_kit.inference.bundle_files import is_bundle, open_files

# Number of single predictions for the latencies.
N_SINGLE = 100


@dataclasses.dataclass(frozen=True)
class Speed:
    """The speed of one backend.

    Parameters
    ----------
    backend : str
    images_per_second : float
        Throughput of the networks, with all golden images in one batch.
    p50_ms, p99_ms : float
        Time from one decoded image to its prediction.
    memory_mib : float
        Largest resident memory of the process, libraries included.
    open_seconds : float
    error : str
        The reason of a failure, or "".
    """

    backend: str
    images_per_second: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    memory_mib: float | None = None
    open_seconds: float | None = None
    error: str = ""


def bench_bundle(path: str | os.PathLike[str]) -> list[Speed]:
    """Measure every installed backend that can run the bundle.

    Raises
    ------
    UsageError
        The path is not a bundle.
    """
    if not is_bundle(path):
        raise UsageError(
            f"'{os.fspath(path)}' is not a bundle",
            "bench needs a bundle",
            "Write one: ensemble-kit export RUN BUNDLE --format onnx",
        )
    with open_files(path) as files:
        graph = files.record["graph"] or {}
    has = {"onnxruntime": graph.get("onnx"), "openvino": graph}
    names = [TORCH, *(one for one in OF_GRAPH if has[one] and is_installed(one))]
    return [_in_a_process(os.fspath(path), name) for name in names]


def _in_a_process(path: str, backend: str) -> Speed:
    code = "import sys; from ensemble_kit.export.bench import main; main(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, path, backend],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"code {done.returncode}"])[-1]
        return Speed(backend, error=last[:300])
    return Speed(**json.loads(done.stdout.splitlines()[-1]))


def main(path: str, backend: str) -> None:
    """Measure one backend in this process, and write the values as JSON to standard output."""
    sys.stdout.write(json.dumps(dataclasses.asdict(_measured(path, backend))) + "\n")


def _measured(path: str, backend: str) -> Speed:
    from ensemble_kit.inference.ensemble import load_ensemble
    from ensemble_kit.inference.golden import golden_sources

    began = time.perf_counter()
    ensemble = load_ensemble(path, device="cpu", backend=backend)
    opened = time.perf_counter() - began
    with open_files(path) as files:
        sources = golden_sources(files)
    tiles = ensemble.tiles_of(sources)
    ensemble.member_logits(tiles)
    rates = [len(sources) / _seconds(ensemble.member_logits, tiles) for _ in range(5)]
    ensemble.predict_sources(sources[:1])
    singles = [
        1000 * _seconds(ensemble.predict_sources, [sources[i % len(sources)]])
        for i in range(N_SINGLE)
    ]
    return Speed(
        backend,
        float(np.median(rates)),
        float(np.percentile(singles, 50)),
        float(np.percentile(singles, 99)),
        _memory_mib(),
        opened,
    )


def _seconds(call: Any, value: Any) -> float:
    began = time.perf_counter()
    call(value)
    return time.perf_counter() - began


def _memory_mib() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
