"""Grad-CAM of an ensemble against a loop over pytorch-grad-cam: are the maps equal, and how fast are they.

    python experiments/benchmarks/explain.py --images FOLDER [--n-images 200] [--json FILE]

Needs `pip install grad-cam`. Five networks with untrained weights (the weights do not change the time),
224 px. Equality: the correlation of each map with pytorch-grad-cam's, over all images. Time: from
decoded images in memory to maps of 224 x 224 pixels. Ours also predicts and makes the ensemble's map
and the disagreement. A ratio above 1 means that ours is faster.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.explanation.explain import explain
from ensemble_kit.explanation.target_layer import target_layer
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.fold_networks import FoldNetwork, MemberNetworks
from ensemble_kit.inference.stored_method import StoredMethod
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.member import Member
from ensemble_kit.members.networks.build import build_network
from ensemble_kit.run import versions

NETWORKS = ("resnet18", "densenet121", "efficientnet_b0", "tf_efficientnetv2_b0", "tf_efficientnet_b1")  # fmt: skip
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = ("benign", "malignant")
SIZE, BATCH = 224, 16


def untrained() -> Ensemble:
    """Five members of one network each, with random weights."""
    torch.manual_seed(0)
    members = []
    for name in NETWORKS:
        member = Member(name, image_size=SIZE, pretrained=False)
        model = build_network(member, 2, image_size=SIZE).eval().requires_grad_(False)
        one = FoldNetwork(
            model.to(memory_format=torch.channels_last), member, MEAN, STD, np.arange(2), torch.device("cpu")
        )  # fmt: skip
        members.append(MemberNetworks(name, {0: one}))
    combiner = MeanProba().fit(np.zeros((2, len(NETWORKS), 2)), [0, 1])
    stored = StoredMethod("mean", CLASSES, NETWORKS, combiner, None, None, None, "patient", {}, ())
    manifest = Manifest.from_records([("a", "a.png", "benign", "p")], class_names=CLASSES, absent=["malignant"])  # fmt: skip
    return Ensemble(stored, members, manifest)


def their_maps(
    ensemble: Ensemble, pixels: np.ndarray, classes: np.ndarray, batch: int
) -> np.ndarray:
    """Maps of pytorch-grad-cam, shape (n_images, n_members, SIZE, SIZE)."""
    out = np.empty((len(pixels), len(NETWORKS), SIZE, SIZE), np.float32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    for m, member in enumerate(ensemble.members):
        model = member.by_fold[0].model.requires_grad_(True)  # as users have it
        with GradCAM(model=model, target_layers=[target_layer(model).module]) as cam:
            for start in range(0, len(pixels), batch):
                some = slice(start, start + batch)
                images = torch.from_numpy(pixels[some]).permute(0, 3, 1, 2).float().div(255)
                targets = [ClassifierOutputTarget(int(c)) for c in classes[some]]
                out[some, m] = cam(input_tensor=(images - mean) / std, targets=targets)
        model.requires_grad_(False)
    return out


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of two maps; NaN where one is empty."""
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / size) if size > 0 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--n-images", type=int, default=200)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    paths = sorted(p for p in asked.images.rglob("*") if p.suffix in (".png", ".jpg", ".tif"))
    step = max(len(paths) // asked.n_images, 1)
    pixels = np.stack(
        [
            np.asarray(Image.open(p).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC))
            for p in paths[::step][: asked.n_images]
        ]
    )
    ensemble = untrained()
    explain(ensemble, pixels[:BATCH])  # both are warm
    their_maps(ensemble, pixels[:4], np.zeros(4, int), 1)
    started = time.perf_counter()
    ours = explain(ensemble, pixels)
    seconds = {"ours": time.perf_counter() - started}
    found = {}
    for name, batch in (("loop", 1), ("batches", BATCH)):
        started = time.perf_counter()
        found[name] = their_maps(ensemble, pixels, ours.explained, batch)
        seconds[f"pytorch-grad-cam, {name}"] = time.perf_counter() - started
    rows = {}
    for m, name in enumerate(NETWORKS):
        values = np.array(
            [correlation(a, b) for a, b in zip(ours.maps[:, m], found["loop"][:, m], strict=True)]
        )
        both = np.isfinite(values)
        empty = [(x[:, m].max(axis=(1, 2)) <= 0) for x in (ours.maps, found["loop"])]
        rows[name] = {
            "n_maps": int(both.sum()),
            "n_empty_in_both": int((empty[0] & empty[1]).sum()),
            "n_empty_in_one": int((empty[0] ^ empty[1]).sum()),
            "lowest_correlation": float(values[both].min()) if both.any() else None,
            "median_correlation": float(np.median(values[both])) if both.any() else None,
        }
        print(name, rows[name])
    n_maps = len(pixels) * len(NETWORKS)
    for name, value in seconds.items():
        print(f"{name:28s} {value:7.1f} s  {len(pixels) / value:6.2f} images/s  ratio {value / seconds['ours']:.2f}")  # fmt: skip
    if asked.json:
        record = {
            "n_images": len(pixels),
            "n_maps": n_maps,
            "networks": list(NETWORKS),
            "equality": rows,
            "seconds": seconds,
            "images_per_second": {k: len(pixels) / v for k, v in seconds.items()},
            "ratio": {k: v / seconds["ours"] for k, v in seconds.items()},
            "threads": torch.get_num_threads(),
            "machine": platform.processor() or platform.machine(),
            "versions": {
                **versions(),
                "grad-cam": version("grad-cam"),
            },
        }
        asked.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
