"""Tables of splits and test groups from the user: used as given, and checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.folds import Folds, hold_out_groups, read_splits
from ensemble_kit.folds.user_splits import n_given_folds
from ensemble_kit.manifest.table import Manifest

# Six patients of two images, classes a and b in turn.
ROWS = [(f"i{p}{k}", f"i{p}{k}.png", "ab"[p % 2], f"p{p}") for p in range(6) for k in range(2)]
MANIFEST = Manifest.from_records(ROWS, group_kind="patient")
# Patients 0 and 1 test; 2 and 3 are fold 0, 4 and 5 fold 1.
SPLIT = {
    f"i{p}{k}": ("test", "") if p < 2 else ("train", str(p // 2 - 1))
    for p in range(6)
    for k in range(2)
}


def written(
    path: Path, rows: dict[str, tuple[str, str]], header: str = "sample_id,split,fold"
) -> Path:
    path.write_text("\n".join([header, *(f"{i},{s},{f}" for i, (s, f) in rows.items())]) + "\n")
    return path


def test_a_given_split_and_its_folds_are_used_in_any_order(tmp_path: Path) -> None:
    path = written(tmp_path / "splits.csv", dict(reversed(SPLIT.items())))
    manifest, folds = read_splits(path, MANIFEST)
    assert manifest.sample_ids.tolist() == MANIFEST.sample_ids.tolist()
    assert sorted(set(manifest.part("test").groups)) == ["p0", "p1"]
    assert folds is not None
    assert folds.of(manifest.part("train")).tolist() == [0] * 4 + [1] * 4


def test_without_a_fold_column_validation_rows_are_training_rows(
    tmp_path: Path,
) -> None:
    lines = [f"{i},{'val' if i.startswith('i5') else s}" for i, (s, _) in SPLIT.items()]
    path = tmp_path / "splits.csv"
    path.write_text("\n".join(["sample_id,split", *lines]))
    manifest, folds = read_splits(path, MANIFEST)
    assert folds is None
    assert len(manifest.part("train")) == 8


def test_row_29_a_given_split_with_a_patient_on_both_sides_is_refused_unless_by_image(
    tmp_path: Path,
) -> None:
    rows = SPLIT | {"i00": ("train", "0")}
    path = written(tmp_path / "splits.csv", rows)
    with pytest.raises(DataError, match="p0"):
        read_splits(path, MANIFEST)
    manifest, _ = read_splits(path, MANIFEST, by="image")
    assert manifest.split_by == "image"


def test_a_patient_in_two_given_folds_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "splits.csv", SPLIT | {"i20": ("train", "1")})
    with pytest.raises(DataError):
        read_splits(path, MANIFEST)


def test_a_given_fold_that_holds_all_of_a_class_is_refused(tmp_path: Path) -> None:
    swapped = SPLIT | {f"i{p}{k}": ("train", str(p % 2)) for p in range(2, 6) for k in range(2)}
    with pytest.raises(DataError, match="fold 0"):
        read_splits(written(tmp_path / "splits.csv", swapped), MANIFEST)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ({k: v for k, v in SPLIT.items() if k != "i51"}, "1 image has no row"),
        (SPLIT | {"i99": ("train", "0")}, "1 row names no image"),
        (
            SPLIT | {"i51": ("train", "x")},
            r"\(first: 'x' for 'i51'\)",
        ),
        (SPLIT | {"i51": ("train", "0.5")}, "first: '0.5' for 'i51'"),
        (SPLIT | {"i51": ("train", "")}, "first: '' for 'i51'"),
        (SPLIT | {"i51": ("tset", "")}, "'tset'"),
    ],
)
def test_a_table_that_does_not_fit_the_data_is_refused(
    tmp_path: Path, rows: dict, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        read_splits(written(tmp_path / "splits.csv", rows), MANIFEST)


def test_folds_written_as_floats_are_read(tmp_path: Path) -> None:
    floats = {i: (s, f and f"{f}.0") for i, (s, f) in SPLIT.items()}
    path = written(tmp_path / "splits.csv", floats)
    _, folds = read_splits(path, MANIFEST)
    _, plain = read_splits(written(tmp_path / "plain.csv", SPLIT), MANIFEST)
    assert folds is not None
    assert plain is not None
    assert folds.digest == plain.digest
    (tmp_path / "folds.csv").write_text("sample_id,fold\na,0.0\nb,1.0\n")
    assert Folds.read(tmp_path / "folds.csv").fold.tolist() == [0, 1]


def test_folds_numbered_from_1_are_renumbered_with_a_note(tmp_path: Path) -> None:
    from_1 = {i: (s, f and str(int(f) + 1)) for i, (s, f) in SPLIT.items()}
    _, folds = read_splits(written(tmp_path / "from_1.csv", from_1), MANIFEST)
    _, plain = read_splits(written(tmp_path / "from_0.csv", SPLIT), MANIFEST)
    assert folds is not None
    assert plain is not None
    assert folds.digest == plain.digest
    assert len(folds.notes) == 1
    assert plain.notes == ()
    for number in ("3", "-1"):
        with pytest.raises(DataError, match="gap"):
            read_splits(written(tmp_path / "gap.csv", SPLIT | {"i51": ("train", number)}), MANIFEST)


def test_a_table_of_splits_can_have_usual_variations(tmp_path: Path) -> None:
    rows = {f" {i}\u00a0": (s.title() + " ", f) for i, (s, f) in SPLIT.items()}
    path = written(tmp_path / "splits.csv", rows)
    path.write_text(path.read_text().replace(",", ";"), encoding="utf-8-sig")
    manifest, folds = read_splits(path, MANIFEST)
    assert sorted(set(manifest.part("test").groups)) == ["p0", "p1"]
    assert folds is not None
    paths = {i: s for i, (s, _) in SPLIT.items()}
    inside = Manifest.from_records([(i, f"a/{path}", *rest) for i, path, *rest in ROWS])
    lines = ["path,split", *(f"a\\{i}.png,{s}" for i, s in paths.items())]
    path.write_text("\n".join(lines))
    assert len(read_splits(path, inside)[0].part("test")) == 4


def test_given_folds_are_counted_on_training_rows(tmp_path: Path) -> None:
    rows = SPLIT | {"i00": ("test", "7")}
    assert n_given_folds(written(tmp_path / "folds.csv", rows)) == 2
    lines = [f"{i},{s}" for i, (s, _) in SPLIT.items()]
    (tmp_path / "splits.csv").write_text("\n".join(["sample_id,split", *lines]))
    assert n_given_folds(tmp_path / "splits.csv") is None


@pytest.mark.parametrize(
    ("changed_rows", "split_by"),
    [({}, "group"), ({"i20": ("train", "1")}, "image"), ({"i00": ("train", "0")}, "image")],
)
def test_given_folds_are_by_image_only_if_a_patient_is_split(
    tmp_path: Path, changed_rows: dict, split_by: str
) -> None:
    path = written(tmp_path / "splits.csv", SPLIT | changed_rows)
    manifest, folds = read_splits(path, MANIFEST, by="image")
    assert folds is not None
    assert (manifest.split_by, folds.split_by) == (split_by, split_by)


def test_rows_of_skipped_images_are_ignored_with_a_note(tmp_path: Path) -> None:
    path = written(tmp_path / "splits.csv", SPLIT)
    bad = MANIFEST.sample_ids == "i51"
    manifest, folds = read_splits(path, MANIFEST.take(~bad), left_out=MANIFEST.take(bad))
    assert len(manifest) == 11
    assert folds is not None
    assert folds.of(manifest.part("train")).tolist() == [0] * 4 + [1] * 3
    assert len(manifest.notes) == 1
    assert f"1 row of '{path}'" in manifest.notes[0]
    unknown = written(tmp_path / "unknown.csv", SPLIT | {"i99": ("train", "0")})
    with pytest.raises(DataError, match=r"1 row names no image \(i99\)"):
        read_splits(unknown, MANIFEST.take(~bad), left_out=MANIFEST.take(bad))


def test_named_test_groups_are_exactly_the_test_part() -> None:
    parted = hold_out_groups(MANIFEST, ["p4", "p5"])
    assert sorted(set(parted.part("test").groups)) == ["p4", "p5"]
    with pytest.raises(DataError, match="Did you mean 'p4'"):
        hold_out_groups(MANIFEST, ["p44"])
    with pytest.raises(DataError):
        hold_out_groups(MANIFEST, [f"p{i}" for i in range(6)])
