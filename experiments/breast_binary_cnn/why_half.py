"""Why the binary CNN stays a constant classifier: its dense layer saturates in the first steps.

    python experiments/breast_binary_cnn/why_half.py [--size 256] [--epochs 3] [--per-class 48] [--json FILE]

Trains the described network and changed networks on two classes of synthetic tissue that a small
network can separate. Prints the proportion of saturated dense units after the first step, and the
accuracy and the largest proportion of images with one predicted class after the last epoch.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ensemble_kit.images.tiles.build import Tiles, build_tiles
from ensemble_kit.manifest.layouts.class_folders import read_folders
from ensemble_kit.manifest.phantom.relabelled import write_phantom_as
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training.fit import Fit, Rows

# Name, network, learning rate.
CASES = (
    ("as described", "cnn3_two_sigmoids", 1e-3),
    ("rate 1e-5", "cnn3_two_sigmoids", 1e-5),
    ("ReLU", "cnn3_sigmoid", 1e-3),
    ("ReLU, rate 1e-5", "cnn3_sigmoid", 1e-5),
    ("ReLU, pooled to 4 x 4 (basic_cnn)", "basic_cnn", 1e-3),
)
# A sigmoid unit outside (0.01, 0.99) passes at most 1 % of a gradient.
EDGE = 0.01


def recipe(rate: float, epochs: int) -> Recipe:
    return Recipe(
        epochs=epochs, batch_size=32, learning_rate=rate, weight_decay=0.0, warmup_epochs=0.0,
        schedule="constant", augmentation="none", optim={"name": "adam"},
    )  # fmt: skip


def dense_outputs(fit: Fit, images: torch.Tensor) -> torch.Tensor:
    """The outputs of the first dense layer, after its activation."""
    model: Any = fit.model
    model.eval()
    with torch.inference_mode():
        return model.dense[:3](model.forward_features(images))


def dead_share(outputs: torch.Tensor, network: str) -> float:
    """Proportion of unit and image pairs that pass (nearly) no gradient."""
    if network == "cnn3_two_sigmoids":
        return float(((outputs < EDGE) | (outputs > 1 - EDGE)).float().mean())
    return float((outputs <= 0).float().mean())


def measure(name: str, network: str, rate: float, tiles: Tiles, labels: np.ndarray, epochs: int) -> dict[str, Any]:  # fmt: skip
    size, rows = tiles.image_size, np.arange(len(tiles))
    member = Member(network, image_size=size, pretrained=False, drop_rate=0.0, recipe=recipe(rate, epochs))  # fmt: skip
    fit = Fit.start(member, tiles, 2, device=torch.device("cpu"), precision="fp32", seed=0)
    mean, std = (torch.tensor(v)[:, None, None] for v in (fit.mean, fit.std))
    shown = torch.from_numpy(np.array(tiles.pixels[:32])).permute(0, 3, 1, 2) / 255
    shown = (shown - mean) / std
    before = dead_share(dense_outputs(fit, shown), network)
    optimizer = torch.optim.Adam(fit.model.parameters(), lr=rate)
    state = {k: v.clone() for k, v in fit.model.state_dict().items()}
    fit.model.train()
    torch.nn.functional.cross_entropy(fit.model(shown), torch.from_numpy(labels[:32])).backward()
    optimizer.step()
    after = dead_share(dense_outputs(fit, shown), network)
    fit.model.load_state_dict(state)
    fit.model.zero_grad()
    fit.run(Rows(rows, labels, rows, labels), lambda _: None)
    trained = dead_share(dense_outputs(fit, shown), network)
    predicted = fit.logits(rows).argmax(axis=1)
    return {
        "case": name,
        "parameters": sum(p.numel() for p in fit.model.parameters()),
        "dead_before": round(before, 3),
        "dead_after_one_step": round(after, 3),
        "dead_after_training": round(trained, 3),
        "accuracy": round(float((predicted == labels).mean()), 3),
        "largest_predicted_share": round(float(np.bincount(predicted, minlength=2).max() / len(rows)), 3),
        "loss_by_epoch": [round(one["train_loss"], 3) for one in fit.training.history],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--per-class", type=int, default=48)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = write_phantom_as(
            "folders", Path(folder) / "data", n_patients=24, images_per_patient=8, image_size=128
        )
        manifest = read_folders(data, group_pattern=r"(P\d+)_").part("train")
        few = np.concatenate(
            [np.flatnonzero(manifest.labels == c)[: args.per_class] for c in (0, 1)]
        )
        order = np.random.default_rng(0).permutation(few)
        manifest = manifest.take(order)
        tiles = build_tiles(manifest, args.size, cache_dir=Path(folder) / "tiles")
        labels = np.asarray(manifest.labels)
        rows = []
        for case in CASES:
            rows.append(measure(*case, tiles, labels, args.epochs))
            print(rows[-1], flush=True)
    if args.json:
        about = {"size": args.size, "epochs": args.epochs, "n": len(labels), "torch": torch.__version__, "processor": platform.machine()}  # fmt: skip
        args.json.write_text(json.dumps({"about": about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
