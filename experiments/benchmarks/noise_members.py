"""Which combiners lose how much when members that know nothing join a good field?

    python experiments/benchmarks/noise_members.py --run checkpoints/NAME [--noise 5,20] [--json FILE]
    python experiments/benchmarks/noise_members.py --quick

Takes a run's stored out-of-fold predictions (without --run: a synthetic field of six members, 3,000
images, 4 classes), adds members whose logits are noise of the same spread, and cross-fits every
combiner on both fields. The peer is the field without noise. Prints balanced accuracy and its change.
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
    parser.add_argument("--noise", default="5,20", help="how many noise members to add")
    parser.add_argument("--quick", action="store_true", help="600 synthetic images")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    field = Run(args.run).predictions("oof") if args.run else synthetic(600 if args.quick else 3000)
    counts = [0, *map(int, args.noise.split(","))]
    figures = {n: cross_fitted(with_noise(field, n)) for n in counts}
    rows = []
    for method in figures[0]:
        row = {"method": method} | {f"noise_{n}": round(figures[n][method], 4) for n in counts}
        row |= {
            f"change_{n}": round(figures[n][method] - figures[0][method], 4) for n in counts[1:]
        }
        rows.append(row)
    rows.sort(key=lambda row: row[f"change_{counts[-1]}"], reverse=True)
    name = args.run.name if args.run else "synthetic"
    print(
        f"{name}: {field.n_members} members, {len(field)} images, {field.n_classes} classes; cross-fitted balanced accuracy"
    )
    print(
        f"{'method':20}"
        + "".join(f"{f'+{n} noise':>12}" for n in counts)
        + "".join(f"{f'change {n}':>12}" for n in counts[1:])
    )
    for row in rows:
        values = [f"{row[f'noise_{n}']:12.3f}" for n in counts]
        print(
            f"{row['method']:20}"
            + "".join(values)
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
    """Six members of unequal skill that share some of their errors."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, n_samples)
    shared = rng.normal(size=(n_samples, 4))
    members = {
        f"cnn{m}": skill * np.eye(4)[labels] + shared + rng.normal(size=(n_samples, 4))
        for m, skill in enumerate((1.2, 1.5, 1.8, 2.0, 2.2, 2.5))
    }
    return Predictions.from_arrays(members, labels, fold=np.arange(n_samples) % 5)


def with_noise(field: Predictions, n: int) -> Predictions:
    """The field with `n` members whose logits know nothing of the image."""
    if not n:
        return field
    rng = np.random.default_rng(1)
    spread = float(field.logits.std())
    noise = {
        f"noise{i}": rng.normal(scale=spread, size=(len(field), field.n_classes)) for i in range(n)
    }
    members = {name: field.logits[:, m] for m, name in enumerate(field.member_names)}
    return Predictions.from_arrays(
        members | noise, field.labels, sample_ids=field.sample_ids, groups=field.groups,
        class_names=field.class_names, fold=field.fold,
    )  # fmt: skip


def cross_fitted(field: Predictions) -> dict[str, float]:
    combiners = {name: make_combiner(name) for name in all_methods(len(field.member_names))}
    evaluated = evaluate_all(combiners, field, protocol=Protocol(n_resamples=0, fallback=False))
    return {
        name: float(one.cross_fitted["balanced_accuracy"].value) for name, one in evaluated.items()
    }


if __name__ == "__main__":
    main()
