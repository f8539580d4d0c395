"""The readers of each layout, and their errors."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.manifest.folders.walk import list_images
from ensemble_kit.manifest.layouts.breakhis import read_breakhis
from ensemble_kit.manifest.layouts.breakhis_names import parse_magnifications
from ensemble_kit.manifest.layouts.class_folders import read_folders
from ensemble_kit.manifest.layouts.csv_table import read_csv_table
from ensemble_kit.manifest.layouts.detect import read_manifest


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


BREAKHIS = (
    "breast/benign/SOB/adenosis/SOB_B_A_14-22549AB/40X/SOB_B_A-14-22549AB-40-001.png",
    "breast/benign/SOB/adenosis/SOB_B_A_14-22549CD/100X/SOB_B_A-14-22549CD-100-002.png",
    "breast/benign/SOB/phyllodes_tumor/SOB_B_PT_14-21998AB/100X/SOB_B_PT-14-21998AB-100-001.png",
    "breast/malignant/SOB/lobular_carcinoma/SOB_M_LC_14-13412/100X/SOB_M_LC-14-13412-100-001.png",
    "breast/malignant/SOB/ductal_carcinoma/SOB_M_DC_14-13412/100X/SOB_M_DC-14-13412-100-009.png",
)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return touch(tmp_path, *(f"BreaKHis_v1/histology_slides/{p}" for p in BREAKHIS)) / "BreaKHis_v1"


# -- BreakHis ------------------------------------------------------------------------------


def test_slides_of_one_patient_number_are_one_patient(archive: Path) -> None:
    manifest = read_breakhis(archive)
    assert Counter(manifest.groups.tolist()) == {"22549": 2, "21998": 1, "13412": 2}
    assert manifest.group_kind == "patient"
    by_slide = read_breakhis(archive, group_by="slide")
    assert by_slide.n_groups == 4
    assert by_slide.group_kind == "slide"


def test_the_file_name_gives_subtype_and_magnification(archive: Path) -> None:
    row = read_breakhis(archive).table.set_index("sample_id").loc["SOB_M_LC-14-13412-100-001"]
    assert row[["label", "subtype", "magnification"]].tolist() == [
        "malignant",
        "lobular_carcinoma",
        "100",
    ]


def test_benign_is_class_0_and_subtypes_are_in_the_order_of_the_archive(archive: Path) -> None:
    assert read_breakhis(archive).class_names == ("benign", "malignant")
    assert read_breakhis(archive, label_by="subtype").class_names == (
        "adenosis",
        "phyllodes_tumor",
        "ductal_carcinoma",
        "lobular_carcinoma",
    )


@pytest.mark.parametrize("part", ["..", ".", "histology_slides", "histology_slides/breast"])
def test_the_archive_is_the_same_from_each_of_its_folders(archive: Path, part: str) -> None:
    assert read_manifest(archive / part).digest == read_breakhis(archive).digest


@pytest.mark.parametrize(
    ("requested", "n"), [(100, 4), ("100", 4), ("40X,100x", 5), ([40, 100], 5), (None, 5)]
)
def test_only_the_requested_magnifications_are_read(
    archive: Path, requested: object, n: int
) -> None:
    assert len(read_breakhis(archive, magnification=requested)) == n  # type: ignore[arg-type]


def test_a_missing_magnification_is_refused_with_the_existing_ones(archive: Path) -> None:
    with pytest.raises(DataError, match="1 at 40X, 4 at 100X"):
        read_breakhis(archive, magnification=400)
    with pytest.raises(UsageError, match="'50'"):
        parse_magnifications("50")


def test_a_copy_in_other_folders_is_read_by_its_names(tmp_path: Path) -> None:
    root = touch(tmp_path, *(f"copy/x/{Path(p).name}" for p in BREAKHIS))
    manifest = read_manifest(root)
    assert manifest.n_groups == 3
    assert set(manifest.table["split"]) == {"train"}


def test_files_without_a_breakhis_name_have_a_note(archive: Path) -> None:
    touch(archive / "histology_slides/breast/benign/SOB", "holiday.jpg")
    assert "holiday.jpg" in read_breakhis(archive).notes[0]


def test_the_real_archive_has_its_published_counts(real_data: Path) -> None:
    manifest = read_manifest(real_data, magnification=100)
    originals = manifest.table["path"].str.contains("SOB_B_F-14-25197-100")
    assert len(manifest) - 328 <= originals.sum() + 9
    slides = manifest.table["slide"]
    assert slides[manifest.table["patient"] == "22549"].nunique() == 3
    assert set(read_breakhis(real_data).table["magnification"]) == {"40", "100", "200", "400"}


# -- class folders -------------------------------------------------------------------------


def test_validation_images_are_used_for_training_with_a_note(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/a/1.png", "train/b/1.png", "valid/a/2.png", "test/b/2.jpg")
    manifest = read_folders(root)
    assert dict(zip(manifest.table["path"], manifest.table["split"], strict=True)) == {
        "train/a/1.png": "train",
        "train/b/1.png": "train",
        "valid/a/2.png": "train",
        "test/b/2.jpg": "test",
    }
    assert manifest.notes[0].startswith("1 validation image")


def test_classes_are_in_natural_order_and_her2_scores_are_ordinal(tmp_path: Path) -> None:
    scores = read_folders(touch(tmp_path / "s", "3+/a.png", "0/a.png", "2+/a.png", "1+/a.png"))
    assert scores.class_names == ("0", "1+", "2+", "3+")
    assert scores.ordinal
    plain = read_folders(touch(tmp_path / "p", "10/a.png", "9/a.png"))
    assert plain.class_names == ("9", "10")
    assert not plain.ordinal


def test_a_pattern_finds_the_patients(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/P1_x.png", "a/P2_x.png", "b/P2_y.png")
    manifest = read_folders(root, group_pattern=r"(P\d+)_")
    assert manifest.groups.tolist() == ["P1", "P2", "P2"]
    with pytest.raises(DataError, match="1 of 3"):
        read_folders(root, group_pattern="(P1|P2_x)")
    with pytest.raises(UsageError, match="'P'"):
        read_folders(root, group_pattern="P")


def test_row_33_an_empty_class_folder_is_an_error_with_counts(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/1.png")
    (root / "c").mkdir()
    with pytest.raises(DataError, match=r"\(a: 1, b: 1\)"):
        read_folders(root)


def test_row_33_a_single_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\['a'\]"):
        read_folders(touch(tmp_path, "a/1.png", "a/2.png"))


def test_row_33_a_misspelt_test_class_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    root = touch(tmp_path, "train/benign/1.png", "train/other/1.png", "test/bengin/1.png")
    with pytest.raises(DataError, match="Did you mean 'benign'"):
        read_folders(root)


def test_images_outside_class_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 3 .*loose\.png"):
        read_folders(touch(tmp_path, "a/1.png", "b/1.png", "loose.png"))
    with pytest.raises(DataError, match="2 images"):
        read_folders(touch(tmp_path / "flat", "1.png", "2.png"))


def test_row_25_pipes_links_and_other_files_are_skipped_with_a_note(tmp_path: Path) -> None:
    root = touch(tmp_path, "a/1.png", "b/2.png", "b/slide.svs", "b/.DS_Store", "b/x.abc")
    os.mkfifo(root / "a/pipe.png")
    (root / "a/loop").symlink_to(root)
    (root / "a/up").symlink_to(root.parent)
    paths, notes = list_images(root)
    assert paths == ["a/1.png", "b/2.png"]
    assert [note.split(" under")[0].split(" (")[0] for note in notes] == [
        "1 '.abc' file",
        "1 '.svs' file",
        "2 links back to a folder above",
        "1 pipe, socket or device",
    ]


def test_other_suffixes_of_the_same_formats_are_images(tmp_path: Path) -> None:
    names = ["1.jfif", "2.JFIF", "3.jpe", "4.dib", "5.pbm", "6.pnm"]
    for name in names:
        (tmp_path / name).touch()
    assert list_images(tmp_path) == (names, ())


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b]0;pwned\x07.png", os.fsdecode(b"a\xff.png")])
def test_row_26_names_that_cannot_be_stored_in_a_table_are_refused(
    tmp_path: Path, name: str
) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", f"a/{name}")
    with pytest.raises(DataError) as caught:
        read_folders(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ['q"uote.png', "co,mma.png", "\u202ertl.png", "n" * 250 + ".png", "#1.png", " .png"]
)
def test_row_26_unusual_names_are_read_and_written(tmp_path: Path, name: str) -> None:
    manifest = read_folders(touch(tmp_path / "d", "b/1.png", f"a/{name}"))
    manifest.write(tmp_path / "m.csv")
    back = type(manifest).read(tmp_path / "m.csv", **manifest.about())
    assert f"a/{name}" in back.table["path"].tolist()


# -- tables --------------------------------------------------------------------------------


def table(root: Path, text: str) -> Path:
    touch(root, "1.png", "2.png", "3.png")
    (root / "t.csv").write_text(text)
    return root / "t.csv"


def test_a_table_gives_labels_groups_and_splits(tmp_path: Path) -> None:
    path = table(
        tmp_path, "path,label,group,split\n1.png,x,p,valid\n2.png,y,q,train\n3.png,x,r,test\n"
    )
    manifest = read_csv_table(path)
    assert manifest.labels.tolist() == [0, 1, 0]
    assert manifest.groups.tolist() == ["p", "q", "r"]
    assert manifest.table["split"].tolist() == ["train", "train", "test"]


def test_other_column_names_are_recognised_or_given_by_option(tmp_path: Path) -> None:
    manifest = read_csv_table(table(tmp_path, "file,class,patient\n1.png,x,p\n2.png,y,q\n"))
    assert manifest.group_kind == "patient"
    path = table(tmp_path, "path,lable\n1.png,x\n2.png,y\n")
    with pytest.raises(DataError, match="Did you mean 'lable'"):
        read_csv_table(path)
    assert len(read_csv_table(path, label_column="lable")) == 2


def test_row_29_a_group_on_both_sides_is_refused(tmp_path: Path) -> None:
    path = table(
        tmp_path, "path,label,group,split\n1.png,x,p,train\n2.png,y,q,train\n3.png,x,p,test\n"
    )
    with pytest.raises(DataError, match="1 group "):
        read_csv_table(path)


def test_a_column_that_may_be_patients_is_named_if_none_is_known(tmp_path: Path) -> None:
    note, *_ = read_csv_table(table(tmp_path, "path,label,donor_nr\n1.png,x,1\n2.png,y,2\n")).notes
    assert "column donor_nr" in note
    assert "--group-column" in note


def test_row_30_an_empty_group_cell_is_refused_and_a_missing_column_has_a_caveat(
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match="1 of 2 images"):
        read_csv_table(table(tmp_path, "path,label,group\n1.png,x,p\n2.png,y,\n"))
    assert not read_csv_table(table(tmp_path, "path,label\n1.png,x\n2.png,y\n")).has_groups


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\n1.png,x\n9.png,y\n", "9.png"),
        ("path,label\n1.png,x\n2.png,\n", r"1 row \(line 3\)"),
        ("path,label\n1.png,x\n../2.png,y\n", r"'\.\./2\.png'"),
        ("path,label\n1.png,x\n/etc/passwd,y\n", "'/etc/passwd'"),
        ("path,label,split\n1.png,x,train\n2.png,y,tset\n", "'tset'"),
        ("path,label\n1.png,x\n1.png,y\n", r"first: 1\.png"),
    ],
)
def test_an_invalid_table_is_refused_with_the_value(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_csv_table(table(tmp_path, text))


def test_images_can_be_in_folders_of_their_label(real_data: Path) -> None:
    manifest = read_manifest(
        real_data / "bccd_cells", label_column="label", group_column="group_image"
    )
    assert (len(manifest), manifest.n_groups, manifest.class_names) == (
        1082,
        364,
        ("Platelets", "RBC", "WBC"),
    )


# -- recognition ---------------------------------------------------------------------------


def test_an_option_of_another_reader_is_refused_by_name(archive: Path, tmp_path: Path) -> None:
    assert len(read_manifest(archive, magnification=100)) == 4
    root = touch(tmp_path / "f", "a/1.png", "b/1.png")
    with pytest.raises(UsageError, match="--magnification"):
        read_manifest(root, magnification=100)


def test_an_unknown_layout_is_refused_with_its_content(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 \.txt"):
        read_manifest(touch(tmp_path, "a.txt", "b.txt"))
