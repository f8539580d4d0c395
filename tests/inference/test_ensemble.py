"""`load_ensemble` reproduces the run's predictions of its test part, and checks all stored files."""

from __future__ import annotations

import dataclasses
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ensemble_kit as ek
from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.errors import DataError, IntegrityError, UsageError
from ensemble_kit.evaluation.decisions.set_coverage import SetOptions
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.prediction_sets import conformal_sets
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.evaluation.tables.recommendation import chosen_of, method_to_use
from ensemble_kit.files import read_csv, read_json
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble
from ensemble_kit.metrics.costs import CostMatrix


def stored_test_rows(own: Any, method: str, file: str = "predictions.csv") -> pd.DataFrame:
    rows = read_csv(own.run.ensemble_dir(method) / file)
    ids = own.manifest.part("test").sample_ids
    return rows[rows["split"] == "test"].set_index("sample_id").loc[ids]


def assert_same_as_stored(own: Any, ensemble: Ensemble, paths: list[Path]) -> None:
    found, rows = ensemble.predict_all(paths), stored_test_rows(own, ensemble.method)
    assert found.classes.tolist() == rows["predicted"].tolist()
    stored = rows[[f"p_{c}" for c in ensemble.class_names]].astype(float).to_numpy()
    np.testing.assert_allclose(found.proba, stored, atol=1e-5)


@pytest.mark.parametrize("method", ["vote", "simplex", "logistic", "best-member", "mean"])
def test_the_runs_own_test_images_get_the_stored_test_predictions(
    stacked: Any, test_paths: list[Path], method: str
) -> None:
    assert_same_as_stored(stacked, load_ensemble(stacked.run, method=method), test_paths)


def test_the_default_method_is_the_one_that_stack_chose(stacked: Any) -> None:
    folders = (stacked.run.path / "ensembles").glob("*/metrics.json")
    stored = {path.parent.name: read_json(path) for path in folders}
    assert load_ensemble(stacked.run).method == chosen_of(stored)


def test_a_note_names_the_recommended_member(stacked: Any) -> None:
    folders = (stacked.run.path / "ensembles").glob("*/metrics.json")
    stored = {path.parent.name: read_json(path) for path in folders}
    assert method_to_use(stored) == "best-member"
    member = stored["best-member"]["best_member"]
    ensemble = load_ensemble(stacked.run)
    assert member in stacked.run.members()
    assert ensemble.method != member
    assert any(f"--method {member}" in note for note in ensemble.notes)


def test_without_stacked_methods_the_mean_predicts_with_a_note(trained: Any, slides: Path) -> None:
    ensemble = load_ensemble(trained.run)
    assert (ensemble.method, len(ensemble.notes)) == ("mean", 1)
    logits = trained.run.predictions("test").logits
    proba = ek.MeanProba().fit(logits, [0] * len(logits)).predict_proba(logits)
    paths = [slides / p for p in trained.manifest.part("test").table["path"]]
    np.testing.assert_allclose(ensemble.predict_proba(paths), proba, atol=1e-5)


def test_a_single_member_predicts(stacked: Any, test_paths: list[Path]) -> None:
    ensemble = load_ensemble(stacked.run, method="tiny_cnn")
    table = stacked.run.predictions("test")
    member = table.logits[:, table.member_names.index("tiny_cnn")]
    found = ensemble.predict_all(test_paths)
    assert found.member_names == ("tiny_cnn",)
    assert found.classes.tolist() == [table.class_names[c] for c in member.argmax(axis=1)]


def test_costs_of_stack_are_used_for_new_images(trained: Any, tmp_path: Path, slides: Path) -> None:
    own = trained.copied_to(tmp_path / "run")
    names = own.manifest.class_names
    costs = CostMatrix(names, ((0.0, 1.0), (500.0, 0.0)))
    stack_run(
        own.run, ["simplex"], protocol=Protocol(n_resamples=0, costs=costs, decide_by_cost=True)
    )
    paths = [slides / p for p in own.manifest.part("test").table["path"]]
    ensemble = load_ensemble(own.run, method="simplex")
    assert_same_as_stored(own, ensemble, paths)
    likeliest = ensemble.predict_proba(paths).argmax(axis=1)
    assert ensemble.predict(paths).tolist() != [names[c] for c in likeliest]


def test_votes_disagreement_and_entropy_come_from_the_members(
    stacked: Any, ensemble: Ensemble, test_paths: list[Path]
) -> None:
    found, table = ensemble.predict_all(test_paths), stacked.run.predictions("test")
    order = [table.member_names.index(name) for name in found.member_names]
    voted = table.logits[:, order].argmax(axis=2)
    assert found.votes.tolist() == np.array(table.class_names)[voted].tolist()
    for i, cls in enumerate(found.classes):
        assert found.disagreement[i] == np.mean([vote != cls for vote in found.votes[i]])
    mean = found.member_proba.mean(axis=1)
    np.testing.assert_allclose(found.entropy, -(mean * np.log(mean)).sum(axis=1))
    assert (found.mutual_information >= 0).all()
    assert (found.mutual_information <= found.entropy).all()


