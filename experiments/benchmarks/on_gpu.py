"""All measurements that need a GPU, in one command: tests, training speed, whole runs.

    python experiments/benchmarks/on_gpu.py --data DIR --out FOLDER [--steps NAME,...] [--quick]

DIR is BreakHis. The steps run one after the other. A failed step does not stop the others.
- `tests`: the tests that need a GPU.
- `batch32`, `batch128`: `training.py` with all members and the upper bounds of the GPU.
- `run`: `whole_run.py` with all members x 5 folds on DIR, one job at a time and with slots.
- `run8000`: the same on 8,000 random tiles.

Each step writes one JSON file, named after the device. Training writes it after each network, so that
an interrupted step has results. `--steps` selects steps if GPU time is short.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from ensemble_kit.members.registry import expand

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=8, help="workers of timm's loader")
    parser.add_argument("--steps", help="steps to run, in this order (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to check that it runs")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: no CUDA GPU is available; try --device cpu --quick")
    args.out.mkdir(parents=True, exist_ok=True)
    known, failed = steps(args), 0
    requested = args.steps.split(",") if args.steps else list(known)
    if unknown := set(requested) - set(known):
        parser.error(f"unknown --steps {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    for name in requested:
        command = known[name]
        began = time.perf_counter()
        print(f"== {name}: {' '.join(map(str, command))}", flush=True)
        code = subprocess.run(command, cwd=HERE, check=False).returncode
        failed += code != 0
        print(f"== {name}: exit {code}, {time.perf_counter() - began:.0f} s", flush=True)
    return int(failed > 0)


def steps(args: argparse.Namespace) -> dict[str, list[str]]:
    """The commands by name of the step."""
    device, data = device_name(args.device), str(args.data.resolve())

    def to(name: str) -> list[str]:
        return [
            "--device",
            args.device,
            "--json",
            str(args.out.resolve() / f"{name}-{device}.json"),
        ]

    def run(script: str, name: str, *rest: str) -> list[str]:
        quick = ["--quick"] if args.quick else []
        return [sys.executable, str(HERE / script), *rest, *to(name), *quick]

    speed = ["--data", data, "--networks", ",".join(expand(["all"])), "--floor", "--epochs", "3"]
    speed += ["--workers", str(args.workers), "--images"]
    whole = ["--members", "all", "--folds", "5", "--slots", "1,4"]
    tests = HERE.parent.parent / "tests" / "members" / "test_on_gpu.py"
    return {
        "tests": [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        "batch32": run("training.py", "training-batch32", *speed, "1280", "--batch", "32"),
        "batch128": run("training.py", "training-batch128", *speed, "2560", "--batch", "128"),
        "run": run("whole_run.py", "whole_run", "--data", data, *whole),
        "run8000": run(
            "whole_run.py", "whole_run-8000", "--synthetic", "8000", "--batch", "128", "--epochs", "1", *whole
        ),
    }  # fmt: skip


def device_name(device: str) -> str:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
