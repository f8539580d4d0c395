"""How many images per second go from files to augmented batches, compared with torchvision?

    python experiments/benchmarks/pixels.py --data DIR [--quick] [--json FILE]

DIR is a BreakHis archive or a folder of class folders. The peer is ImageFolder + DataLoader with
torchvision's v2 transforms, on PIL images and on decoded tensors, with 0, 1 and 2 persistent workers.
The best peer is reported. Both sides resize to the same square by antialiased bicubic, and flip, rotate
(bilinear) and jitter colours in the same ranges. In the first epoch, ours digests, decodes and caches,
and the peer starts its workers; files are in the page cache for both. Later epochs are interleaved, and
their medians are reported. `data_wait_share` is the proportion of an epoch in which a training ResNet18
waits for its batch.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import timm
import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from ensemble_kit.files import write_json
from ensemble_kit.images.augmentation.presets import Augmentation
from ensemble_kit.images.digests import with_digests
from ensemble_kit.images.loading.batches import Batches
from ensemble_kit.images.tiles.build import build_tiles
from ensemble_kit.manifest.layouts.breakhis import breast_folder
from ensemble_kit.manifest.layouts.detect import read_manifest
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.run import versions

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
AUGMENTATION = Augmentation(
    flip_horizontal=True,
    flip_vertical=True,
    rotation=30,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    hue=0.05,
)
Epoch = Callable[[int], Iterable[object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=6, help="number of later epochs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="fewer epochs, fewer peers")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.quick:
        args.epochs = 2
    manifest = read_manifest(args.data)
    with tempfile.TemporaryDirectory() as scratch:
        rows = speeds(manifest, peers(args, len(manifest)), Path(scratch), args)
        waiting = data_wait_share(manifest, Path(scratch), args)
    report(rows, waiting, args)


# -- ours ----------------------------------------------------------------------------------


def ours(manifest: Manifest, cache_dir: Path, args: argparse.Namespace) -> Batches:
    manifest = with_digests(manifest)
    tiles = build_tiles(manifest, args.size, cache_dir=cache_dir)
    return Batches(
        tiles,
        tiles.rows(manifest.sample_ids),
        manifest.labels,
        batch_size=args.batch,
        device=args.device,
        mean=MEAN,
        std=STD,
        augmentation=AUGMENTATION,
    )


# -- the peer ------------------------------------------------------------------------------


def peers(args: argparse.Namespace, n_images: int) -> dict[str, Callable[[], DataLoader]]:
    def loader(kind: str, workers: int) -> DataLoader:
        read = {"loader": read_tensor} if kind == "tensor" else {}
        data = ImageFolder(breast_folder(args.data) or args.data, transforms_of(args.size), **read)
        if len(data) != n_images:
            raise SystemExit(f"the peer has {len(data)} images, ours has {n_images}")
        return DataLoader(
            data, args.batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0
        )

    counts = (2,) if args.quick else (0, 1, 2)
    return {
        f"imagefolder_{kind}_{workers}_workers": (
            lambda kind=kind, workers=workers: loader(kind, workers)
        )
        for kind in ("pil", "tensor")
        for workers in counts
    }


def read_tensor(path: str) -> Tensor:
    return decode_image(path, mode=ImageReadMode.RGB)


def transforms_of(size: int) -> v2.Compose:
    return v2.Compose(
        [
            v2.ToImage(),
            v2.Resize((size, size), interpolation=v2.InterpolationMode.BICUBIC, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandomVerticalFlip(),
            v2.RandomRotation(30, interpolation=v2.InterpolationMode.BILINEAR),
            v2.ColorJitter(0.2, 0.2, 0.2, 0.05),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


# -- measuring -----------------------------------------------------------------------------


def speeds(
    manifest: Manifest,
    loaders: dict[str, Callable[[], DataLoader]],
    scratch: Path,
    args: argparse.Namespace,
) -> list[dict[str, object]]:
    for path in manifest.table["path"]:  # Brings the files into the page cache.
        (manifest.root / path).read_bytes()
    first: dict[str, float] = {}
    later: dict[str, list[float]] = {name: [] for name in ("ours", *loaders)}
    made: dict[str, Epoch] = {}
    began = time.perf_counter()
    batches = ours(manifest, scratch / "first", args)
    drain(batches.epoch(0), args.device)
    first["ours"] = time.perf_counter() - began
    made["ours"] = batches.epoch
    for name, make in loaders.items():
        began = time.perf_counter()
        loader = make()
        drain(loader, args.device)
        first[name] = time.perf_counter() - began
        made[name] = lambda _, loader=loader: loader
    for k in range(1, args.epochs + 1):
        for name, epoch in made.items():
            began = time.perf_counter()
            drain(epoch(k), args.device)
            later[name].append(time.perf_counter() - began)
    n = len(manifest)
    return [
        {
            "way": name,
            "first_epoch_images_per_second": round(n / first[name], 1),
            "later_epochs_images_per_second": round(n / statistics.median(later[name]), 1),
            "later_epochs_ms_per_image": round(1000 * statistics.median(later[name]) / n, 3),
        }
        for name in later
    ]


def drain(batches: Iterable[object], device: str) -> None:
    for batch in batches:
        images = batch[0] if isinstance(batch, tuple | list) else batch
        images.to(device)  # type: ignore[attr-defined]
    if device != "cpu":
        torch.cuda.synchronize()


def data_wait_share(manifest: Manifest, scratch: Path, args: argparse.Namespace) -> float:
    """Proportion of one epoch of ResNet18 training in which it waits for batches."""
    rows = slice(0, 64 if args.quick else len(manifest))
    batches = ours(manifest.take(list(range(len(manifest)))[rows]), scratch / "wait", args)
    network = timm.create_model("resnet18", num_classes=2).to(
        args.device, memory_format=torch.channels_last
    )
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    for _ in range(2):  # The first epoch is a warm-up.
        waited, began = 0.0, time.perf_counter()
        for images, labels, seconds in timed(batches.epoch(0), args.device):
            waited += seconds
            images = images.contiguous(memory_format=torch.channels_last)
            torch.nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            if args.device != "cpu":
                torch.cuda.synchronize()
        total = time.perf_counter() - began
    shutil.rmtree(scratch / "wait")
    return waited / total


def timed(
    batches: Iterator[tuple[Tensor, Tensor, Tensor]], device: str
) -> Iterator[tuple[Tensor, Tensor, float]]:
    while True:
        began = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        if device != "cpu":
            torch.cuda.synchronize()
        yield batch[0], batch[1], time.perf_counter() - began


# -- reporting -----------------------------------------------------------------------------


def report(rows: list[dict[str, object]], waiting: float, args: argparse.Namespace) -> None:
    def best(key: str) -> float:
        return max(float(str(row[key])) for row in rows if row["way"] != "ours")

    mine = rows[0]
    ratios = {
        f"{when}_vs_imagefolder": round(float(str(mine[key])) / best(key), 2)
        for when, key in (
            ("first_epoch", "first_epoch_images_per_second"),
            ("later_epochs", "later_epochs_images_per_second"),
        )
    }
    ratios["data_wait_share"] = round(waiting, 4)
    print(f"{'way':32} {'first epoch':>12} {'later epochs':>13}   images per second")
    for row in rows:
        print(
            f"{row['way']:32} {row['first_epoch_images_per_second']:>12} {row['later_epochs_images_per_second']:>13}"
        )
    for name, value in ratios.items():
        print(f"{name}: {value}")
    if args.json:
        write_json(
            args.json,
            {
                "benchmark": "pixels",
                "machine": {
                    "processor": platform.processor() or platform.machine(),
                    "cores": os.cpu_count(),
                    "device": args.device,
                    "torch_threads": torch.get_num_threads(),
                    "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "unset"),
                },
                "versions": {**versions(), "torchvision": torchvision.__version__},
                "settings": {
                    "size": args.size,
                    "batch": args.batch,
                    "epochs": args.epochs,
                    "quick": args.quick,
                },
                "rows": rows,
                "ratios": ratios,
            },
        )


if __name__ == "__main__":
    main()
