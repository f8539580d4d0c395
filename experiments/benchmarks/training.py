"""How many images per second does a member train on, compared with timm's parts?

    python experiments/benchmarks/training.py --data DIR [--quick] [--losses] [--json FILE]

DIR is a BreakHis archive or a folder of class folders. The peers use timm's ImageDataset, loader and
optimizer (`timm_line.py`): (a) with timm's defaults, in float32, and (b) with bf16 autocast,
channels_last and the fused optimizer. All sides run interleaved in one process. They train the same
network from the same seeds, on the same images, with the same size, batch, optimizer and augmentation
(preset "light").

Reported is the median of the second and later epochs, with the time of the data. timm decodes files in
each epoch; ours reads the tiles that the first epoch made. Validation and checkpoints are not included.
`--losses` compares validation losses instead. `--floor` adds upper bounds of the device
(`device_rates.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from device_rates import DeviceRates
from timm_line import TimmLine

from ensemble_kit.files import write_json
from ensemble_kit.images.tiles.build import build_tiles
from ensemble_kit.manifest.layouts.detect import read_manifest
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.registry import timm_name
from ensemble_kit.members.training.fit import Fit, Rows
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
    parser.add_argument(
        "--images", type=int, default=160, help="images per epoch; repeated if too few"
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=2, help="workers of timm's loader")
    parser.add_argument("--floor", action="store_true", help="add upper bounds of the device")
    parser.add_argument("--quick", action="store_true", help="fewer images, smaller, two networks")
    parser.add_argument(
        "--losses", action="store_true", help="validation losses over seeds instead of speeds"
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds of --losses")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    networks = args.networks.split(",")
    if args.quick:
        networks, args.size, args.epochs = networks[:2], 64, 5
        args.images = 2 * max(args.batch, 32)
    with tempfile.TemporaryDirectory() as scratch:
        data = Data(args, Path(scratch))
        measure = loss_rows if args.losses else speeds
        rows: list[dict] = []
        for network in networks:
            rows += measure(network, data, args)
            print(*lines_of(network, rows), sep="\n", flush=True)
            if args.json:  # an interrupted run has stored its results
                write_json(args.json, result(rows, args))
    if args.floor and not args.losses:
        rates = DeviceRates.measure(torch.device(args.device))
        bounds = [
            {"network": n, "line": f"floor_{k}", "images_per_second": round(v, 1)}
            for n in networks
            for k, v in rates.upper_bounds(n, args.size).items()
        ]
        rows += bounds
        print(*(line for n in networks for line in lines_of(n, bounds)), sep="\n")
    for name, ratio in ratios_of(rows).items():
        print(f"{name:42} {ratio:.2f}")
    if args.json:
        write_json(args.json, result(rows, args))


class Data:
    """The same images for both sides: tiles for ours, folders of links for timm."""

    def __init__(self, args: argparse.Namespace, scratch: Path) -> None:
        manifest = read_manifest(args.data)
        picked = np.random.default_rng(0).permutation(len(manifest))
        n_validation = min(100, len(picked) // 3)
        self.validation = manifest.take(np.sort(picked[:n_validation]))
        self.train = manifest.take(np.sort(picked[n_validation:][: args.images]))
        self.n_images = args.images
        self.class_names = manifest.class_names
        self.tiles = build_tiles(manifest, args.size, cache_dir=scratch / "cache")
        self.folders = {n: scratch / n for n in ("train", "validation")}
        for name, part in (("train", self.train), ("validation", self.validation)):
            for c in self.class_names:
                (self.folders[name] / c).mkdir(parents=True)
            for k, row in self.repeated(list(part.table.itertuples()), name):
                link = self.folders[name] / row.label / f"{k}-{Path(row.path).name}"
                link.symlink_to((manifest.root / row.path).resolve())

    def repeated(self, images: list, part: str) -> list:
        """Numbered images. Training images are repeated to get the size of an epoch."""
        n = self.n_images if part == "train" else len(images)
        return [(k, images[k % len(images)]) for k in range(n)]

    def rows(self) -> Rows:
        place = self.tiles.rows
        again = np.arange(self.n_images) % len(self.train)
        return Rows(
            place(self.train.sample_ids)[again],
            self.train.labels[again],
            place(self.validation.sample_ids),
            self.validation.labels,
        )


def speeds(network: str, data: Data, args: argparse.Namespace) -> list[dict]:
    """Images per second of each line, with interleaved epochs."""
    # Ours comes last: after a loader forks its workers, the next epoch of the parent copies pages.
    lines = {
        **{p: timm_line(network, data, args, p == "timm_best").epochs() for p in PEERS},
        "ours": ours(network, data, args),
    }
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


def timm_line(network: str, data: Data, args: argparse.Namespace, best: bool, seed: int = 0):
    return TimmLine(
        network, data.folders, len(data.class_names), args, best=best, rate=RATE, seed=seed
    )


def ours(network: str, data: Data, args: argparse.Namespace):
    """Train epoch by epoch, and yield the images per second of each."""
    member = Member(network, pretrained=False, recipe=recipe(1000, args))
    fit = Fit.start(
        member,
        data.tiles,
        len(data.class_names),
        device=torch.device(args.device),
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
    """Raised after an epoch to interleave the lines. Training is continued from there."""


def recipe(epochs: int, args: argparse.Namespace) -> Recipe:
    return Recipe(
        epochs=epochs, batch_size=args.batch, learning_rate=RATE, weight_decay=0.02, warmup_epochs=0,
        schedule="constant", augmentation="light",
    )  # fmt: skip


def loss_rows(network: str, data: Data, args: argparse.Namespace) -> list[dict]:
    """Validation losses after three epochs, over several seeds, of ours and of timm's best."""
    out = []
    for seed in range(args.seeds):
        member = Member(network, pretrained=False, recipe=recipe(3, args))
        fit = Fit.start(
            member,
            data.tiles,
            len(data.class_names),
            device=torch.device(args.device),
            precision="auto",
            seed=seed,
        )
        fit.run(data.rows(), lambda _: None)
        out.append(
            {
                "network": network,
                "line": "ours",
                "seed": seed,
                "val_log_loss": round(fit.training.history[-1]["val_log_loss"], 4),
            }
        )
        peer = timm_line(network, data, args, True, seed)
        epochs = peer.epochs()
        for _ in range(3):
            next(epochs)
        out.append(
            {
                "network": network,
                "line": "timm_best",
                "seed": seed,
                "val_log_loss": round(peer.validation_loss(), 4),
            }
        )
    return out


