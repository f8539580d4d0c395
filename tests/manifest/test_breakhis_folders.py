"""Folders that users put around BreakHis files: parts of a split, and classes of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.manifest.layouts.breakhis import read_breakhis
from ensemble_kit.manifest.layouts.detect import read_manifest

Touch = Callable[..., Path]


def name(patient: int, code: str = "B_A", k: int = 0) -> str:
    return f"SOB_{code}-14-{22000 + patient}AB-400-{k:03d}.png"


def code_of(patient: int) -> str:
    return ("B_A", "M_DC")[patient % 2]


def sorted_into(folder_of: Callable[[int], str], n: int = 6, k: int = 2) -> list[str]:
    return [f"{folder_of(p)}/{name(p, code_of(p), i)}" for p in range(n) for i in range(k)]


def kaggle(patient: int) -> str:
    return f"{'test' if patient > 3 else 'train'}/{('benign', 'malignant')[patient % 2]}"


def test_the_folders_of_a_split_are_used(touch: Touch) -> None:
    manifest = read_manifest(touch(*sorted_into(kaggle)))
    assert manifest.part("test").n_groups == 2
    assert sorted(set(manifest.part("test").groups)) == ["22004", "22005"]
    assert manifest.class_names == ("benign", "malignant")
    assert manifest.layout.startswith("train/test > class > image")


def test_validation_images_are_used_for_training(touch: Touch) -> None:
    root = touch(*sorted_into(lambda p: ("train", "train", "valid", "valid", "test", "test")[p]))
    manifest = read_manifest(root)
    assert manifest.table.groupby("part")["split"].first().to_dict() == {
        "train": "train", "valid": "train", "test": "test"
    }  # fmt: skip
    assert any("4 validation images" in note for note in manifest.notes)


def test_two_archives_side_by_side_are_parts(touch: Touch) -> None:
    inner = "histology_slides/breast/{}/SOB/x"
    root = touch(
        *sorted_into(
            lambda p: (
                f"{'test' if p > 3 else 'train'}/" + inner.format(("benign", "malignant")[p % 2])
            )
        )
    )
    assert len(read_manifest(root).part("test")) == 4


def test_patients_on_both_sides_are_refused_with_two_solutions(touch: Touch) -> None:
    root = touch("train/benign/" + name(1, k=1), "test/benign/" + name(1, k=2),
                 "train/malignant/" + name(2, "M_DC"))  # fmt: skip
    with pytest.raises(DataError, match=r"22001.*--test-part drawn.*--split-by image"):
        read_manifest(root)
    assert len(read_manifest(root, split_by="image").part("test")) == 1


def test_class_folders_of_a_user_are_the_classes(touch: Touch) -> None:
    root = touch(*sorted_into(lambda p: ("low", "mid", "high")[p // 2]))
    manifest = read_manifest(root)
    assert set(manifest.class_names) == {"low", "mid", "high"}
    assert manifest.n_groups == 6
    assert "--label-by binary" in manifest.layout
    assert read_manifest(root, label_by="binary").class_names == ("benign", "malignant")


def test_own_class_folders_below_a_split_are_read(touch: Touch) -> None:
    root = touch(*sorted_into(lambda p: f"{'test' if p > 3 else 'train'}/{'ab'[p // 2 % 2]}"))
    manifest = read_manifest(root)
    assert manifest.class_names == ("a", "b")
    assert len(manifest.part("test")) == 4


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        (("0", "1"), ("benign", "malignant")),
        (("Benign Tumours", "Malignant Tumours"), ("benign", "malignant")),
        (("adenosis", "ductal_carcinoma"), ("adenosis", "ductal_carcinoma")),
        (("Adenosis", "Ductal Carcinoma"), ("adenosis", "ductal_carcinoma")),
    ],
)
def test_folders_that_agree_with_the_file_names_give_their_classes(
    touch: Touch, folders: tuple[str, str], classes: tuple[str, str]
) -> None:
    assert read_manifest(touch(*sorted_into(lambda p: folders[p % 2]))).class_names == classes


@pytest.mark.parametrize("folder", ["22{:03d}", "slide-14-22{:03d}AB", "400X", "all"])
def test_folders_of_patients_and_magnifications_are_not_classes(touch: Touch, folder: str) -> None:
    manifest = read_manifest(touch(*sorted_into(lambda p: folder.format(p))))
    assert manifest.class_names == ("benign", "malignant")


@pytest.mark.parametrize(
    ("folder_of", "named"),
    [
        (lambda p: f"fold{p % 3}", "fold0"),
        (lambda p: f"fold{p % 3}/train/400X", "fold0"),
        (lambda p: ("train", "test", "extra")[p % 3], "extra"),
        (lambda p: f"{('orig', 'aug')[p // 2 % 2]}/{('benign', 'malignant')[p % 2]}", "aug"),
    ],
)
def test_ambiguous_folders_are_refused_by_name(
    touch: Touch, folder_of: Callable[[int], str], named: str
) -> None:
    with pytest.raises(DataError, match=named):
        read_manifest(touch(*sorted_into(folder_of)))


def test_label_by_chooses_between_two_levels(touch: Touch) -> None:
    root = touch(
        *sorted_into(lambda p: f"{('x', 'y')[p // 2 % 2]}/{('benign', 'malignant')[p % 2]}")
    )
    assert read_manifest(root, label_by="folder").class_names == ("x", "y")
    assert read_manifest(root, label_by="binary").class_names == ("benign", "malignant")


def test_images_without_a_breakhis_name_in_own_class_folders_are_refused(touch: Touch) -> None:
    root = touch(*sorted_into(lambda p: ("low", "mid", "high")[p // 2]), "low/mine.png")
    with pytest.raises(DataError, match=r"low/mine\.png"):
        read_manifest(root)


def test_labels_by_folder_need_class_folders(touch: Touch) -> None:
    root = touch(name(1), name(2, "M_DC"))
    assert read_manifest(root).class_names == ("benign", "malignant")
    with pytest.raises(DataError, match="folder"):
        read_manifest(root, label_by="folder")
    with pytest.raises(UsageError, match="'folders'"):
        read_breakhis(root, label_by="folders")
