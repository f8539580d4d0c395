"""Row 43: a member without one fold is refused, or its missing rows are masked and reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.arrays import softmax
from ensemble_kit.evaluation.runs.stored_ensembles import read_ensemble_predictions
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run

CLI = Callable[..., tuple[int, str]]
LOST, QUICK = 1, ("--resamples", 20)


@pytest.fixture
def lacking(trained: Any, tmp_path: Path) -> Run:
    """A run in which `tiny_mobile` has predictions of folds 0 and 2 only."""
    copy = trained.copied_to(tmp_path / "run")
    shutil.rmtree(copy.run.fold_dir("tiny_mobile", LOST))
    shutil.rmtree(copy.run.path / "predictions" / "tiny_mobile")
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=3e-3)
    member = Member("tiny_mobile", image_size=16, pretrained=False, recipe=recipe)
    fit_members([member], copy.manifest, copy.folds, copy.run, device="cpu", shard=(1, 3))
    return Run(copy.run.path)


def test_row_43_every_command_refuses_or_names_a_member_without_one_fold(
    lacking: Run, cli: CLI
) -> None:
    run = lacking.path
    point = ("--at", "youden", "--class", "malignant")
    refused = {
        "stack": cli("stack", "--run", run, "--method", "mean", *QUICK),
        "diversity": cli("diversity", "--run", run, *QUICK),
        "conformal": cli("conformal", "--run", run, "--method", "tiny_mobile", *QUICK),
        "operating-point": cli("operating-point", "--run", run, "--method", "tiny_mobile", *point, *QUICK),
    }  # fmt: skip
    for command, (code, printed) in refused.items():
        assert (code, "tiny_mobile" in printed) == (3, True), f"{command}: {printed}"
    assert not list(run.glob("ensembles/*/*"))
    code, printed = cli("status", run)
    assert code == 0
    assert "5 of 6" in printed
    code, printed = cli("report", "--run", run)
    assert code in {0, 3}
    assert "tiny_mobile" in (printed if code else (run / "report/index.html").read_text())


def test_row_43_with_a_quorum_missing_rows_are_masked_and_reported(lacking: Run, cli: CLI) -> None:
    run = lacking.path
    code, printed = cli("stack", "--run", run, "--method", "mean,vote", "--quorum", 1, *QUICK)
    assert code == 0, printed
    assert "tiny_mobile" in printed.split("Caveat", 1)[1]
    train, fold = lacking.manifest().part("train"), lacking.folds()
    lost = fold.of(train) == LOST
    alone = softmax(lacking.store.read("tiny_cnn").oof)
    both = (alone + softmax(np.nan_to_num(lacking.store.read("tiny_mobile").oof))) / 2
    frame = read_ensemble_predictions(run / "ensembles" / "mean").set_index("sample_id")
    got = frame.loc[train.sample_ids, [f"p_{name}" for name in train.class_names]].to_numpy()
    np.testing.assert_allclose(got[lost], alone[lost], atol=1e-6)
    np.testing.assert_allclose(got[~lost], both[~lost], atol=1e-6)
    votes = read_ensemble_predictions(run / "ensembles" / "vote").set_index("sample_id")
    chosen = np.array(train.class_names)[alone.argmax(axis=1)]
    assert votes.loc[train.sample_ids[lost], "predicted"].tolist() == chosen[lost].tolist()
    # The mean over the test rows does not contain the model of the lost fold.
    test = lacking.manifest().part("test")
    tested = [softmax(np.mean(list(lacking.store.read(m).test.values()), axis=0)) for m in ("tiny_cnn", "tiny_mobile")]  # fmt: skip
    assert sorted(lacking.store.read("tiny_mobile").test) == [0, 2]
    got = frame.loc[test.sample_ids, [f"p_{name}" for name in test.class_names]].to_numpy()
    np.testing.assert_allclose(got, np.mean(tested, axis=0), atol=1e-6)
    for method in ("mean", "vote"):
        notes = json.loads((run / "ensembles" / method / "metrics.json").read_text())["notes"]
        assert any("tiny_mobile" in note for note in notes)