def ratios_of(rows: list[dict]) -> dict[str, float]:
    """Our speed divided by each peer's, per network. Empty for losses."""
    return {
        f"{timm_name(n)}_vs_{peer}": round(speed(rows, n, "ours") / speed(rows, n, peer), 2)
        for n in dict.fromkeys(r["network"] for r in rows if "images_per_second" in r)
        for peer in PEERS
    }


def speed(rows: list[dict], network: str, line: str) -> float:
    return next(
        r["images_per_second"] for r in rows if (r["network"], r["line"]) == (network, line)
    )


def lines_of(network: str, rows: list[dict]) -> list[str]:
    """The results of a network as lines of text."""
    own = [row for row in rows if row["network"] == network]
    if "val_log_loss" in own[0]:
        return [parity_sentence(network, own)]
    return [
        f"{network:20} {row['line']:20} {row['images_per_second']:9.1f} images/s"
        + (f" {row['first_epoch']:9.1f} in the first epoch" if "first_epoch" in row else "")
        for row in own
    ]


def result(rows: list[dict], args: argparse.Namespace) -> dict:
    return {
        "benchmark": "training_losses" if args.losses else "training",
        "machine": machine(),
        "versions": versions(),
        "settings": {
            "size": args.size,
            "batch": args.batch,
            "images": args.images,
            "epochs": args.epochs,
            "workers": args.workers,
            "device": args.device,
        },
        "rows": rows,
        "ratios": ratios_of(rows),
    }


def parity_sentence(network: str, losses: list[dict]) -> str:
    """The validation losses of both lines, and the difference of the means with its standard error."""
    by_line = {
        line: np.array(
            [r["val_log_loss"] for r in losses if (r["network"], r["line"]) == (network, line)]
        )
        for line in ("ours", "timm_best")
    }
    spread = {k: f"{v.mean():.3f} (sd {v.std(ddof=1):.3f})" for k, v in by_line.items()}
    gap = by_line["ours"].mean() - by_line["timm_best"].mean()
    error = np.sqrt(sum(v.var(ddof=1) / len(v) for v in by_line.values()))
    return (
        f"{network}: validation loss ours {spread['ours']}, timm {spread['timm_best']}; "
        f"difference {gap:+.3f}, standard error {error:.3f}"
    )


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
