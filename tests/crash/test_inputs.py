"""Data, devices and numbers that are not what they were: refused by name, before anything is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble_kit.combiners.voting import MajorityVote
from ensemble_kit.errors import DataError, JobsFailedError
from ensemble_kit.members.crossfit import fit_members
from ensemble_kit.members.fit import Fit
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run

CLI = Callable[..., tuple[int, str]]
NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")


def words(data: Path, run: Path, *flags: str) -> list[object]:
    return [
        "train-members", "--data", data, "--members", "tiny_cnn", "--folds", 2, "--image-size", 16,
        "--epochs", 1, "--no-pretrained", "--slots", 1, "--run", run, "--device", "cpu", *flags,
    ]  # fmt: skip


def test_row_13_changed_images_are_refused_with_their_names_and_touched_ones_are_not(
    slides: Path, tmp_path: Path, cli: CLI
) -> None:
    data, run = tmp_path / "slides", tmp_path / "run"
    shutil.copytree(slides, data)
    assert cli(*words(data, run))[0] == 0
    image, other = data / "benign" / "P01_0.png", data / "malignant" / "P12_0.png"
    os.utime(image, (1, 1))
    code, said = cli(*words(data, run))
    assert code == 0
    assert "2 of 2 jobs were finished before" in said
    before = image.read_bytes()

    image.write_bytes(other.read_bytes())
    code, said = cli(*words(data, run))
    assert code == 3
    assert "was made from other data" in said
    assert "P01_0" in said
    image.write_bytes(before)

    added = data / "benign" / "P01_9.png"
    shutil.copy(other, added)
    code, said = cli(*words(data, run))
    assert (code, "P01_9" in said) == (3, True), said
    added.unlink()

    image.unlink()
    code, said = cli(*words(data, run))
    assert (code, "P01_0" in said) == (3, True), said
    image.write_bytes(before)
    assert cli(*words(data, run))[0] == 0


@NO_CUDA
@pytest.mark.parametrize("cards", ["", "7", "no-such-card"])
def test_row_40_a_device_that_is_not_there_is_exit_4_before_anything_trains(
    slides: Path, tmp_path: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch, cards: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", cards)
    code, said = cli(*words(slides, tmp_path / "run", "--device", "cuda"))
    assert code == 4
    assert "'cuda' is not available here (0 CUDA devices)" in said
    assert not (tmp_path / "run").exists()


@NO_CUDA
def test_row_40_a_planned_job_whose_device_is_gone_fails_alone_with_exit_4(
    slides: Path, tmp_path: Path, cli: CLI
) -> None:
    run = tmp_path / "run"
    assert cli(*words(slides, run))[0] == 0
    spec = run / "members" / "tiny_cnn" / "member.json"
    spec.write_text(json.dumps({**json.loads(spec.read_text()), "device": "cuda"}))
    shutil.rmtree(run / "members" / "tiny_cnn" / "fold-0")
    code, said = cli("run-job", run, "tiny_cnn", 0)
    assert code == 4
    assert "'cuda' is not available here" in said
    assert (run / "members" / "tiny_cnn" / "fold-1" / "fold.json").is_file()


def test_row_35_a_job_whose_logits_are_nan_is_not_done_and_nan_gets_no_vote(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Fit.logits

    def broken(self: Fit, *arguments: Any, **options: Any) -> Any:
        logits = real(self, *arguments, **options)
        if self.seed == seeds[0]:
            logits[0, 0] = np.nan
        return logits

    seeds: list[int] = []
    start = Fit.start

    def noted(*arguments: Any, **options: Any) -> Fit:
        seeds.append(options["seed"])
        return start(*arguments, **options)

    monkeypatch.setattr(Fit, "logits", broken)
    monkeypatch.setattr(Fit, "start", noted)
    member = Member("tiny_cnn", image_size=16, pretrained=False, recipe=Recipe(epochs=1))
    run = Run(tmp_path / "run")
    with pytest.raises(
        JobsFailedError, match="1 of 3 failed: tiny_cnn fold 0: Kept logits are fin"
    ):
        fit_members([member], trained.manifest, trained.folds, run, device="cpu")
    assert not (run.fold_dir("tiny_cnn", 0) / "fold.json").exists()
    assert (run.fold_dir("tiny_cnn", 1) / "fold.json").is_file()
    logits = np.zeros((4, 3, 2), dtype=np.float32)
    logits[2, 1, 0] = np.nan
    with pytest.raises(DataError, match="NaN has no class"):
        MajorityVote().fit(np.zeros_like(logits), np.array([0, 1, 0, 1])).predict(logits)
