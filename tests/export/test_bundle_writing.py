"""`export`: files, errors and output; the choice of fold networks and its measured change."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.export import fold_choice
from ensemble_kit.export.bundle import export_bundle
from ensemble_kit.export.fold_choice import FoldChoice, choice_words, chosen_networks, measured
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble

CLI = Callable[..., tuple[int, str]]


def test_the_best_fold_has_the_lowest_log_loss_on_its_held_out_fold(
    stacked: Any, ensemble: Ensemble
) -> None:
    oof = stacked.run.predictions("oof")
    chosen = chosen_networks(ensemble.members, "best", oof)
    for m, member in enumerate(chosen):
        losses = {}
        for k in range(3):
            rows = oof.fold == k
            log_proba = torch.log_softmax(torch.tensor(oof.logits[rows, m]), dim=1)
            losses[k] = torch.nn.functional.nll_loss(log_proba, torch.tensor(oof.labels[rows]))
        assert list(member.by_fold) == [min(losses, key=losses.__getitem__)]


def test_a_soup_has_the_mean_of_the_weights(stacked: Any, ensemble: Ensemble) -> None:
    soup = chosen_networks(ensemble.members, "soup", stacked.run.predictions("oof"))[0]
    states = [one.model.state_dict() for one in ensemble.members[0].by_fold.values()]
    found = soup.by_fold[0].model.state_dict()
    assert len(states) == 3
    for name, value in found.items():
        if value.is_floating_point():
            want = sum(state[name].double() for state in states) / 3
            torch.testing.assert_close(value, want.float())


@pytest.mark.parametrize("folds", ["best", "soup"])
def test_a_choice_of_folds_is_measured_on_the_test_part(
    stacked: Any, tmp_path: Path, folds: str, test_paths: list[Path]
) -> None:
    done = export_bundle(stacked.run, tmp_path / "b", method="simplex", folds=folds)
    choice = done.choice
    assert (choice.n_networks, choice.n_before) == (2, 6)
    test = stacked.run.predictions("test")
    opened = load_ensemble(tmp_path / "b", device="cpu")
    predicted = opened.predict_all(test_paths).combined.predicted
    hits = predicted == test.labels
    want = np.mean([hits[test.labels == c].mean() for c in range(2)])
    assert choice.chosen == pytest.approx(want)
    assert choice.gain[0] == pytest.approx(choice.chosen - choice.all_folds)
    assert f"{choice.chosen:.3f}" in opened.card
    assert any(f"{choice.all_folds:.3f}" in note for note in opened.notes)


def test_without_a_test_part_the_change_is_unknown_and_the_reason_is_given(
    ensemble: Ensemble,
) -> None:
    found = measured("best", ensemble, ensemble, None, [], "balanced_accuracy")
    assert (found.chosen, found.gain) == (None, (None, None, None))
    assert fold_choice.NO_TEST in choice_words(found)


def test_the_sentences_of_a_worse_choice_have_its_values_and_verdict() -> None:
    found = FoldChoice(
        "soup", 2, 6, "accuracy", 0.9, 0.5, (-0.4, -0.6, -0.2), "worse", 80, 20, 0.006, 0.002
    )
    printed = " ".join(choice_words(found))
    values = ("0.500", "0.900", "-0.400 [-0.600, -0.200]", "worse", "80 images", "20 groups", "3.0")
    assert all(one in printed for one in values)


def test_only_an_older_bundle_is_replaced(stacked: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.md").write_text("years of work")
    with pytest.raises(DataError, match="thesis"):
        export_bundle(stacked.run, tmp_path / "thesis", method="vote")
    assert (tmp_path / "thesis" / "text.md").read_text() == "years of work"
    for method in ("vote", "simplex"):
        export_bundle(stacked.run, tmp_path / "b", method=method)
        assert load_ensemble(tmp_path / "b", device="cpu").method == method


def test_no_file_is_written_if_the_images_are_missing(
    stacked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ensemble_kit.export import bundle

    gone = dataclasses.replace(stacked.manifest, root=tmp_path / "gone")
    monkeypatch.setattr(bundle, "data_root", lambda run, manifest: gone)
    with pytest.raises(DataError, match="gone"):
        export_bundle(stacked.run, tmp_path / "b", method="simplex")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UsageError, match="'fold'"):
        export_bundle(stacked.run, tmp_path / "b", folds="fold")


def test_the_command_writes_a_bundle(cli: CLI, stacked: Any, tmp_path: Path) -> None:
    code, printed = cli("export", stacked.run.path, "mine.zip", "--method", "simplex")
    assert code == 0, printed
    assert "6 networks" in printed
    assert "--run mine.zip" in printed
    code, printed = cli("export", stacked.run.path, "b", "--method", "simplex", "--json")
    assert json.loads(printed)["golden_difference"] <= 1e-6
    assert cli("export", "a", "b", "c")[0] == 2
    assert cli("export", "b")[0] == 3
