"""How long do 20 trials take, and how much does pruning save?

    python experiments/benchmarks/tune.py by-hand --data DIR [--rescale 700x460] [--json FILE]
    python experiments/benchmarks/tune.py pruning --data DIR [--seeds 0,1,2] [--json FILE]

by-hand: compares `ensemble-kit tune` with a plain Optuna script (`optuna_by_hand.py`). Both have the
same images, network, epochs and space, a new process and an empty cache. Ours scores a trial on all
folds, the script on one, so the trained images are counted too. `--rescale` resizes the images for both
sides, e.g. to the size of the whole BreakHis archive.
pruning: compares the same trials and seeds with and without pruning: the proportion of trained images,
and the best value over all folds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from training import machine

from ensemble_kit.experiment import Experiment, load_experiment
from ensemble_kit.experiment_data import prepare
from ensemble_kit.files import write_json
from ensemble_kit.run import Run, versions
from ensemble_kit.tune.tune_members import tune_members

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["by-hand", "pruning"])
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--magnification")
    parser.add_argument("--network", default="tiny_cnn")
    parser.add_argument("--size", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--rescale", help="by-hand: WIDTHxHEIGHT of the image files")
    parser.add_argument("--seeds", default="0,1,2", help="pruning: the seeds")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = (by_hand if args.mode == "by-hand" else pruning)(args, Path(scratch))
    summary = (ratios if args.mode == "by-hand" else saved)(rows)
    for name, value in summary.items():
        print(f"{name:50} {value:.3g}")
    if args.json:
        settings = {k: str(v) for k, v in vars(args).items() if k not in {"json", "data"}}
        write_json(
            args.json,
            {
                "benchmark": f"tune {args.mode}", "data": args.data.name, "settings": settings,
                "rows": rows, "ratios": summary, "versions": versions(), "machine": machine(),
            },
        )  # fmt: skip


def experiment(args: argparse.Namespace, run: Path, seed: int = 0) -> Experiment:
    data: dict[str, Any] = {"path": str(args.data), "folds": args.folds}
    if args.magnification:
        data["magnification"] = args.magnification.split(",")
    flags = {
        "data": data, "members": [args.network], "image_size": args.size, "pretrained": False,
        "run": str(run), "recipe": {"epochs": args.epochs}, "device": "cpu", "seed": seed,
    }  # fmt: skip
    return load_experiment(flags, use_file=False)


# -- by hand -------------------------------------------------------------------------------


def by_hand(args: argparse.Namespace, scratch: Path) -> list[dict]:
    """Seconds of both sides, each from the start of a process to its end."""
    folder, table = class_folders(args, scratch)
    hand = [
        sys.executable, HERE / "optuna_by_hand.py", folder, args.network, args.size, args.epochs, args.trials
    ]  # fmt: skip
    space = scratch / "space.toml"
    space.write_text("learning_rate = [1e-5, 1e-1]\nbatch_size = [8, 32]\n")
    ours = [
        sys.executable, "-m", "ensemble_kit", "tune", "--data", table, "--members", args.network,
        "--image-size", args.size, "--epochs", args.epochs, "--no-pretrained", "--trials", args.trials,
        "--folds", args.folds, "--device", "cpu", "--space", space, "--run", scratch / "run",
    ]  # fmt: skip
    rows = [{"line": "by hand", **timed(hand, scratch)}, {"line": "ours", **timed(ours, scratch)}]
    rows[0] |= json.loads(rows[0].pop("output").splitlines()[-1])
    rows[1].pop("output")
    status = [sys.executable, "-m", "ensemble_kit", "tune", "status", "--json", "--run", scratch / "run"]  # fmt: skip
    trials = json.loads(timed(status, scratch)["output"])[args.network]
    rows[1] |= {
        "images": sum(t["epoch_images"] for t in trials),
        "trials": len(trials),
        "pruned": sum(t["outcome"] == "pruned" for t in trials),
    }
    for row in rows:
        print(row, flush=True)
    return rows


def class_folders(args: argparse.Namespace, scratch: Path) -> tuple[Path, Path]:
    """The images as files for ImageFolder (fold 0 is the validation part), and as a table for ours."""
    from PIL import Image

    manifest, folds = prepare(experiment(args, scratch / "unused"))
    fold = dict(zip(folds.sample_ids.tolist(), folds.fold.tolist(), strict=True))
    lines = ["path,label,group,split"]
    for i, row in enumerate(manifest.table.itertuples()):
        part = {0: "val", None: "test"}.get(fold.get(row.sample_id), "train")
        path = scratch / "images" / part / row.label / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(manifest.root / row.path) as image:
            size = tuple(map(int, args.rescale.split("x"))) if args.rescale else image.size
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(path)
        lines.append(f"{path},{row.label},{row.group},{row.split}")
    table = scratch / "images.csv"
    table.write_text("\n".join(lines) + "\n")
    return scratch / "images", table


def timed(words: list[Any], scratch: Path) -> dict[str, Any]:
    """Wall time, processor time and output of a command. Processor time varies less."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "ENSEMBLE_KIT_CACHE": str(scratch / "cache")}
    done = subprocess.run(
        [str(word) for word in words], check=True, capture_output=True, text=True, env=environment
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(spent, 1),
        "output": done.stdout,
    }


def ratios(rows: list[dict]) -> dict[str, float]:
    """By hand divided by ours. Above 1, ours takes less."""
    hand, ours = rows
    found = {key: hand[key] / ours[key] for key in ("seconds", "cpu_seconds")}
    per_image = {f"{key}_per_image": hand[key] / hand["images"] / (ours[key] / ours["images"]) for key in found}  # fmt: skip
    return found | per_image


# -- pruning -------------------------------------------------------------------------------


def pruning(args: argparse.Namespace, scratch: Path) -> list[dict]:
    """Results of each seed with and without pruning."""
    rows = []
    for seed in map(int, args.seeds.split(",")):
        for prunes in (True, False):
            settings = experiment(args, scratch / f"{seed}-{prunes}", seed)
            manifest, folds = prepare(settings)
            found = tune_members(
                settings.resolved_members(), manifest, folds, Run(settings.run_path),
                n_trials=args.trials, prunes=prunes, device="cpu", seed=seed, cache=scratch / "cache",
            ).members[0]  # fmt: skip
            assert found.best is not None
            rows.append(
                {
                    "seed": seed,
                    "prunes": prunes,
                    "epoch_images": sum(t.epoch_images for t in found.trials),
                    "pruned": found.n_pruned,
                    "best": found.best.loss,
                    "trials": [dataclasses.asdict(t) for t in found.trials],
                }
            )
            shown = {k: v for k, v in rows[-1].items() if k != "trials"}
            print(shown, flush=True)
    return rows


def saved(rows: list[dict]) -> dict[str, float]:
    """The proportion of trained images, and the change of the best value by pruning."""
    pairs = [(rows[i], rows[i + 1]) for i in range(0, len(rows), 2)]
    worse = [a["best"] - b["best"] for a, b in pairs]
    error = statistics.stdev(worse) / len(worse) ** 0.5 if len(worse) > 1 else float("nan")
    return {
        "share_of_images": statistics.mean(a["epoch_images"] / b["epoch_images"] for a, b in pairs),
        "best_with_minus_without": statistics.mean(worse),
        "its_standard_error": error,
    }


if __name__ == "__main__":
    main()
