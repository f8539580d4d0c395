"""Grad-CAM of an ensemble compared with pytorch-grad-cam: equality of the maps, and time.

    python experiments/benchmarks/explain.py --images FOLDER [--n-images 200] [--json FILE]

Needs `pip install grad-cam`. Five networks with untrained weights (the weights do not change the time),
224 px. The peer is called for each member in turn: image by image (a loop), and in batches.
Equality is the correlation of each map with the map of the loop. Time is from decoded images in memory
to maps of 224 x 224 pixels. Ours includes the prediction, the ensemble's map and the disagreement.
All sides run interleaved on blocks of 16 images in one process. A ratio above 1 means that ours is
faster. Ratios are of the sum of all blocks, with the lowest and the highest ratio of a block. Processor
time is the time of all threads. It depends less on other work on the machine than wall time.
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
from untrained import MEAN, NETWORKS, STD, untrained

from ensemble_kit.explanation.explain import explain
from ensemble_kit.explanation.target_layer import target_layer
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.run import versions

SIZE, BATCH = 224, 16
SIDES = ("ours", "pytorch-grad-cam, loop", "pytorch-grad-cam, batches")


def their_maps(
    ensemble: Ensemble, pixels: np.ndarray, classes: np.ndarray, batch: int
) -> np.ndarray:
    """Maps of pytorch-grad-cam, shape (n_images, n_members, SIZE, SIZE)."""
    out = np.empty((len(pixels), len(NETWORKS), SIZE, SIZE), np.float32)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    for m, member in enumerate(ensemble.members):
        model = member.by_fold[0].model.requires_grad_(True)  # the usual state of a model
        with GradCAM(model=model, target_layers=[target_layer(model).module]) as cam:
            for start in range(0, len(pixels), batch):
                some = slice(start, start + batch)
                images = torch.from_numpy(pixels[some]).permute(0, 3, 1, 2).float().div(255)
                targets = [ClassifierOutputTarget(int(c)) for c in classes[some]]
                out[some, m] = cam(input_tensor=(images - mean) / std, targets=targets)
        model.requires_grad_(False)
    return out


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of two maps. NaN if one is empty."""
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    size = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / size) if size > 0 else float("nan")


def chosen_pixels(folder: Path, n_images: int) -> np.ndarray:
    """Evenly spaced images of a folder, shape (n_images, SIZE, SIZE, 3)."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix in (".png", ".jpg", ".tif"))
    some = paths[:: max(len(paths) // n_images, 1)][:n_images]
    size = (SIZE, SIZE)
    return np.stack(
        [np.asarray(Image.open(p).convert("RGB").resize(size, Image.Resampling.BICUBIC)) for p in some]
    )  # fmt: skip


def clocks() -> np.ndarray:
    """Wall time and processor time, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def measure(ensemble: Ensemble, pixels: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Seconds of each block, shape (n_blocks, 3, 2), in the order of `SIDES`, and the maps."""
    explain(ensemble, pixels[:BATCH])  # warm-up
    their_maps(ensemble, pixels[:2], np.zeros(2, int), 1)
    seconds, maps = [], {"ours": [], "loop": []}
    for start in range(0, len(pixels), BATCH):
        some = pixels[start : start + BATCH]
        times = [clocks()]
        ours = explain(ensemble, some)
        times.append(clocks())
        maps["ours"].append(ours.maps)
        maps["loop"].append(their_maps(ensemble, some, ours.explained, 1))
        times.append(clocks())
        their_maps(ensemble, some, ours.explained, BATCH)
        times.append(clocks())
        seconds.append(np.diff(times, axis=0))
        print(f"{start + len(some):4d} images", seconds[-1].round(1).tolist(), flush=True)
    return np.array(seconds), {name: np.concatenate(found) for name, found in maps.items()}


def speed(seconds: np.ndarray, n_images: int) -> dict[str, dict[str, float]]:
    """Speeds and ratios by side, from seconds of shape (n_blocks, 3, 2)."""
    total, ratios = seconds.sum(axis=0), seconds[:, :, 0] / seconds[:, :1, 0]
    return {
        side: {
            "seconds": float(total[i, 0]),
            "images_per_second": float(n_images / total[i, 0]),
            "ratio": float(total[i, 0] / total[0, 0]),
            "lowest_ratio": float(ratios[:, i].min()),
            "highest_ratio": float(ratios[:, i].max()),
            "processor_seconds": float(total[i, 1]),
            "ratio_of_processor_seconds": float(total[i, 1] / total[0, 1]),
        }
        for i, side in enumerate(SIDES)
    }


def equality(ours: np.ndarray, theirs: np.ndarray) -> dict[str, object]:
    """Correlations of the maps of one member, both of shape (n_images, SIZE, SIZE)."""
    values = np.array([correlation(a, b) for a, b in zip(ours, theirs, strict=True)])
    both = values[np.isfinite(values)]
    empty = [x.max(axis=(1, 2)) <= 0 for x in (ours, theirs)]
    return {
        "n_maps": len(both),
        "n_empty_in_both": int((empty[0] & empty[1]).sum()),
        "n_empty_in_one": int((empty[0] ^ empty[1]).sum()),
        "lowest_correlation": float(both.min()) if len(both) else None,
        "median_correlation": float(np.median(both)) if len(both) else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--n-images", type=int, default=200)
    parser.add_argument("--json", type=Path)
    requested = parser.parse_args()
    pixels = chosen_pixels(requested.images, requested.n_images)
    seconds, maps = measure(untrained(SIZE), pixels)
    rows = {n: equality(maps["ours"][:, m], maps["loop"][:, m]) for m, n in enumerate(NETWORKS)}
    for name, row in rows.items():
        print(name, row)
    found = speed(seconds, len(pixels))
    for side, row in found.items():
        print(f"{side:26s}", {k: round(v, 2) for k, v in row.items()})
    if requested.json:
        record = {
            "benchmark": "explain",
            "n_images": len(pixels),
            "networks": list(NETWORKS),
            "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
            "versions": {**versions(), "grad-cam": version("grad-cam")},
            "equality": rows,
            "speed": found,
        }
        requested.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
