"""The prediction store: plain files, checks by digests, joins by id."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.predictions.store import MemberLogits, PredictionStore, aligned
from ensemble_kit.run import Run
from ensemble_kit.testing import toy_run


def logits_of(seed: int = 0) -> MemberLogits:
    rng = np.random.default_rng(seed)
    return MemberLogits(
        oof=rng.normal(size=(6, 2)).astype(np.float32),
        test={k: rng.normal(size=(3, 2)).astype(np.float32) for k in range(2)},
        train_ids=tuple("abcdef"),
        test_ids=tuple("xyz"),
        class_names=("benign", "malignant"),
        about={"manifest": "m", "folds": "f"},
    )


@pytest.fixture
def store(tmp_path: Path) -> PredictionStore:
    store = PredictionStore(tmp_path / "predictions")
    store.write("one", logits_of())
    return store


def test_logits_are_read_back_unchanged(store: PredictionStore) -> None:
    want, got = logits_of(), store.read("one")
    assert got.oof.tobytes() == want.oof.tobytes()
    assert {k: z.tobytes() for k, z in got.test.items()} == {
        k: z.tobytes() for k, z in want.test.items()
    }
    for field in ("train_ids", "test_ids", "class_names", "about"):
        assert getattr(got, field) == getattr(want, field)


def test_the_files_can_be_read_with_numpy_and_json_only(store: PredictionStore) -> None:
    folder = store.root / "one"
    index = json.loads((folder / "index.json").read_text())
    assert index["sample_ids"] == {"oof": list("abcdef"), "test": list("xyz")}
    assert index["class_names"] == ["benign", "malignant"]
    assert np.load(folder / "oof.npy").shape == (6, 2)
    assert sorted(p.name for p in folder.iterdir()) == [
        "index.json", "oof.npy", "test-fold-0.npy", "test-fold-1.npy",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["oof.npy", "test-fold-0.npy", "test-fold-1.npy"])
def test_one_flipped_bit_anywhere_in_a_file_is_detected(store: PredictionStore, name: str) -> None:
    path = store.root / "one" / name
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(50):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=f"{name}'"):
            store.read("one")
    path.write_bytes(whole)
    store.read("one")


def test_a_missing_file_is_named(store: PredictionStore) -> None:
    (store.root / "one" / "test-fold-1.npy").unlink()
    with pytest.raises(IntegrityError, match=r"test-fold-1\.npy'"):
        store.read("one")


def test_files_swapped_between_members_are_detected(store: PredictionStore) -> None:
    store.write("two", logits_of(1))
    ours, theirs = (store.root / name / "oof.npy" for name in ("one", "two"))
    ours.write_bytes(theirs.read_bytes())
    with pytest.raises(IntegrityError, match=r"one/oof\.npy'"):
        store.read("one")


def test_an_index_that_does_not_fit_its_arrays_is_refused(store: PredictionStore) -> None:
    path = store.root / "one" / "index.json"
    index = json.loads(path.read_text())
    index["sample_ids"]["oof"].pop()
    del index["own_digest"]  # as earlier versions wrote it
    path.write_text(json.dumps(index))
    with pytest.raises(IntegrityError, match=r"shape \(6, 2\), not \(5, 2\)"):
        store.read("one")


def test_an_unknown_member_names_the_nearest(store: PredictionStore) -> None:
    with pytest.raises(DataError, match=r"Did you mean 'one'\?"):
        store.read("onee")


def test_a_member_without_an_index_is_not_listed(store: PredictionStore) -> None:
    store.write("two", logits_of(1))
    (store.root / "two" / "index.json").unlink()
    assert store.members() == ["one"]


# -- aligning ------------------------------------------------------------------------------


def test_members_are_aligned_by_id() -> None:
    want = np.array(["c", "a", "b"])
    logits = np.arange(6.0).reshape(3, 2)
    stacked = aligned({"m": logits, "n": logits[::-1]}, {"m": list("abc"), "n": list("cba")}, want)
    assert stacked.shape == (3, 2, 2)
    assert np.array_equal(stacked[:, 0], logits[[2, 0, 1]])
    assert np.array_equal(stacked[:, 1], logits[[2, 0, 1]])


@pytest.mark.parametrize(
    ("ids", "named"),
    [("ab", "1 .*'m'.*: c"), ("abcd", "1 .*'m'.*: d"),
     ("abx", "2 .*'m'.*: c, x"), ("abca", "'m'")],
)  # fmt: skip
def test_other_rows_gaps_and_duplicates_are_refused(ids: str, named: str) -> None:
    with pytest.raises(DataError, match=named):
        aligned({"m": np.zeros((len(ids), 2))}, {"m": list(ids)}, np.array(["a", "b", "c"]))


def test_a_run_joins_members_stored_in_another_order_of_rows_and_classes(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", n_members=2)
    before = run.predictions("oof")
    test_before = run.predictions("test")
    stored = run.store.read("member1")
    rows = np.random.default_rng(0).permutation(len(stored.train_ids))
    classes = [2, 0, 1]
    run.store.write(
        "member1",
        dataclasses.replace(
            stored,
            oof=stored.oof[rows][:, classes],
            test={k: z[:, classes] for k, z in stored.test.items()},
            train_ids=tuple(np.array(stored.train_ids)[rows].tolist()),
            class_names=tuple(stored.class_names[c] for c in classes),
        ),
    )
    assert np.array_equal(run.predictions("oof").logits, before.logits)
    assert np.array_equal(run.predictions("test").logits, test_before.logits)


def test_a_member_with_other_classes_is_refused(tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", n_members=2)
    stored = run.store.read("member1")
    run.store.write("member1", dataclasses.replace(stored, class_names=("x", "y", "z")))
    with pytest.raises(IntegrityError, match=r"\['x', 'y', 'z'\]"):
        run.predictions("oof")


def test_every_stored_file_of_a_trained_run_is_checked(trained: Any, tmp_path: Path) -> None:
    run: Run = trained.copied_to(tmp_path / "run").run
    files = sorted((run.path / "predictions").rglob("*.npy"))
    assert len(files) == 2 * (1 + 3)
    for file in files:
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(IntegrityError, match=file.name):
            run.predictions("oof")
        file.write_bytes(whole)
    run.predictions("oof")
