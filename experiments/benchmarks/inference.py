"""Images per second of an ensemble's prediction: our backends, and members called in turn.

    python experiments/benchmarks/inference.py [--quick] [--json FILE]

Five networks with untrained weights (the weights do not change the time), 224 px, mean of their
probabilities. The first table starts from tiles in memory. The second starts from image files and
includes decoding and resizing; peers decode with Pillow, one file after the other. All sides run
interleaved in one process. Values are medians of the rounds. A ratio above 1 means that our backend is
faster.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from PIL import Image
from untrained import MEAN, NETWORKS, STD, untrained

from ensemble_kit.export.graph_files import onnx_bytes
from ensemble_kit.export.pixel_graph import PixelGraph
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.graphs import open_graph
from ensemble_kit.inference.sources import Source, file_source
from ensemble_kit.run import versions

Predict = Callable[[], Any]


def peers(ensemble: Ensemble, threads: int) -> dict[str, Callable[[np.ndarray], Any]]:
    """Functions that call members one after the other, on tiles of shape (n, size, size, 3)."""
    models = [one.by_fold[0].model for one in ensemble.members]
    plain = [m.to(memory_format=torch.contiguous_format) for m in map(copy.deepcopy, models)]

    def normalised(tiles: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(tiles).permute(0, 3, 1, 2).float().div(255)
        return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]

    def eager(tiles: np.ndarray) -> Any:
        with torch.inference_mode():
            x = normalised(tiles).contiguous()
            return torch.stack([m(x).softmax(dim=1) for m in plain]).mean(dim=0)

    def bf16(tiles: np.ndarray) -> Any:
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            x = normalised(tiles).contiguous(memory_format=torch.channels_last)
            return torch.stack([m(x).float().softmax(dim=1) for m in models]).mean(dim=0)

    size = ensemble.specs[0].image_size
    sessions = [_session(model, size, threads) for model in plain]

    def in_turn(tiles: np.ndarray) -> Any:
        x = normalised(tiles).numpy()
        logits = [torch.from_numpy(s.run(None, {"x": x})[0]) for s in sessions]
        return torch.stack([z.softmax(dim=1) for z in logits]).mean(dim=0)

    return {
        "(a) PyTorch fp32, members in turn": eager,
        "(b) PyTorch bf16, channels_last": bf16,
        "(c) ONNX Runtime, a session each": in_turn,
    }


def _session(model: torch.nn.Module, size: int, threads: int) -> onnxruntime.InferenceSession:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.zeros(2, 3, size, size),), out, dynamo=False, opset_version=18,
            input_names=["x"], dynamic_axes={"x": {0: "n"}},
        )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(out.getvalue(), options)


def interleaved(ways: dict[str, Predict], n: int, rounds: int) -> dict[str, float]:
    """Images per second: the median over interleaved rounds, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, predict in ways.items():
            began = time.perf_counter()
            predict()
            if turn:
                seconds[name].append(time.perf_counter() - began)
    return {name: n / float(np.median(taken)) for name, taken in seconds.items()}


def files_in(folder: Path, n: int) -> list[Source]:
    """BreakHis-like image files of 700 x 460 pixels."""
    rng = np.random.default_rng(0)
    for i in range(n):
        small = Image.fromarray(rng.integers(90, 255, (46, 70, 3)).astype(np.uint8))
        small.resize((700, 460), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return [file_source(folder, f"{i}.png", name=str(i)) for i in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    size, n, rounds = (64, 4, 1) if args.quick else (224, 16, 5)
    threads = min(2, os.cpu_count() or 1)
    torch.set_num_threads(threads)
    ensemble = untrained(size)
    module = PixelGraph(ensemble, {}).eval()
    content = onnx_bytes(module)
    about = {"inputs": module.inputs, "onnx": "model.onnx", "ir": None}
    ours = {"torch": ensemble}
    for name in ("onnxruntime", "openvino"):
        graph = open_graph(name, about, lambda _: content, n_threads=threads)
        ours[name] = Ensemble(ensemble.stored, (), ensemble.manifest, graph=graph)
    pixels = np.random.default_rng(0).integers(0, 256, (n, size, size, 3)).astype(np.uint8)
    tiles = {TileSpec(size): Tiles(pixels, np.arange(n).astype(str), "", size)}
    others = peers(ensemble, threads)
    want = others["(a) PyTorch fp32, members in turn"](pixels).numpy()
    for one in ours.values():
        assert np.abs(one.stored.combine(one.member_logits(tiles)).proba - want).max() < 1e-4
    rows = []
    from_tiles: dict[str, Predict] = {
        **{f"ours, {name}": lambda one=one: one.member_logits(tiles) for name, one in ours.items()},
        **{name: lambda peer=peer: peer(pixels) for name, peer in others.items()},
    }
    rows.append(("tiles to probabilities", interleaved(from_tiles, n, rounds)))
    with tempfile.TemporaryDirectory() as scratch:
        sources = files_in(Path(scratch), n)
        paths = [Path(scratch) / f"{i}.png" for i in range(n)]

        def decoded() -> np.ndarray:
            resized = [Image.open(p).convert("RGB").resize((size, size), Image.Resampling.BICUBIC) for p in paths]  # fmt: skip
            return np.stack([np.asarray(one) for one in resized])

        from_files: dict[str, Predict] = {
            **{
                f"ours, {name}": lambda one=one: one.predict_sources(sources)
                for name, one in ours.items()
            },
            **{name: lambda peer=peer: peer(decoded()) for name, peer in others.items()},
        }
        rows.append(("files to probabilities", interleaved(from_files, n, rounds)))
    report(rows, args, threads)


def report(
    rows: list[tuple[str, dict[str, float]]], args: argparse.Namespace, threads: int
) -> None:
    """Print the tables and write the JSON."""
    found = []
    for question, rates in rows:
        best = max((r, name) for name, r in rates.items() if name.startswith("ours"))
        print(f"\n{question}: images per second; best of ours: {best[1]}")
        for name, rate in rates.items():
            print(f"  {name:36} {rate:7.2f}   best of ours / this: {best[0] / rate:.2f}")
        found.append({"question": question, "images_per_second": rates, "best": best[1],
                      "ratio": {n: best[0] / r for n, r in rates.items()}})  # fmt: skip
    if args.json:
        flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
        machine = {"processor": platform.machine(), "threads": threads,
                   "amx": "amx_" in flags, "avx512_bf16": "avx512_bf16" in flags}  # fmt: skip
        packages = {**versions(), "onnxruntime": onnxruntime.__version__}
        about = {"benchmark": "inference", "quick": args.quick, "weights": "untrained",
                 "networks": list(NETWORKS), "machine": machine, "versions": packages}  # fmt: skip
        args.json.write_text(json.dumps({**about, "rows": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
