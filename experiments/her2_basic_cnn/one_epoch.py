"""Time and peak memory of one epoch of the variant `basic` at full size.

    python experiments/her2_basic_cnn/one_epoch.py [--images 256] [--micro-batches 1] [--json FILE]

Network, image size, batch size and optimizer are read from experiment.toml. The images are synthetic
tissue, enlarged to 1,024 px. Their content does not change the time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensemble_kit.images.tiles.build import build_tiles
from ensemble_kit.manifest.layouts.bci import read_bci
from ensemble_kit.manifest.phantom.write import write_phantom
from ensemble_kit.members.member import Member
from ensemble_kit.members.training.fit import Fit, Rows
from ensemble_kit.reproduce.experiment_file import read_plan


def member_of(micro_batches: int) -> Member:
    """The network of `basic` with its recipe, for one epoch."""
    plan = read_plan(Path(__file__).parent, data="DIR")
    (member,) = plan.variants[0].experiment.resolved_members()
    optim = member.recipe.optim.model_copy(update={"micro_batches": micro_batches})
    recipe = member.recipe.model_copy(update={"epochs": 1, "optim": optim})
    return member.model_copy(update={"recipe": recipe})


def mebibytes() -> int:
    """Peak memory of this process until now, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def measure(n_images: int, micro_batches: int, folder: Path) -> dict[str, Any]:
    member = member_of(micro_batches)
    size = member.input_size
    data = write_phantom(folder / "data", n_patients=32, images_per_patient=-(-n_images // 26), image_size=64)  # fmt: skip
    manifest = read_bci(data).part("train")
    manifest = manifest.take(np.random.default_rng(0).permutation(len(manifest))[:n_images])
    tiles = build_tiles(manifest, size, cache_dir=folder / "tiles")
    rows, labels = np.arange(len(manifest)), np.asarray(manifest.labels)
    fit = Fit.start(member, tiles, 4, device=torch.device("cpu"), precision="fp32", seed=0)
    before, began, spent = mebibytes(), time.perf_counter(), time.process_time()
    fit.run(Rows(rows, labels, rows[:4], labels[:4]), lambda _: None)
    return {
        "network": member.network,
        "image_size": size,
        "batch_size": member.recipe.batch_size,
        "micro_batches": micro_batches,
        "images": len(manifest),
        "parameters": sum(p.numel() for p in fit.model.parameters()),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(time.process_time() - spent, 1),
        "peak_mib_before": before,
        "peak_mib": mebibytes(),
        "train_loss": round(fit.training.history[-1]["train_loss"], 3),
        "threads": torch.get_num_threads(),
        "cpu_cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--micro-batches", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args.images, args.micro_batches, Path(folder))
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
