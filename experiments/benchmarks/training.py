"""How many images a second does a member train on, against timm's own parts?

    python experiments/benchmarks/training.py --data DIR [--quick] [--losses] [--json FILE]

DIR is a BreakHis archive or a folder of class folders. Peers, in the same process and interleaved:
timm's ImageDataset, loader (2 workers) and optimizer, (a) as they come, in float32, and (b) with
bf16 autocast and channels_last. All train the same network from the same seeds, on the same images,
with the same size, batch, optimizer and augmentation (the preset "light"). Counted are the second
and later epochs, data time included. `--losses` adds: do they end at the same validation loss?
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
from timm.data import ImageDataset, create_loader
from timm.optim import create_optimizer_v2
from torchvision import transforms

from ensemble_kit.files import write_json
from ensemble_kit.images.presets import preset
from ensemble_kit.images.tiles import build_tiles
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.catalogue import timm_name
from ensemble_kit.members.fit import Fit, Rows
from ensemble_kit.members.recipe import Member, Recipe
from ensemble_kit.run import versions

NETWORKS = ("resnet18", "efficientnet_b0", "densenet121", "efficientnetv2_b0")
PEERS = ("timm_default", "timm_best")
RATE = 3e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="fewer images, smaller, two networks")
    parser.add_argument(
        "--losses", action="store_true", help="compare validation losses over 5 seeds"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    networks = args.networks.split(",")
    if args.quick:
        networks, args.size, args.images, args.epochs = networks[:2], 64, 64, 3
    with tempfile.TemporaryDirectory() as scratch:
        data = Data(args, Path(scratch))
        rows = [row for network in networks for row in speeds(network, data, args)]
        losses = loss_rows(networks[0], data, args) if args.losses else []
    ratios = {
        f"{timm_name(n)}_vs_{peer}": round(speed(rows, n, "ours") / speed(rows, n, peer), 2)
        for n in networks
        for peer in PEERS
    }
    report(rows, losses, ratios, args)


class Data:
    """The same images for both sides: tiles for ours, class folders of links for timm."""

    def __init__(self, args: argparse.Namespace, scratch: Path) -> None:
        manifest = Manifest.from_path(args.data)
        picked = np.random.default_rng(0).permutation(len(manifest))
        self.train = manifest.take(np.sort(picked[: args.images]))
        self.watched = manifest.take(np.sort(picked[args.images : args.images + 100]))
        self.class_names = manifest.class_names
        self.tiles = build_tiles(manifest, args.size, cache_dir=scratch / "cache")
        self.folders = {n: scratch / n for n in ("train", "watched")}
        for name, part in (("train", self.train), ("watched", self.watched)):
            for c in self.class_names:
                (self.folders[name] / c).mkdir(parents=True)
            for row in part.table.itertuples():
                link = self.folders[name] / row.label / Path(row.path).name
                link.symlink_to((manifest.root / row.path).resolve())

    def rows(self) -> Rows:
        place = self.tiles.rows
        return Rows(
            place(self.train.sample_ids),
            self.train.labels,
            place(self.watched.sample_ids),
            self.watched.labels,
        )


def speeds(network: str, data: Data, args: argparse.Namespace) -> list[dict]:
    """Images per second of each line, epoch by epoch in turn."""
    lines = {"ours": ours(network, data, args)} | {p: peer(network, data, args, p) for p in PEERS}
    measured: dict[str, list[float]] = {name: [] for name in lines}
    for _ in range(args.epochs):
        for name, line in lines.items():
            measured[name].append(next(line))
    return [
        {
            "network": network,
            "line": name,
            "images_per_second": round(statistics.median(values[1:]), 2),
            "first_epoch": round(values[0], 2),
        }
        for name, values in measured.items()
    ]


def ours(network: str, data: Data, args: argparse.Namespace):
    """Yields the images per second of one epoch at a time."""
    member = Member(network, pretrained=False, recipe=recipe(1000, args))
    fit = Fit.start(
        member,
        data.tiles,
        len(data.class_names),
        device=torch.device("cpu"),
        precision="auto",
        seed=0,
    )

    def pause(_: object) -> None:
        raise Pause

    while True:
        with contextlib.suppress(Pause):
            fit.run(data.rows(), pause)
        yield fit.training.history[-1]["images_per_second"]


class Pause(Exception):
    """Raised after an epoch, so that the other lines get their turn; training goes on from there."""


def recipe(epochs: int, args: argparse.Namespace) -> Recipe:
    return Recipe(
        epochs=epochs, batch_size=args.batch, learning_rate=RATE, weight_decay=0.02, warmup_epochs=0,
        schedule="constant", augmentation="light",
    )  # fmt: skip


def peer(network: str, data: Data, args: argparse.Namespace, kind: str, seed: int = 0):
    """Yields the images per second of one epoch at a time, of timm's parts."""
    best = kind == "timm_best"
    torch.manual_seed(seed)
    model = timm.create_model(timm_name(network), num_classes=len(data.class_names)).train()
    if best:
        model = model.to(memory_format=torch.channels_last)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=RATE, weight_decay=0.02)
    loader = peer_loader(data, args, model, training=True)
    criterion = torch.nn.CrossEntropyLoss()
    while True:
        began, n = time.perf_counter(), 0
        for images, labels in loader:
            if best:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=best):
                loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            n += len(labels)
        peer.model = model
        yield n / (time.perf_counter() - began)


