"""Properties of folds and hold-out: whole groups, every class, every row once, reproducible."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_kit.errors import DataError
from ensemble_kit.folds import Folds, hold_out, make_folds
from ensemble_kit.folds.validation_split import validation_split
from ensemble_kit.manifest.table import Manifest

Patients = list[tuple[int, int]]  # class and number of images of each patient


def manifest_of(patients: Patients, *, mixed: bool = False) -> Manifest:
    """A manifest of the patients; with `mixed`, the images of a patient have several classes."""
    n_classes = max(c for c, _ in patients) + 1
    rows = []
    for p, (label, n_images) in enumerate(patients):
        for i in range(n_images):
            c = (label + i) % n_classes if mixed else label
            rows.append((f"s{p}-{i}", f"s{p}-{i}.png", f"c{c}", f"p{p}"))
    return Manifest.from_records(rows, group_kind="patient")


def shuffled(manifest: Manifest, seed: int) -> Manifest:
    return manifest.take(np.random.default_rng(seed).permutation(len(manifest)))


@st.composite
def cohorts(draw: st.DrawFn) -> Manifest:
    """Two to four classes, three to eight patients each, one to six images per patient."""
    n_classes = draw(st.integers(2, 4))
    patients = [
        (c, draw(st.integers(1, 6)))
        for c in range(n_classes)
        for _ in range(draw(st.integers(3, 8)))
    ]
    return manifest_of(draw(st.permutations(patients)), mixed=draw(st.booleans()))


LAWS = settings(max_examples=12, deadline=None, derandomize=True)


# -- folds ---------------------------------------------------------------------------------


@LAWS
@given(cohorts(), st.integers(2, 3), st.integers(0, 5))
def test_no_group_is_in_two_folds(manifest: Manifest, n_splits: int, seed: int) -> None:
    folds = make_folds(manifest, n_splits, seed=seed)
    table = pd.DataFrame({"group": manifest.groups, "fold": folds.of(manifest)})
    assert table.groupby("group")["fold"].nunique().max() == 1


@LAWS
@given(cohorts(), st.integers(2, 3), st.integers(0, 5))
def test_every_row_is_in_one_fold_and_no_fold_is_empty(
    manifest: Manifest, n_splits: int, seed: int
) -> None:
    folds = make_folds(manifest, n_splits, seed=seed)
    assert sorted(folds.sample_ids.tolist()) == sorted(manifest.sample_ids.tolist())
    assert set(folds.fold.tolist()) == set(range(n_splits))
    assert folds.n_splits == n_splits


@LAWS
@given(st.integers(2, 4), st.integers(2, 5), st.integers(1, 4), st.integers(0, 5))
def test_every_class_is_in_every_fold_if_the_groups_allow_it(
    n_classes: int, n_splits: int, spare: int, seed: int
) -> None:
    # Patients of one class each, at least one per class and fold, of very different sizes.
    patients = [(c, 1 + (7 * p) % 5) for c in range(n_classes) for p in range(n_splits + spare - 1)]
    manifest = manifest_of(patients)
    folds = make_folds(manifest, n_splits, seed=seed)
    assert folds.counts(manifest)["images"].min() > 0
    assert folds.notes == ()


@LAWS
@given(cohorts(), st.integers(2, 3), st.integers(0, 5))
def test_no_fold_is_trained_without_a_class(manifest: Manifest, n_splits: int, seed: int) -> None:
    folds = make_folds(manifest, n_splits, seed=seed)
    fold = folds.of(manifest)
    for k in range(n_splits):
        assert set(manifest.labels[fold != k].tolist()) == set(range(manifest.n_classes))


@LAWS
@given(cohorts(), st.integers(2, 3), st.integers(0, 5))
def test_folds_do_not_depend_on_the_order_of_rows(
    manifest: Manifest, n_splits: int, seed: int
) -> None:
    folds = make_folds(manifest, n_splits, seed=seed)
    again = make_folds(shuffled(manifest, seed), n_splits, seed=seed)
    assert folds.digest == again.digest


@pytest.mark.parametrize(("n_patients", "n_splits"), [(2, 3), (2, 4), (3, 5)])
def test_a_class_that_is_not_in_every_fold_is_said(n_patients: int, n_splits: int) -> None:
    manifest = manifest_of([*[(0, 2)] * 8, *[(1, 3)] * n_patients])
    (note,) = make_folds(manifest, n_splits).notes
    assert note.startswith(
        f"Class 'c1' is in {n_patients} of {n_splits} folds: its images come from {n_patients} patients."
    )


def test_another_seed_gives_other_folds() -> None:
    manifest = manifest_of([(p % 2, 2) for p in range(20)])
    digests = {make_folds(manifest, 4, seed=s).digest for s in range(5)}
    assert len(digests) == 5


def test_folds_of_single_images_are_stratified_to_one_image() -> None:
    manifest = manifest_of([(int(p % 7 == 0) + int(p % 3 == 0), 1) for p in range(100)])
    counts = make_folds(manifest, 5, seed=3).counts(manifest)
    for _, part in counts.groupby("label"):
        assert part["images"].max() - part["images"].min() <= 1


def test_folds_of_equal_patients_are_balanced() -> None:
    manifest = manifest_of([(p % 2, 4) for p in range(20)])
    counts = make_folds(manifest, 5).counts(manifest)
    assert set(counts["images"]) == {8}
    assert set(counts["groups"]) == {2}


def test_by_image_groups_can_be_in_several_folds() -> None:
    manifest = manifest_of([(p % 2, 10) for p in range(4)])
    folds = make_folds(manifest, 5, by="image")
    assert folds.split_by == "image"
    table = pd.DataFrame({"group": manifest.groups, "fold": folds.of(manifest)})
    assert table.groupby("group")["fold"].nunique().min() > 1


def test_test_rows_are_in_no_fold() -> None:
    parted = hold_out(manifest_of([(p % 2, 3) for p in range(20)]), test_size=0.25)
    folds = make_folds(parted, 3)
    test_ids = set(parted.part("test").sample_ids.tolist())
    assert test_ids
    assert not test_ids & set(folds.sample_ids.tolist())


@pytest.mark.parametrize("n_splits", [-1, 0, 1])
def test_fewer_than_two_folds_are_refused(n_splits: int) -> None:
    with pytest.raises(DataError, match=f"is {n_splits};"):
        make_folds(manifest_of([(0, 1), (1, 1), (0, 1), (1, 1)]), n_splits)


def test_fewer_groups_than_folds_are_refused_with_the_largest_number_that_works() -> None:
    manifest = manifest_of([(0, 3), (1, 3), (0, 3), (1, 3)])
    with pytest.raises(DataError, match=r"part has 4\. Use at most --folds 4") as caught:
        make_folds(manifest, 5)
    assert caught.value.exit_code == 3
    assert "--folds 2" in caught.value.advice, "the rarest class has two patients"
    assert make_folds(manifest, 4).n_splits == 4


def test_a_class_of_one_patient_is_refused_by_its_name() -> None:
    with pytest.raises(DataError, match=r"'c1' \(c0: 3 patients, c1: 1 patient\)"):
        make_folds(manifest_of([(0, 2), (0, 2), (0, 2), (1, 6)]), 2)


def test_an_unknown_kind_of_split_gets_the_nearest_name() -> None:
    with pytest.raises(DataError, match=r"Did you mean 'group'\?"):
        make_folds(manifest_of([(0, 1), (1, 1), (0, 1), (1, 1)]), 2, by="groups")


# -- hold-out ------------------------------------------------------------------------------


@LAWS
@given(cohorts(), st.sampled_from([0.1, 0.2, 0.4]), st.integers(0, 5))
def test_no_group_is_on_both_sides(manifest: Manifest, test_size: float, seed: int) -> None:
    train, test = manifest.split(test_size=test_size, seed=seed)
    assert not set(train.groups.tolist()) & set(test.groups.tolist())
    assert len(train) + len(test) == len(manifest)
    assert len(test) > 0


@LAWS
@given(cohorts(), st.integers(0, 5))
def test_every_class_keeps_two_groups_in_training(manifest: Manifest, seed: int) -> None:
    train, _ = manifest.split(test_size=0.3, seed=seed)
    groups = train.table.groupby("label")["group"].nunique()
    assert set(groups.index) == set(manifest.class_names)
    assert groups.min() >= 2
    make_folds(train, 2, seed=seed)


@LAWS
@given(cohorts(), st.integers(0, 5))
def test_a_split_does_not_depend_on_the_order_of_rows(manifest: Manifest, seed: int) -> None:
    def test_ids(source: Manifest) -> set[str]:
        return set(source.split(test_size=0.2, seed=seed)[1].sample_ids.tolist())

    assert test_ids(manifest) == test_ids(shuffled(manifest, seed))


@pytest.mark.parametrize("test_size", [0.1, 0.25, 0.5])
def test_the_test_part_has_the_requested_share_of_every_class(test_size: float) -> None:
    manifest = manifest_of([(p % 3, 1 + p % 4) for p in range(120)])
    _, test = manifest.split(test_size=test_size, seed=1)
    for c in range(3):
        share = (test.labels == c).sum() / (manifest.labels == c).sum()
        assert share == pytest.approx(test_size, abs=0.03)


def test_a_small_share_of_few_patients_is_one_patient_of_each_class() -> None:
    # A tenth of five equal patients rounds to none, but the test part must not be empty.
    _, test = manifest_of([(p % 2, 2) for p in range(10)]).split(test_size=0.1)
    assert test.n_groups == 2
    assert sorted(set(test.labels.tolist())) == [0, 1]


def test_too_few_patients_for_a_test_part_are_refused() -> None:
    with pytest.raises(DataError, match="4 groups"):
        manifest_of([(0, 2), (0, 2), (1, 2), (1, 2)]).split(test_size=0.3)


def test_a_class_without_test_images_is_a_note() -> None:
    manifest = manifest_of([*[(0, 2)] * 10, (1, 2), (1, 2)])
    parted = hold_out(manifest, test_size=0.3)
    assert set(parted.part("test").labels.tolist()) == {0}
    assert "Class 'c1' is not in the test part: its images come from 2 patients." in parted.notes


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2, 1.5])
def test_a_share_outside_0_and_1_is_refused(share: float) -> None:
    with pytest.raises(DataError, match=f"size {share};"):
        hold_out(manifest_of([(0, 1), (1, 1)]), test_size=share)


def test_one_patient_cannot_be_held_out() -> None:
    rows = [("a", "a.png", "x", "p"), ("b", "b.png", "y", "p")]
    with pytest.raises(DataError, match="2 images are of one patient"):
        hold_out(Manifest.from_records(rows, group_kind="patient"))


# -- a table of folds ----------------------------------------------------------------------


def test_folds_are_read_as_they_were_written(tmp_path: Path) -> None:
    manifest = manifest_of([(p % 2, 3) for p in range(9)])
    folds = make_folds(manifest, 3)
    folds.write(tmp_path / "folds.csv")
    assert Folds.read(tmp_path / "folds.csv").digest == folds.digest


@pytest.mark.parametrize(
    "text", ["\ufeffsample_id;fold\r\na;1\r\nb;2;\r\n", "Sample ID\tFold\n a\t0.0\nb \t1.0\n\n"]
)
def test_a_user_s_table_of_folds_can_come_from_a_spreadsheet(tmp_path: Path, text: str) -> None:
    (tmp_path / "folds.csv").write_text(text)
    folds = Folds.read(tmp_path / "folds.csv")
    assert folds.sample_ids.tolist() == ["a", "b"]
    assert folds.fold.tolist() == [0, 1]


def test_folds_are_joined_by_sample_id() -> None:
    manifest = manifest_of([(p % 2, 3) for p in range(9)])
    folds = make_folds(manifest, 3)
    where = dict(zip(folds.sample_ids.tolist(), folds.fold.tolist(), strict=True))
    other = shuffled(manifest, 5)
    assert folds.of(other).tolist() == [where[i] for i in other.sample_ids.tolist()]


def test_a_sample_without_a_fold_is_named() -> None:
    manifest = manifest_of([(0, 2), (1, 2), (0, 2), (1, 2)])
    folds = make_folds(manifest.take(np.arange(1, len(manifest))), 2)
    with pytest.raises(DataError, match=r"\(first: s0-0\)"):
        folds.of(manifest)


def test_a_user_s_folds_that_split_a_patient_are_refused(tmp_path: Path) -> None:
    manifest = manifest_of([(0, 2), (1, 2), (0, 2), (1, 2)])
    lines = [f"{name},{i % 2}" for i, name in enumerate(manifest.sample_ids)]
    (tmp_path / "folds.csv").write_text("\n".join(["sample_id,fold", *lines]))
    with pytest.raises(DataError, match=": p0, p1, p2, p3"):
        Folds.read(tmp_path / "folds.csv").of(manifest)
    by_image = Folds.read(tmp_path / "folds.csv", split_by="image")
    assert by_image.of(manifest).tolist() == [0, 1] * 4


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("id,fold\na,0\n", "sample_id"),
        ("sample_id,fold\na,one\n", "'one'"),
        ("sample_id,fold\na,0\na,1\n", "2 sample ids \\(1 different\\)"),
        ("sample_id,fold\na,0\nb,2\n", "the folds 0, 2"),
        ("sample_id,fold\na,0\nb,0\n", "the folds 0;"),
    ],
)
def test_a_bad_table_of_folds_is_refused(tmp_path: Path, text: str, printed: str) -> None:
    (tmp_path / "folds.csv").write_text(text)
    with pytest.raises(DataError, match=printed):
        Folds.read(tmp_path / "folds.csv")


# -- the validation split ---------------------------------------------------------------------

VALIDATION_SPLITS = [
    # The patient with 1 image is nearest to the share, but too small to be used alone.
    ([*[(0, 17)] * 7, (1, 72), (1, 57), (1, 1)], ()),
    ([*[(0, 17)] * 7, (1, 72), (1, 57)], ()),
    ([(0, 2), (0, 2), (1, 2), (1, 2)], ()),
    # The larger of two patients would leave one image for training.
    ([*[(0, 17)] * 7, (1, 72), (1, 1)], ("1 image of class 'c1'",)),
    ([*[(0, 17)] * 7, (1, 72)], ("no image of class 'c1'",)),
]


@pytest.mark.parametrize(("patients", "lacks"), VALIDATION_SPLITS)
@pytest.mark.parametrize("seed", range(4))
def test_a_validation_split_has_each_class_if_patients_allow(
    patients: Patients, lacks: tuple[str, ...], seed: int
) -> None:
    manifest = manifest_of(patients)
    parted, printed = validation_split(manifest, share=0.15, seed=seed)
    learning, validation = parted.part("train"), parted.part("test")
    assert printed == lacks
    assert not set(learning.groups) & set(validation.groups)
    assert len(validation)
    left, held = (np.bincount(part.labels, minlength=2) for part in (learning, validation))
    assert (2 * left >= np.bincount(manifest.labels)).all()
    if not lacks:
        assert (held >= 0.5 * 0.15 * np.bincount(manifest.labels)).all()


@LAWS
@given(cohorts(), st.integers(0, 3))
def test_a_validation_split_leaves_each_class_to_training(manifest: Manifest, seed: int) -> None:
    parted, printed = validation_split(manifest, share=0.2, seed=seed)
    learning, validation = parted.part("train"), parted.part("test")
    assert not set(learning.groups) & set(validation.groups)
    assert set(learning.labels) == set(manifest.labels)
    absent = set(manifest.labels) - set(validation.labels)
    assert {f"no image of class '{manifest.class_names[c]}'" for c in absent} <= set(printed)
    again, _ = validation_split(manifest, share=0.2, seed=seed)
    assert again.table.equals(parted.table)


def test_a_validation_split_with_enough_of_each_class_equals_hold_out() -> None:
    manifest = manifest_of([(p % 2, 3) for p in range(20)])
    parted, _ = validation_split(manifest, share=0.15, seed=5)
    assert parted.table.equals(hold_out(manifest, test_size=0.15, seed=5).table)


def test_too_few_patients_for_a_validation_split_are_refused() -> None:
    with pytest.raises(DataError, match="2 groups"):
        validation_split(manifest_of([(0, 3), (1, 3)]), share=0.15, seed=0)
