"""Greedy selection over stored trials; the next training only computes predictions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ensemble_kit.members.training.loop as loop_module
from ensemble_kit.arrays import softmax
from ensemble_kit.run import Run

CLI = Callable[..., tuple[int, str]]
COMMON = ("--image-size", 16, "--epochs", 1, "--folds", 2, "--no-pretrained", "--device", "cpu", "--run", "run")  # fmt: skip


def test_a_selected_trial_becomes_a_member_without_training(
    cli: CLI, slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ("--data", slides, "--members", "tiny_cnn", *COMMON)
    code, printed = cli("tune", *data, "--trials", 6, "--keep-trials")
    assert code == 0, printed
    picked = re.findall(r"tiny_cnn-trial\d+", printed)
    assert picked, printed
    name = picked[0]
    trial = json.loads(Path(f"run/tuned/{name}.json").read_text())["trial"]
    members = re.search(r"--members (\S*:name=\S+)", printed.partition("Or: ")[2])
    assert members is not None

    def epoch(*_: object) -> None:
        raise AssertionError("an epoch was trained")

    monkeypatch.setattr(loop_module, "_train_epoch", epoch)
    code, printed = cli("train-members", "--data", slides, "--members", f"tiny_cnn:name={name}", *COMMON, "--slots", 1)  # fmt: skip
    assert code == 0, printed
    run = Run("run")
    oof = run.predictions("oof").select([name])
    losses = -np.log(softmax(oof.logits.astype(np.float64))[np.arange(len(oof)), 0, oof.labels])
    code, printed = cli("tune", "status", "--run", "run", "--json")
    found = next(t for t in json.loads(printed)["tiny_cnn"] if t["number"] == trial)
    assert losses.mean() == pytest.approx(found["loss"], abs=1e-9)
    code, printed = cli("stack", "--run", "run", "--method", "greedy", "--resamples", 20)
    assert f"Caveat: {name}: its recipe was tuned on these folds" in printed