def peer_loader(data: Data, args: argparse.Namespace, model: torch.nn.Module, *, training: bool):
    dataset = ImageDataset(str(data.folders["train" if training else "watched"]))
    loader = create_loader(
        dataset, input_size=(3, args.size, args.size), batch_size=args.batch, is_training=training,
        use_prefetcher=False, num_workers=2, persistent_workers=True,
    )  # fmt: skip
    light, config = preset("light"), model.pretrained_cfg
    jitter = transforms.ColorJitter(light.brightness, light.contrast, light.saturation, light.hue)
    turns = transforms.RandomChoice([transforms.RandomRotation((a, a)) for a in (0, 90, 180, 270)])
    moved = [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip(), turns, jitter]
    dataset.transform = transforms.Compose(
        [
            transforms.Resize(
                (args.size, args.size), interpolation=transforms.InterpolationMode.BICUBIC
            ),
            *(moved if training else []),
            transforms.ToTensor(),
            transforms.Normalize(config["mean"], config["std"]),
        ]
    )
    return loader


def loss_rows(network: str, data: Data, args: argparse.Namespace) -> list[dict]:
    """Validation loss after three epochs, over five seeds, of ours and of timm's best."""
    out = []
    for seed in range(5):
        member = Member(network, pretrained=False, recipe=recipe(3, args))
        fit = Fit.start(
            member,
            data.tiles,
            len(data.class_names),
            device=torch.device("cpu"),
            precision="auto",
            seed=seed,
        )
        fit.run(data.rows(), lambda _: None)
        out.append(
            {
                "line": "ours",
                "seed": seed,
                "val_log_loss": round(fit.training.history[-1]["val_log_loss"], 4),
            }
        )
        line = peer(network, data, args, "timm_best", seed)
        for _ in range(3):
            next(line)
        out.append(
            {"line": "timm_best", "seed": seed, "val_log_loss": round(peer_loss(data, args), 4)}
        )
    return out


@torch.no_grad()
def peer_loss(data: Data, args: argparse.Namespace) -> float:
    model, total, n = peer.model.eval(), 0.0, 0
    for images, labels in peer_loader(data, args, model, training=False):
        total += float(torch.nn.functional.cross_entropy(model(images), labels, reduction="sum"))
        n += len(labels)
    return total / n


def speed(rows: list[dict], network: str, line: str) -> float:
    return next(
        r["images_per_second"] for r in rows if (r["network"], r["line"]) == (network, line)
    )


def report(rows: list[dict], losses: list[dict], ratios: dict, args: argparse.Namespace) -> None:
    print(f"{'network':20} {'line':14} {'images/s':>9} {'first epoch':>12}")
    for row in rows:
        print(
            f"{row['network']:20} {row['line']:14} {row['images_per_second']:9.1f} {row['first_epoch']:12.1f}"
        )
    for name, ratio in ratios.items():
        print(f"{name:42} {ratio:.2f}")
    for line in ("ours", "timm_best") if losses else ():
        values = [r["val_log_loss"] for r in losses if r["line"] == line]
        print(
            f"validation loss, {line}: mean {np.mean(values):.3f}, sd {np.std(values, ddof=1):.3f}, {values}"
        )
    result = {
        "benchmark": "training",
        "machine": machine(),
        "versions": versions(),
        "settings": {
            "size": args.size,
            "batch": args.batch,
            "images": args.images,
            "epochs": args.epochs,
        },
        "rows": rows + losses,
        "ratios": ratios,
    }
    if args.json:
        write_json(args.json, result)
    else:
        print(json.dumps(ratios))


def machine() -> dict:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return {
        "processor": next(
            (line.partition(": ")[2] for line in flags.splitlines() if "model name" in line),
            platform.processor(),
        ),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "amx_bf16": "amx_bf16" in flags,
        "avx512_bf16": "avx512_bf16" in flags,
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
    }


if __name__ == "__main__":
    main()
