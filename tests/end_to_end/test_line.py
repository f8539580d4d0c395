"""All commands in order (train, stack, report, train again, tune), with recomputed results."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.slow

MEMBERS = ("tiny_cnn", "tiny_mobile")


def ensemble_kit(*words: object, cwd: Path) -> str:
    """Run one command in a separate process. Return its output."""
    done = subprocess.run(
        [sys.executable, "-c", "from ensemble_kit.cli import main; main()", *map(str, words)],
        cwd=cwd, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, slides: Path) -> tuple[Path, dict[str, str]]:
    """A folder after commands that only use a settings file, and their outputs."""
    home = tmp_path_factory.mktemp("home")
    (home / "ensemble-kit.toml").write_text(f"""
run = "checkpoints/slides"
members = {list(MEMBERS)}
image_size = 16
pretrained = false
device = "cpu"
[data]
path = "{slides}"
folds = 3
[recipe]
epochs = 2
batch_size = 16
learning_rate = 3e-3
""")
    printed = {
        "train": ensemble_kit("train-members", "--slots", 1, cwd=home),
        "stack": ensemble_kit("stack", "--resamples", 200, cwd=home),
        "report": ensemble_kit("report", cwd=home),
    }
    return home, printed


def run_of(finished: tuple[Path, dict[str, str]]) -> Path:
    return finished[0] / "checkpoints" / "slides"


def test_the_commands_write_all_documented_files(finished: tuple[Path, dict[str, str]]) -> None:
    run = run_of(finished)
    for name in ("run.json", "config.toml", "manifest.csv", "folds.csv", "members.json", "report/index.html"):  # fmt: skip
        assert (run / name).is_file(), name
    for member in MEMBERS:
        for fold in range(3):
            for name in (
                "model.safetensors",
                "config.json",
                "recipe.json",
                "history.csv",
                "fold.json",
            ):
                assert (run / "members" / member / f"fold-{fold}" / name).is_file()
        for name in ("oof.npy", "index.json", *(f"test-fold-{k}.npy" for k in range(3))):
            assert (run / "predictions" / member / name).is_file()
    for method in ("vote", "mean", "mlp", "best-member"):
        for name in ("combiner.json", "predictions.csv", "metrics.json"):
            assert (run / "ensembles" / method / name).is_file()


def test_no_temporary_file_is_left(finished: tuple[Path, dict[str, str]]) -> None:
    left = [
        p for p in run_of(finished).rglob("*") if ".tmp" in p.name or p.name.startswith("resume")
    ]
    assert left == []


def test_each_command_prints_its_plan_or_the_next_step(
    finished: tuple[Path, dict[str, str]],
) -> None:
    printed = finished[1]
    assert "Plan: 2 members x 3 folds = 6 jobs, into checkpoints/slides" in printed["train"]
    assert "Next: ensemble-kit stack --method all --run checkpoints/slides" in printed["train"]
    assert "Best of 2 methods by cross-validation" in printed["stack"]
    assert "Written: checkpoints/slides/report/index.html" in printed["report"]


def logits_of(run: Path, kind: str) -> np.ndarray:
    """All members' logits, read with numpy only. Test logits are the mean over fold models."""
    folders = [
        run / "predictions" / name for name in json.loads((run / "members.json").read_text())
    ]
    if kind == "oof":
        return np.stack([np.load(f / "oof.npy") for f in folders], axis=1)
    return np.stack(
        [np.mean([np.load(p) for p in sorted(f.glob("test-fold-*.npy"))], axis=0) for f in folders],
        axis=1,
    )


def check_vote_and_mean(run: Path) -> None:
    """Compare `predictions.csv` of both methods with a computation in numpy."""
    manifest = pd.read_csv(run / "manifest.csv", dtype=str)
    classes = json.loads((run / "run.json").read_text())["manifest"]["class_names"]
    for kind, split in (("oof", "train"), ("test", "test")):
        z = logits_of(run, kind).astype(np.float64)
        p = np.exp(z - z.max(-1, keepdims=True))
        mean = (p / p.sum(-1, keepdims=True)).mean(axis=1)
        votes = np.eye(len(classes))[z.argmax(-1)].mean(axis=1)
        winners = (votes + 1e-6 * mean).argmax(-1)
        for method, proba, predicted in (("mean", mean, mean.argmax(-1)), ("vote", votes, winners)):
            table = pd.read_csv(
                run / "ensembles" / method / "predictions.csv", dtype={"sample_id": str}
            )
            table = table[table["split"] == kind]
            assert (
                table["sample_id"].tolist()
                == manifest["sample_id"][manifest["split"] == split].tolist()
            )
            np.testing.assert_allclose(table[[f"p_{c}" for c in classes]], proba, atol=1e-6)
            assert table["predicted"].tolist() == [classes[c] for c in predicted]


def test_vote_and_mean_equal_a_computation_in_numpy(finished: tuple[Path, dict[str, str]]) -> None:
    check_vote_and_mean(run_of(finished))


def test_the_printed_table_has_the_stored_metrics(finished: tuple[Path, dict[str, str]]) -> None:
    lines = {line.split()[0]: line for line in finished[1]["stack"].splitlines() if line.strip()}
    for method in ("vote", "mean", "mlp"):
        metrics = json.loads((run_of(finished) / "ensembles" / method / "metrics.json").read_text())
        for part in ("cross_fitted", "test"):
            value = metrics[part]["balanced_accuracy"]["value"]
            shown = f"{value:.2f}" if value >= 0.9995 else f"{value:.3f}".removeprefix("0")
            assert shown in lines[method]


