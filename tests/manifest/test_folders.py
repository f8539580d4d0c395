"""Recognised roles of folders above and below the classes, and refused folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.manifest.layouts.class_folders import read_folders
from ensemble_kit.manifest.layouts.detect import read_manifest

Touch = Callable[..., Path]


def spread(*levels: str, n: int = 1) -> list[str]:
    """Paths of `n` images in every combination of the folders of each level: `a b`, `c d`, ..."""
    paths = [""]
    for level in levels:
        paths = [f"{above}{name}/" for above in paths for name in level.split()]
    return [f"{folder}{i}.png" for folder in paths for i in range(n)]


PATIENTS = "10253 10254 10255 10256 10257"


@pytest.mark.parametrize(
    ("paths", "classes", "layout"),
    [
        (spread("b m"), "b m", "class > image"),
        (spread("Train Val", "b m"), "b m", "Train/Val > class"),
        (spread("training_set test_set", "b m"), "b m", "training_set/test_set > class"),
        (spread("seg_train seg_test", "b m"), "b m", "seg_train/seg_test > class"),
        (spread("train test", "images", "b m"), "b m", "train/test > images > class"),
        (spread("b m", "train test"), "b m", "class > train/test > image"),
        (spread("10x 40X", "b m"), "b m", "magnification (10x, 40X) > class"),
        (spread("images masks", "b m"), "b m", "images > class"),
        (spread("b m", "images masks"), "b m", "class > 1 other folder"),
        (spread(PATIENTS, "0 1"), "0 1", "patient > class"),
        (spread("train test", "P01 P02 P03", "benign malignant"), "benign malignant",
         "train/test > patient > class"),
        (spread("ISUP_0 ISUP_1 ISUP_5"), "ISUP_0 ISUP_1 ISUP_5", "class > image"),
        (spread("0 1 2 3 4 5"), "0 1 2 3 4 5", "class > image"),
        (spread("0 1 2 3 4 5", "karolinska radboud"), "0 1 2 3 4 5", "class > 2 other folders"),
        (spread("benign malignant", PATIENTS), "benign malignant", "class > 5 other folders"),
        (spread("p16 p53 p63"), "p16 p53 p63", "class > image"),
        (spread("with_mask mask"), "mask with_mask", "class > image"),
    ],
)  # fmt: skip
def test_each_level_of_folders_is_recognised(
    touch: Touch, paths: list[str], classes: str, layout: str
) -> None:
    manifest = read_folders(touch(*paths), split_by="image")
    assert manifest.class_names == tuple(classes.split())
    assert manifest.layout.startswith(layout)


@pytest.mark.parametrize(
    ("paths", "named"),
    [
        (spread("fold_0 fold_1", "b m"), "fold_0"),
        (spread("b m", "fold_0 fold_1"), "fold_0"),
        (spread("fold1 test", "b m"), "fold1"),
        (spread("train test extra", "b m"), "extra"),
        (spread("b m test"), "test"),
        (spread("val test", "b m"), "val"),
        (spread("b m unlabeled"), "unlabeled"),
        (spread("b m masks"), "masks"),
        (spread("images b"), "images"),
        (spread("10x 40x"), "10x"),
        (spread("b m 40x"), "40x"),
        (spread("site_a site_b", "b m"), "site_a"),
        (spread("2019 2020", "b m"), "2019"),
        (spread("batch1 batch2"), "batch1"),
        (spread("aperio leica", "benign malignant"), "benign"),
        (spread("12345 67890", "he ihc"), "12345"),
        ([f"P{i:02d}/{i}.png" for i in range(12)], "P00"),
        (spread("chest_xray", "normal pneumonia"), "chest_xray"),
        (spread("train test", "train val", "b m"), "val"),
        (spread("Benign benign malignant"), "'Benign' and 'benign'"),
        (["a b/1.png", "a  b/2.png", "c/1.png"], "'a  b' and 'a b'"),
        (["caf\u00e9/1.png", "cafe\u0301/2.png", "c/1.png"], "caf"),
        ([*spread("train", "b m"), "val/B/1.png"], "'B' and 'b'"),
    ],
)
def test_folders_that_are_not_classes_are_refused_by_name(
    touch: Touch, paths: list[str], named: str
) -> None:
    with pytest.raises(DataError) as caught:
        read_folders(touch(*paths))
    assert named in str(caught.value)
    assert caught.value.exit_code == 3


def test_patients_above_the_classes_are_the_groups(touch: Touch) -> None:
    manifest = read_folders(touch(*spread(PATIENTS, "0 1", n=2)))
    assert sorted(set(manifest.groups)) == PATIENTS.split()
    assert manifest.group_kind == "patient"
    assert manifest.has_groups


def test_unlabelled_images_beside_the_split_are_skipped_with_a_note(touch: Touch) -> None:
    root = touch(*spread("train test", "b m"), "pred/1.png", "pred/2.png", "__MACOSX/train/b/x.png")
    manifest = read_folders(root)
    assert len(manifest) == 4
    assert any("2 images in 'pred'" in note for note in manifest.notes)


def test_a_copy_of_the_data_inside_itself_is_refused_with_its_path(touch: Touch) -> None:
    root = touch(*spread("train test", "b m"), *spread("xray", "train test", "b m"))
    with pytest.raises(DataError, match=r"--data \S+/xray"):
        read_folders(root)
    assert read_folders(root / "xray").class_names == ("b", "m")


def test_a_doubled_folder_is_one_level(touch: Touch) -> None:
    root = touch(*(f"seg_{s}/seg_{s}/{c}/1.png" for s in ("train", "test") for c in "bm"))
    assert read_folders(root).layout.startswith("seg_train/seg_test > class")


def test_masks_beside_images_are_skipped_with_a_note(touch: Touch) -> None:
    names = ("benign (1)", "benign (2)")
    root = touch(
        *(f"benign/{n}{end}.png" for n in names for end in ("", "_mask", "_mask_1")),
        "malignant/m.png",
        "malignant/lonely_mask.png",
    )
    manifest = read_manifest(root)
    assert len(manifest) == 4
    assert any("4 masks" in note and "_mask.png" in note for note in manifest.notes)


def test_a_label_pattern_chooses_the_level_of_the_classes(touch: Touch) -> None:
    root = touch(*spread("site_a site_b", "b m"))
    manifest = read_folders(root, label_pattern="^[^/]+/([^/]+)/", group_pattern="^([^/]+)/")
    assert manifest.class_names == ("b", "m")
    assert manifest.n_groups == 2
    parted = touch(*spread("train test", "x y", "b m"), root="parted")
    again = read_folders(parted, label_pattern="([^/]+)/[^/]+$")
    assert set(again.table["split"]) == {"train", "test"}
    with pytest.raises(DataError):
        read_folders(root, label_pattern="site_(a)/")


def test_numbers_that_differ_in_sign_are_different_classes(touch: Touch) -> None:
    assert read_folders(touch(*spread("-1 1"))).class_names == ("-1", "1")


def test_folders_named_like_patients_below_the_classes_have_a_note(touch: Touch) -> None:
    root = touch("b/P01/1.png", "b/P02/1.png", "m/P03/1.png")
    note = read_folders(root).notes[-1]
    pattern = note.split("--group-pattern '")[1].split("'")[0]
    assert read_folders(root, group_pattern=pattern).groups.tolist() == ["P01", "P02", "P03"]


# -- links ---------------------------------------------------------------------------------


def test_a_linked_class_folder_is_read(touch: Touch) -> None:
    root, elsewhere = touch(*spread("b m", n=2)), touch("1.png", "2.png", root="elsewhere")
    (root / "normal").symlink_to(elsewhere)
    assert read_manifest(root).table["label"].value_counts().to_dict() == {
        "b": 2,
        "m": 2,
        "normal": 2,
    }
    links = touch(root="links")
    for name in ("b", "m"):
        (links / name).symlink_to(root / name)
    assert len(read_manifest(links)) == 4


@pytest.mark.parametrize("name", ["normal", "b/3.png"])
def test_a_link_without_a_target_is_refused_by_name(touch: Touch, name: str) -> None:
    root = touch(*spread("b m"))
    (root / name).symlink_to(root / "nowhere-to-be-found")
    with pytest.raises(DataError, match=rf"{name}.*nowhere-to-be-found"):
        read_manifest(root)


def test_a_folder_that_is_reached_twice_is_refused_by_both_names(touch: Touch) -> None:
    root = touch(*spread("train test", "b m"))
    (root / "test/c").symlink_to(root / "train/b")
    with pytest.raises(DataError, match=r"test/c.*train/b|train/b.*test/c"):
        read_manifest(root)


# -- files that are not read ---------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".svs", ".ndpi", ".mrxs", ".dcm", ".nii.gz", ".heic", ".zip"])
def test_files_that_are_not_images_are_refused_with_their_kind(touch: Touch, suffix: str) -> None:
    with pytest.raises(DataError) as caught:
        read_manifest(touch(f"a/1{suffix}", f"b/2{suffix}"))
    assert f"2 '{suffix}' files (" in str(caught.value)


def test_a_class_of_whole_slides_is_refused_by_name(touch: Touch) -> None:
    with pytest.raises(DataError, match="'b' "):
        read_manifest(touch("a/1.png", "b/2.svs"))


def test_jfif_files_are_images_and_system_files_are_ignored(touch: Touch) -> None:
    root = touch(
        "a/1.jfif", "b/2.JFIF", "a/Thumbs.db", "b/@eaDir/2.jpg", ".ipynb_checkpoints/x.png"
    )
    manifest = read_manifest(root)
    assert manifest.table["path"].tolist() == ["a/1.jfif", "b/2.JFIF"]
    assert manifest.notes == (manifest.notes[-1],)
