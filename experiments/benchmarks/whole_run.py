"""How long does a whole run (members x folds) take, with one job at a time and with several?

    python experiments/benchmarks/whole_run.py --data DIR --members all --folds 5 --slots 1,2
    python experiments/benchmarks/whole_run.py --synthetic 8000 --device cuda --slots 1,4 --json FILE

The peer is our run with one slot: all jobs in one process, one after the other. Every run starts with
an empty folder and measures the precision again. The tiles are decoded before the first run. Prints
seconds, images per second of the whole run, and peak memory of the largest process and of the GPU.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from training import machine

from ensemble_kit.files import write_json
from ensemble_kit.folds import make_folds
from ensemble_kit.images.digests import with_digests
from ensemble_kit.images.tiles.build import build_tiles
from ensemble_kit.launch.local import LocalEngine
from ensemble_kit.manifest.layouts.detect import read_manifest
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.events import EpochEnded
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.registry import expand
from ensemble_kit.members.training.precision import choose_device
from ensemble_kit.run import Run, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument(
        "--synthetic", type=int, default=0, help="number of random tiles to use instead of DIR"
    )
    parser.add_argument("--members", default="all")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--slots", default="1,2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="two small networks, 32 px, one epoch")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.members, args.size, args.epochs, args.folds = "tiny_cnn,tiny_mobile", 32, 1, 2
        args.synthetic = min(args.synthetic, 200)
    with tempfile.TemporaryDirectory() as scratch:
        manifest = data(args, Path(scratch))
        build_tiles(manifest, args.size, cache_dir=Path(scratch) / "tiles-cache")
        rows = [
            one_run(manifest, args, int(slots), Path(scratch)) for slots in args.slots.split(",")
        ]
    first = rows[0]["seconds"]
    ratios = {
        f"slots_{r['slots']}_vs_{rows[0]['slots']}": round(first / r["seconds"], 2)
        for r in rows[1:]
    }
    for row in rows:
        print("  ".join(f"{k} {v}" for k, v in row.items()))
    print(ratios)
    if args.json:
        result = {
            "benchmark": "whole_run",
            "machine": {**machine(), **device_facts(args.device)},
            "versions": versions(),
        }
        write_json(
            args.json, {**result, "settings": settings(args), "rows": rows, "ratios": ratios}
        )


def data(args: argparse.Namespace, scratch: Path) -> Manifest:
    if args.synthetic or args.data is None:
        return synthetic(args.synthetic or 200, args.size, scratch / "tiles")
    return with_digests(read_manifest(args.data))


def synthetic(n: int, size: int, folder: Path) -> Manifest:
    """Random tiles of two classes and n / 20 groups."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = []
    for i in range(n):
        name = f"{i:05d}.jpg"
        pixels = rng.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((size, size)).save(folder / name, quality=80)
        rows.append((name, name, "ab"[(i // 20) % 2], f"g{i // 20}"))
    return with_digests(Manifest.from_records(rows, root=folder, name=f"{n} random tiles"))


def one_run(manifest: Manifest, args: argparse.Namespace, slots: int, scratch: Path) -> dict:
    recipe = Recipe(epochs=args.epochs, batch_size=args.batch)
    members = [
        Member(n, image_size=args.size, pretrained=False, recipe=recipe)
        for n in expand(args.members.split(","))
    ]
    events: list[EpochEnded] = []

    def collect(event: object) -> None:
        if isinstance(event, EpochEnded):
            events.append(event)

    folds = make_folds(manifest, args.folds, seed=0)
    os.environ["ENSEMBLE_KIT_CACHE"] = str(scratch / f"probed-{slots}")
    began = time.perf_counter()
    with GpuMemory(choose_device(args.device)) as gpu:
        fit_members(
            members, manifest, folds, Run(scratch / f"slots-{slots}"), device=args.device, listener=collect,
            cache=scratch / "tiles-cache", engine=LocalEngine(slots) if slots > 1 else None, tensorboard=False,
        )  # fmt: skip
    seconds = time.perf_counter() - began
    trained = sum(e.seconds * e.images_per_second for e in events)
    who = resource.RUSAGE_CHILDREN if slots > 1 else resource.RUSAGE_SELF
    return {
        "slots": slots,
        "jobs": len(members) * folds.n_splits,
        "seconds": round(seconds, 1),
        "images_per_second": round(trained / seconds, 1),
        "peak_process_mib": resource.getrusage(who).ru_maxrss // 1024,
        "peak_card_mib": gpu.peak_mib,
    }


class GpuMemory:
    """Peak memory of the GPU inside the block, over all processes, sampled every 0.1 s."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._ended = device, threading.Event()
        self.peak_mib: int | None = 0 if device.type == "cuda" else None

    def __enter__(self) -> GpuMemory:
        self._thread = threading.Thread(target=self._sample, daemon=True)
        if self.peak_mib is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _sample(self) -> None:
        while not self._ended.wait(0.1):
            free, total = torch.cuda.mem_get_info(self._device)
            self.peak_mib = max(self.peak_mib or 0, (total - free) // 2**20)


def device_facts(name: str) -> dict:
    device = choose_device(name)
    return {"device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type}


def settings(args: argparse.Namespace) -> dict:
    return {k: v for k, v in vars(args).items() if k not in {"json", "data", "quick"}}


if __name__ == "__main__":
    main()
