"""Everything that needs a GPU, in one command: tests, speed against timm and the card, whole runs.

    python experiments/benchmarks/on_gpu.py --data DIR --out FOLDER [--quick]

DIR is BreakHis. Runs, one after the other, and goes on where one fails: the tests that need a GPU;
`training.py` over all members at batch 32 and 128, with the card's floor; `whole_run.py` over all
members x 5 folds, on DIR and on 8,000 random tiles, with one job at a time and with slots. Writes
one JSON each, named after the device, and ends with a line a step.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from ensemble_kit.members.catalogue import expand

HERE = Path(__file__).parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--workers", type=int, default=8, help="of timm's loader")
    parser.add_argument("--quick", action="store_true", help="small, to see that all of it runs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name, command in steps(args).items():
        began = time.perf_counter()
        print(f"== {name}: {' '.join(map(str, command))}", flush=True)
        code = subprocess.run(command, cwd=HERE, check=False).returncode
        failed += code != 0
        print(f"== {name}: exit {code}, {time.perf_counter() - began:.0f} s", flush=True)
    return int(failed > 0)


def steps(args: argparse.Namespace) -> dict[str, list[str]]:
    """The commands by the name of what they answer."""
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

    speed = ["--data", data, "--networks", ",".join(expand(["all"])), "--floor"]
    speed += ["--workers", str(args.workers), "--images"]  # 50 steps an epoch
    whole = ["--members", "all", "--folds", "5", "--slots", "1,4"]
    tests = HERE.parent.parent / "tests" / "members" / "test_on_gpu.py"
    return {
        "tests on a GPU": [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests)],
        "training, batch 32": run("training.py", "training-batch32", *speed, "1600", "--batch", "32"),
        "training, batch 128": run("training.py", "training-batch128", *speed, "6400", "--batch", "128"),
        "whole run on DIR": run("whole_run.py", "whole_run", "--data", data, *whole),
        "whole run on 8,000 tiles": run(
            "whole_run.py", "whole_run-8000", "--synthetic", "8000", "--batch", "128", "--epochs", "1", *whole
        ),
    }  # fmt: skip


def device_name(device: str) -> str:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
