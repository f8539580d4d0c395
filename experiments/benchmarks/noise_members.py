"""How much does each combiner lose if noise members are added to good members?

    python experiments/benchmarks/noise_members.py --run checkpoints/NAME [--noise 5,20] [--json FILE]
    python experiments/benchmarks/noise_members.py --quick

Takes a run's stored out-of-fold predictions (without --run: six synthetic members, 3,000 images, 4
classes), adds members whose logits are noise of the same standard deviation, and cross-fits every
combiner with and without them. Prints balanced accuracy and its change.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from ensemble_kit.combiners import make_combiner
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import all_methods
from ensemble_kit.files import write_json
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run, versions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path)
    parser.add_argument("--noise", default="5,20", help="numbers of noise members")
    parser.add_argument("--quick", action="store_true", help="600 synthetic images")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    table = Run(args.run).predictions("oof") if args.run else synthetic(600 if args.quick else 3000)
    counts = [0, *map(int, args.noise.split(","))]
    values = {n: cross_fitted(with_noise(table, n)) for n in counts}
    rows = []
    for method in values[0]:
        row = {"method": method} | {f"noise_{n}": round(values[n][method], 4) for n in counts}
        row |= {f"change_{n}": round(values[n][method] - values[0][method], 4) for n in counts[1:]}
        rows.append(row)
    rows.sort(key=lambda row: row[f"change_{counts[-1]}"], reverse=True)
    name = args.run.name if args.run else "synthetic"
    print(
        f"{name}: {table.n_members} members, {len(table)} images, {table.n_classes} classes; cross-fitted balanced accuracy"
    )
    print(
        f"{'method':20}"
        + "".join(f"{f'+{n} noise':>12}" for n in counts)
        + "".join(f"{f'change {n}':>12}" for n in counts[1:])
    )
    for row in rows:
        print(
            f"{row['method']:20}"
            + "".join(f"{row[f'noise_{n}']:12.3f}" for n in counts)
            + "".join(f"{row[f'change_{n}']:+12.3f}" for n in counts[1:])
        )
    if args.json:
        machine = {"cores": os.cpu_count()}
        worst = {f"{r['method']}_change_{counts[-1]}": r[f"change_{counts[-1]}"] for r in rows}
        write_json(
            args.json,
            {
                "benchmark": "noise_members",
                "machine": machine,
                "versions": versions(),
                "field": name,
                "rows": rows,
                "ratios": worst,
            },
        )


def synthetic(n_samples: int) -> Predictions:
    """Six members of different skill with partly shared errors."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, n_samples)
    shared = rng.normal(size=(n_samples, 4))
    members = {
        f"cnn{m}": skill * np.eye(4)[labels] + shared + rng.normal(size=(n_samples, 4))
        for m, skill in enumerate((1.2, 1.5, 1.8, 2.0, 2.2, 2.5))
    }
    return Predictions.from_arrays(members, labels, fold=np.arange(n_samples) % 5)


def with_noise(table: Predictions, n: int) -> Predictions:
    """The predictions with `n` additional members whose logits are noise."""
    if not n:
        return table
    rng = np.random.default_rng(1)
    spread = float(table.logits.std())
    noise = {
        f"noise{i}": rng.normal(scale=spread, size=(len(table), table.n_classes)) for i in range(n)
    }
    members = {name: table.logits[:, m] for m, name in enumerate(table.member_names)}
    return Predictions.from_arrays(
        members | noise, table.labels, sample_ids=table.sample_ids, groups=table.groups,
        class_names=table.class_names, fold=table.fold,
    )  # fmt: skip


def cross_fitted(table: Predictions) -> dict[str, float]:
    """Cross-fitted balanced accuracy by combiner."""
    combiners = {name: make_combiner(name) for name in all_methods(len(table.member_names))}
    evaluated = evaluate_all(combiners, table, protocol=Protocol(n_resamples=0, fallback=False))
    return {
        name: float(one.cross_fitted["balanced_accuracy"].value) for name, one in evaluated.items()
    }


if __name__ == "__main__":
    main()