def test_accuracy_is_the_proportion_of_correct_rows(finished: tuple[Path, dict[str, str]]) -> None:
    folder = run_of(finished) / "ensembles" / "mlp"
    metrics = json.loads((folder / "metrics.json").read_text())
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for part, kind in (("cross_fitted", "oof"), ("test", "test")):
        right = [r["label"] == r["predicted"] for r in rows if r["split"] == kind]
        assert metrics[part]["n"] == len(right)
        assert metrics[part]["accuracy"]["value"] == pytest.approx(sum(right) / len(right))


def check_patients_are_not_split(run: Path) -> None:
    manifest = pd.read_csv(run / "manifest.csv", dtype=str)
    folds = pd.read_csv(run / "folds.csv", dtype={"sample_id": str})
    assert manifest.groupby("group")["split"].nunique().max() == 1
    joined = manifest.merge(folds, on="sample_id")
    assert len(joined) == (manifest["split"] == "train").sum() == len(folds)
    assert joined.groupby("group")["fold"].nunique().max() == 1
    assert np.isfinite(logits_of(run, "oof")).all()


def test_the_same_command_does_not_train_again(finished: tuple[Path, dict[str, str]]) -> None:
    run = run_of(finished)
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*.safetensors")}
    printed = ensemble_kit("train-members", cwd=finished[0])
    assert "6 of 6 jobs are already finished" in printed
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*.safetensors")} == before


def test_training_uses_the_tuned_values(finished: tuple[Path, dict[str, str]]) -> None:
    home = finished[0]
    printed = ensemble_kit(
        "tune", "--member", "tiny_cnn", "--trials", 5, "--learning-rate", 1e-5,
        "--run", "checkpoints/tuned", cwd=home,
    )  # fmt: skip
    assert "tiny_cnn 5 of 5: " in printed
    tuned = json.loads((home / "checkpoints/tuned/tuned/tiny_cnn.json").read_text())["values"]
    tuned = {name: tuned[name] for name in ("learning_rate", "batch_size")}
    printed = ensemble_kit(
        "train-members", "--members", "tiny_cnn", "--run", "checkpoints/tuned", "--slots", 1, cwd=home
    )  # fmt: skip
    assert "(tuned)" in printed
    recipe = json.loads(
        (home / "checkpoints/tuned/members/tiny_cnn/fold-0/recipe.json").read_text()
    )
    assert {k: recipe[k] for k in tuned} == tuned


def test_no_patient_is_on_both_sides_or_in_two_folds(
    tmp_path: Path, paint: Callable[..., Path]
) -> None:
    data = paint(tmp_path / "data")
    rows = [
        f"{p.relative_to(data)},{p.parent.name},{p.stem[:3]}" for p in sorted(data.rglob("*.png"))
    ]
    (data / "table.csv").write_text("\n".join(["path,label,patient", *rows]))
    ensemble_kit(
        "train-members", "--data", "data/table.csv", "--members", "tiny_cnn", "--image-size", 16, "--epochs", 1,
        "--folds", 3, "--no-pretrained", "--device", "cpu", "--slots", 1, "--run", "run", cwd=tmp_path,
    )  # fmt: skip
    check_patients_are_not_split(tmp_path / "run")


# -- real images ---------------------------------------------------------------------------


@pytest.mark.slow
def test_all_commands_work_on_real_images(real_data: Path, tmp_path: Path) -> None:
    command = (
        "train-members", "--data", real_data / "BreaKHis_v1", "--magnification", 100, "--members",
        "resnet18,efficientnet_b0,densenet121", "--folds", 3, "--image-size", 32, "--epochs", 1,
        "--no-pretrained", "--device", "cpu", "--run", "checkpoints/bh",
    )  # fmt: skip
    ensemble_kit(*command, cwd=tmp_path)
    printed = ensemble_kit("stack", "--run", "checkpoints/bh", "--resamples", 200, cwd=tmp_path)
    ensemble_kit("report", "--run", "checkpoints/bh", cwd=tmp_path)
    run = tmp_path / "checkpoints" / "bh"
    check_patients_are_not_split(run)
    check_vote_and_mean(run)
    assert "patients" in printed
    check_that_timm_gives_the_stored_logits(run, "resnet18")
    again = ensemble_kit(*command, cwd=tmp_path)
    assert "9 of 9 jobs are already finished" in again


def check_that_timm_gives_the_stored_logits(run: Path, member: str) -> None:
    import timm
    import torch

    from ensemble_kit.files import cache_folder
    from ensemble_kit.images.tiles.build import build_tiles
    from ensemble_kit.members.jobs.job import CROP
    from ensemble_kit.run import Run

    folder = run / "members" / member / "fold-0"
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    manifest = Run(run).manifest()
    test = manifest.part("test")
    size = model.pretrained_cfg["input_size"][-1]
    tiles = build_tiles(manifest, size, cache_dir=cache_folder(), crop=CROP)
    pixels = tiles.pixels[tiles.rows(test.sample_ids)].astype(np.float32) / 255
    mean, std = (np.array(model.pretrained_cfg[k], dtype=np.float32) for k in ("mean", "std"))
    images = torch.from_numpy(((pixels - mean) / std).transpose(0, 3, 1, 2).copy())
    with torch.inference_mode():
        got = model(images).numpy()
    np.testing.assert_allclose(got, np.load(folder / "logits-test.npy"), atol=1e-4)