def test_prediction_sets_equal_the_stored_ones(
    stacked: Any, ensemble: Ensemble, test_paths: list[Path]
) -> None:
    stored = stored_test_rows(stacked, "simplex", "sets.csv")["set"]
    assert [" | ".join(one) for one in ensemble.predict_sets(test_paths)] == stored.tolist()


def test_decisions_have_the_stored_counts_of_operating_point(
    stacked: Any, ensemble: Ensemble, test_paths: list[Path]
) -> None:
    stored = read_json(stacked.run.ensemble_dir("simplex") / "decision.json")
    test, truth = stored["units"]["image"]["test"], stacked.manifest.part("test").table["label"]
    decided = np.array(ensemble.predict_all(test_paths).decisions)
    called, sick = decided == stored["class"], (truth == stored["class"]).to_numpy()
    referred = decided == "refer"
    assert int(referred.sum()) == test["referred"] > 0
    assert int((called & sick).sum()) == test["true_positive"]
    assert int((called & ~sick).sum()) == test["false_positive"]
    assert int((~called & ~referred & sick).sum()) == test["false_negative"]


def test_cross_conformal_sets_have_no_thresholds_for_new_images(
    stacked: Any, tmp_path: Path
) -> None:
    own = stacked.copied_to(tmp_path / "run")
    conformal_sets(own.run, "simplex", SetOptions(alpha=0.3, cross=True, n_resamples=0))
    ensemble = load_ensemble(own.run, method="simplex")
    assert any("cross-conformal" in note for note in ensemble.notes)
    with pytest.raises(UsageError):
        ensemble.predict_sets([])


def test_arrays_and_paths_give_the_same_probabilities(
    ensemble: Ensemble, test_paths: list[Path]
) -> None:
    arrays = [np.asarray(Image.open(path)) for path in test_paths[:3]]
    by_path = ensemble.predict_proba(test_paths[:3])
    np.testing.assert_array_equal(ensemble.predict_proba(arrays), by_path)
    np.testing.assert_array_equal(ensemble.predict_proba(np.stack(arrays)), by_path)
    np.testing.assert_allclose(ensemble.predict_proba(arrays[0]), by_path[:1], atol=1e-6)
    np.testing.assert_allclose(ensemble.predict_proba(str(test_paths[0])), by_path[:1], atol=1e-6)
    assert ensemble.predict([]).tolist() == []


@pytest.mark.parametrize("odd", [3, None, [object()], [np.zeros((4, 4), dtype=np.float32)]])
def test_other_objects_than_images_are_refused(ensemble: Ensemble, odd: object) -> None:
    with pytest.raises((UsageError, DataError)):
        ensemble.predict(odd)


def test_threads_get_the_same_probabilities_as_a_single_call(
    ensemble: Ensemble, test_paths: list[Path]
) -> None:
    alone, found = ensemble.predict_proba(test_paths), {}

    def work(i: int) -> None:
        found[i] = ensemble.predict_proba(test_paths)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for proba in found.values():
        np.testing.assert_array_equal(proba, alone)
    assert len(found) == 4


def test_unreadable_images_are_all_named(
    ensemble: Ensemble, test_paths: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "cut.png").write_bytes(test_paths[0].read_bytes()[:300])
    with pytest.raises(DataError, match=r"(?s)text\.png.*cut\.png"):
        ensemble.predict([tmp_path / "text.png", test_paths[0], tmp_path / "cut.png"])


# -- errors --------------------------------------------------------------------------------


def test_unknown_methods_and_the_oracle_are_refused(stacked: Any) -> None:
    for name in ("simplx", "oracle", "greedy"):
        with pytest.raises(UsageError, match=name):
            load_ensemble(stacked.run, method=name)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"run\.json"):
        load_ensemble(tmp_path)


def test_an_imported_run_is_refused(stacked: Any, tmp_path: Path) -> None:
    own = stacked.copied_to(tmp_path / "run")
    with (own.run.path / "config.toml").open("a") as file:
        file.write('\n[imported]\nmembers = ["a"]\n')
    with pytest.raises(DataError, match=re.escape(str(own.run.path))):
        load_ensemble(own.run)


def test_a_missing_network_is_named(stacked: Any, tmp_path: Path) -> None:
    own = stacked.copied_to(tmp_path / "run")
    shutil.rmtree(own.run.fold_dir("tiny_mobile", 1))
    with pytest.raises(DataError, match=r"(?s)'tiny_mobile'.*fold 1.*--method"):
        load_ensemble(own.run, method="simplex")
    assert load_ensemble(own.run, method="tiny_cnn").member_names == ("tiny_cnn",)


