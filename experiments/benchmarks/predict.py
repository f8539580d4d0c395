"""Does `predict` give the same bytes after kills, and does its memory stay constant?

    python experiments/benchmarks/predict.py RUN IMAGES [--json FILE]

IMAGES is a folder of images. They are copied to get 2,000 images for the kills, and 500 and 5,000 for
memory. Each prediction is a separate process. Peak memory is the largest of samples every 20 ms.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from ensemble_kit.run import versions

N_KILLED, KILL_AT, FLAT = 2000, (300, 900, 1500), (500, 5000)


def folder_of(images: list[Path], n: int, folder: Path) -> Path:
    """A folder of `n` copies of images."""
    folder.mkdir()
    for i, path in enumerate(itertools.islice(itertools.cycle(images), n)):
        shutil.copyfile(path, folder / f"{i:05d}-{path.name}")
    return folder


def n_rows(out: Path) -> int:
    """The current number of rows in the table."""
    part = out.with_name(out.name + ".part")
    for file in (part, out):
        if file.is_file():
            return max(0, file.read_bytes().count(b"\n") - 1)
    return 0


def predict(
    run: str, folder: Path, out: Path, stop: Callable[[], bool] = lambda: False
) -> dict[str, Any]:
    """Call the command. Kill it with SIGKILL as soon as `stop()` is true."""
    words = ["predict", str(folder), "--run", run, "--out", str(out), "--device", "cpu"]
    start, peak = time.monotonic(), 0
    process = subprocess.Popen(
        [sys.executable, "-m", "ensemble_kit", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    monitored = psutil.Process(process.pid)
    while process.poll() is None:
        if stop():
            process.kill()
        try:
            peak = max(peak, monitored.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.02)
    code = process.wait()
    return {"exit_code": code, "peak_mib": peak / 2**20, "seconds": time.monotonic() - start}


def killed_and_resumed(run: str, images: list[Path], root: Path) -> dict[str, Any]:
    """Kill a prediction three times, resume it, and compare with an uninterrupted one."""
    folder = folder_of(images, N_KILLED, root / "images")
    whole, other = root / "undisturbed.csv", root / "resumed.csv"
    undisturbed = predict(run, folder, whole)
    rng, kills = random.Random(0), []
    for rows in KILL_AT:
        # A random moment, between two blocks or inside one.
        moment = []

        def stop(rows: int = rows, moment: list[float] = moment) -> bool:
            if not moment and n_rows(other) >= rows:
                moment.append(time.monotonic() + rng.uniform(0, 1))
            return bool(moment) and time.monotonic() >= moment[0]

        found = predict(run, folder, other, stop)
        kills.append({"exit_code": found["exit_code"], "rows_after_kill": n_rows(other)})
    last = predict(run, folder, other)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (whole, other)]
    return {
        "n_images": N_KILLED,
        "kills": kills,
        "exit_codes": [undisturbed["exit_code"], last["exit_code"]],
        "bytes": whole.stat().st_size,
        "sha256": digests,
        "byte_equal": digests[0] == digests[1],
        "seconds_undisturbed": undisturbed["seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("images", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    images = sorted(
        p for p in args.images.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".tif")
    )
    with tempfile.TemporaryDirectory(dir=args.json.parent if args.json else None) as name:
        root = Path(name)
        memory = []
        for n in FLAT:
            found = predict(args.run, folder_of(images, n, root / f"n{n}"), root / f"n{n}.csv")
            memory.append({"n_images": n, **found})
        kills = killed_and_resumed(args.run, images, root)
    for row in memory:
        print(f"{row['n_images']} images: peak {row['peak_mib']:.0f} MiB, {row['n_images'] / row['seconds']:.0f} images/s with start")  # fmt: skip
    rows = ", ".join(str(one["rows_after_kill"]) for one in kills["kills"])
    print(f"{kills['n_images']} images, killed after {rows} rows: {'the same bytes' if kills['byte_equal'] else 'OTHER BYTES'}")  # fmt: skip
    if args.json:
        content = {
            "benchmark": "predict", "memory": memory, "kills": kills, "versions": versions(),
            "machine": {"cores": os.cpu_count()},
        }  # fmt: skip
        args.json.write_text(json.dumps(content, indent=2) + "\n")
    raise SystemExit(not kills["byte_equal"])


if __name__ == "__main__":
    main()
