"""How do time, memory and the report's size grow with many classes, groups or members?

    python experiments/benchmarks/many_classes.py [--quick] [--cases 200-classes,20-members] [--json FILE]
    python experiments/benchmarks/many_classes.py --peer ../earlier-checkout

Makes predictions from a seed, imports them, and runs `stack` and `report`, each in a separate process.
The peer is another checkout of this package, which runs the same commands. Prints processor seconds
and peak memory of each process, and the size of the report. With `--peer`, a ratio above 1 means that
this checkout needs less.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble_kit.files import write_json
from ensemble_kit.run import versions

OURS = Path(__file__).parents[2]
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """A set of members with independent errors."""

    n_images: int
    n_classes: int
    n_members: int
    images_per_group: int
    methods: str


CASES = {
    "200-classes": Case(1600, 200, 2, 5, "mean,vote"),
    "200-classes-no-groups": Case(1600, 200, 2, 1, "mean,vote"),
    "1000-classes": Case(4000, 1000, 2, 1, "mean"),
    "20-members": Case(2000, 10, 20, 5, "all"),
}
QUICK = {"30-classes": Case(240, 30, 2, 2, "mean,vote"), "6-members": Case(200, 4, 6, 2, "all")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", help=f"some of {', '.join(CASES)} (default: all)")
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--peer", type=Path, help="another checkout of this package")
    parser.add_argument("--quick", action="store_true", help="two small cases, 100 resamples")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    cases = QUICK if args.quick else CASES
    named = args.cases.split(",") if args.cases else list(cases)
    resamples = 100 if args.quick else args.resamples
    rows, ratios = [], {}
    for name in named:
        ours = measured(OURS, name, cases[name], resamples)
        rows += ours
        if args.peer:
            peer = measured(args.peer.resolve(), name, cases[name], resamples)
            rows += [{**row, "version": "peer"} for row in peer]
            ratios |= compared(ours, peer)
    for row in rows:
        print(
            f"{row['case']:24}{row['version']:6}{row['command']:22}{row['processor_s']:8.1f} s"
            f"{row['peak_mb']:8.0f} MB  {row['report_mb'] or '':>8}"
        )
    for name, ratio in ratios.items():
        print(f"{name:46} x{ratio:.2f}")
    if args.json:
        machine = {"cores": os.cpu_count(), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")}
        found = {"benchmark": "many_classes", "machine": machine, "versions": versions()}
        found |= {"resamples": resamples, "rows": rows, "ratios": ratios}
        write_json(args.json, found)


def measured(source: Path, name: str, case: Case, resamples: int) -> list[Row]:
    """One row per command of one checkout."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        write_case(here, case)
        members = [f"{p.stem}={p.name}" for p in sorted(here.glob("*.npy"))]
        commands = (
            ["import-predictions", *members, "--labels", "labels.csv", "--run", "run"],
            ["stack", "--run", "run", "--method", case.methods, "--resamples", str(resamples)],
            ["report", "--run", "run"],
        )
        rows = []
        for command in commands:
            row = {"case": name, **dataclasses.asdict(case), "version": "ours"}
            rows.append(row | {"command": command[0]} | cost_of(command, source, here))
        size = sum(p.stat().st_size for p in (here / "run/report").rglob("*") if p.is_file())
        return [row | {"report_mb": round(size / 1e6, 2)} for row in rows]


def write_case(folder: Path, case: Case) -> None:
    """Write the probabilities of each member, and the table of labels and groups."""
    rng = np.random.default_rng(0)
    n, n_classes = case.n_images, case.n_classes
    labels = np.arange(n) % n_classes
    for m in range(case.n_members):
        proba = rng.dirichlet(np.ones(n_classes), n) * 0.4
        is_right = rng.random(n) < (0.5, 0.6, 0.7, 0.8)[m % 4]
        proba[np.arange(n), np.where(is_right, labels, rng.integers(0, n_classes, n))] += 0.6
        np.save(folder / f"m{m:02d}.npy", proba)
    ids = [f"s{i:05d}" for i in range(n)]
    groups = [f"P{i // case.images_per_group}" for i in range(n)]
    table = {"sample_id": ids, "label": [f"class_{c:04d}" for c in labels], "group": groups}
    pd.DataFrame(table).to_csv(folder / "labels.csv", index=False)


def cost_of(command: list[str], source: Path, folder: Path) -> dict[str, float]:
    """Processor seconds and peak memory of one command in a separate process.

    Raises
    ------
    SystemExit
        The command failed.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "ensemble_kit", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{source}: {' '.join(command)} ended with {process.returncode}")
    return {
        "processor_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_mb": round(used.ru_maxrss / 1024, 1),
    }


def compared(ours: list[Row], peer: list[Row]) -> dict[str, float]:
    """The peer's cost in units of ours."""
    ratios = {}
    for one, other in zip(ours, peer, strict=True):
        for key in ("processor_s", "peak_mb"):
            ratios[f"{one['case']}_{one['command']}_{key}"] = round(other[key] / one[key], 2)
    ratios[f"{ours[0]['case']}_report_mb"] = round(peer[0]["report_mb"] / ours[0]["report_mb"], 2)
    return ratios


if __name__ == "__main__":
    main()