def test_a_member_without_one_fold_predicts_with_its_other_networks(
    trained: Any, tmp_path: Path, test_paths: list[Path]
) -> None:
    own = trained.copied_to(tmp_path / "run")
    whole = own.run.store.read("tiny_mobile")
    fold = own.folds.of(own.manifest.part("train"))
    assert list(whole.train_ids) == own.manifest.part("train").sample_ids.tolist()
    lacking = dataclasses.replace(
        whole,
        oof=np.where(fold[:, None] == 2, np.float32(np.nan), whole.oof),
        test={k: v for k, v in whole.test.items() if k != 2},
        about={**whole.about, "folds_done": [0, 1]},
    )
    own.run.store.write("tiny_mobile", lacking)
    stack_run(own.run, ["simplex"], protocol=Protocol(n_resamples=0, fallback=False), quorum=1)
    found = load_ensemble(own.run, method="simplex", device="cpu")
    assert [list(one.by_fold) for one in found.members] == [[0, 1, 2], [0, 1]]
    assert_same_as_stored(own, found, test_paths)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_damaged_network_is_refused_by_name(stacked: Any, tmp_path: Path, file: str) -> None:
    own = stacked.copied_to(tmp_path / "run")
    path = own.run.fold_dir("tiny_cnn", 2) / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=rf"fold-2.{file}"):
        load_ensemble(own.run, method="simplex")


def test_a_network_that_was_trained_again_is_refused(stacked: Any, tmp_path: Path) -> None:
    own = stacked.copied_to(tmp_path / "run")
    here, there = (own.run.fold_dir("tiny_cnn", k) for k in (0, 1))
    shutil.rmtree(here)
    shutil.copytree(there, here)
    with pytest.raises(IntegrityError, match="fold-0"):
        load_ensemble(own.run, method="simplex")


def test_a_combiner_of_older_predictions_is_refused(stacked: Any, tmp_path: Path) -> None:
    own = stacked.copied_to(tmp_path / "run")
    logits = own.run.store.read("tiny_cnn")
    own.run.store.write("tiny_cnn", dataclasses.replace(logits, oof=logits.oof + 1))
    with pytest.raises(IntegrityError, match="tiny_cnn"):
        load_ensemble(own.run, method="simplex")
    with pytest.raises(IntegrityError, match="tiny_cnn"):
        load_ensemble(own.run)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("sets.json", {"thresholds": {"benign": 0.5, "odd": 0.5}}),
        ("sets.json", {"method": "vote"}),
        ("decision.json", {"class": "odd"}),
        ("decision.json", {"class": None}),
        ("decision.json", {"made_of": {"manifest": "", "folds": "", "members": {}}}),
    ],
)
def test_stored_decisions_of_other_classes_methods_or_members_are_refused(
    stacked: Any, tmp_path: Path, file: str, change: dict[str, Any]
) -> None:
    own = stacked.copied_to(tmp_path / "run")
    path = own.run.ensemble_dir("simplex") / file
    write_checked(path, {**read_checked(path, advice=""), **change})
    with pytest.raises(IntegrityError, match=file):
        load_ensemble(own.run, method="simplex")


@pytest.mark.parametrize("file", ["sets.json", "decision.json", "combiner.json", "metrics.json"])
def test_a_changed_stored_file_is_refused_by_name(stacked: Any, tmp_path: Path, file: str) -> None:
    own = stacked.copied_to(tmp_path / "run")
    path = own.run.ensemble_dir("simplex") / file
    path.write_text(path.read_text().replace("simplex", "simplez", 1))
    with pytest.raises(IntegrityError, match=file):
        load_ensemble(own.run, method="simplex")


def test_networks_of_other_classes_are_refused(stacked: Any, tmp_path: Path) -> None:
    own = stacked.copied_to(tmp_path / "run")
    path = own.run.fold_dir("tiny_cnn", 0) / "fold.json"
    record = read_checked(path, advice="")
    write_checked(path, {**record, "class_names": ["benign", "odd"]})
    with pytest.raises(IntegrityError, match="fold-0"):
        load_ensemble(own.run, method="simplex")


def test_network_outputs_are_aligned_by_class_name(
    stacked: Any, tmp_path: Path, test_paths: list[Path], ensemble: Ensemble
) -> None:
    from safetensors.torch import load_file, save_file

    from ensemble_kit.files import digest_file

    own = stacked.copied_to(tmp_path / "run")
    folder = own.run.fold_dir("tiny_cnn", 0)
    weights = folder / "model.safetensors"
    tensors, n = load_file(weights), own.manifest.n_classes
    heads = [k for k in sorted(tensors) if tensors[k].shape[:1] == (n,)]
    save_file({k: v.flip(0).contiguous() if k in heads else v for k, v in tensors.items()}, weights)
    path = folder / "fold.json"
    record = read_checked(path, advice="")
    record["files"]["model.safetensors"] = digest_file(weights)
    write_checked(path, {**record, "class_names": record["class_names"][::-1]})
    reordered = load_ensemble(own.run, method="simplex")
    np.testing.assert_allclose(
        reordered.predict_proba(test_paths), ensemble.predict_proba(test_paths), atol=1e-6
    )


def test_a_run_path_gives_an_ensemble_that_predicts(
    stacked: Any, slides: Path, paint: Callable[..., Path]
) -> None:
    ensemble = ek.load_ensemble(stacked.run.path)
    images = sorted(slides.glob("*/*.png"))[:4]
    proba = ensemble.predict_proba(images)
    assert proba.shape == (4, len(ensemble.class_names))
    assert set(ensemble.predict(images)) <= set(ensemble.class_names)
    assert ensemble.method in repr(ensemble)
