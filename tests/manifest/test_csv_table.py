"""Tables of images: ids, spellings, missing images, unknown patients."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.manifest.layouts.csv_table import read_csv_table
from ensemble_kit.manifest.layouts.detect import read_manifest


def touch(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()
    return root


def table(root: Path, text: str, name: str = "t.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
    return root / name


IDS = "id,label\na0,0\na1,1\n"


# -- paths of images -----------------------------------------------------------------------


@pytest.mark.parametrize("column", ["id", "image_id", "id_code", "isic_id", "Image ID", "FileName"])
def test_ids_without_folder_and_extension_find_their_image(tmp_path: Path, column: str) -> None:
    touch(tmp_path, "train/a0.tif", "train/a1.tif", "test/b7.tif")
    manifest = read_csv_table(table(tmp_path, IDS.replace("id", column, 1)))
    assert manifest.table["path"].tolist() == ["train/a0.tif", "train/a1.tif"]
    assert manifest.class_names == ("0", "1")


def test_an_ambiguous_name_is_refused_unless_folder_or_suffix_is_given(tmp_path: Path) -> None:
    touch(tmp_path, "images/a0.jpg", "images/a1.jpg", "masks/a0.png", "masks/a1.png")
    path = table(tmp_path, IDS)
    with pytest.raises(DataError, match=r"'a0'.*'images/a0\.jpg', 'masks/a0\.png'"):
        read_csv_table(path)
    by_folder = read_csv_table(path, image_root=tmp_path / "images")
    assert by_folder.table["path"].tolist() == ["a0.jpg", "a1.jpg"]
    assert by_folder.root == tmp_path / "images"
    for suffix in (".jpg", "jpg"):
        by_suffix = read_csv_table(path, image_suffix=suffix)
        assert by_suffix.table["path"].tolist() == ["images/a0.jpg", "images/a1.jpg"]


def test_a_dot_in_an_id_does_not_begin_an_extension(tmp_path: Path) -> None:
    touch(tmp_path, "x/s.1.png", "x/s.2.png")
    manifest = read_csv_table(table(tmp_path, "id,label\ns.1,a\ns.2,b\n"))
    assert manifest.table["path"].tolist() == ["x/s.1.png", "x/s.2.png"]


def test_images_that_are_missing_are_counted_and_the_flags_are_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/a0.tif")
    with pytest.raises(DataError, match=r"^1 of 2 images .*first: a1.*--image-root"):
        read_csv_table(table(tmp_path, IDS))
    with pytest.raises(DataError, match="nowhere"):
        read_csv_table(table(tmp_path, IDS), image_root=tmp_path / "nowhere")


def test_a_missing_column_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--label-column"):
        read_csv_table(table(touch(tmp_path, "a.png"), "path,stage\na.png,1\n"))


def test_leading_zeros_and_windows_paths_are_read(tmp_path: Path) -> None:
    touch(tmp_path, "sub/001.png", "sub/1.png")
    manifest = read_csv_table(
        table(tmp_path, "\ufeffpath,label,patient\nsub\\001.png,a,007\nsub\\1.png,b,7x\n")
    )
    assert manifest.table["path"].tolist() == ["sub/001.png", "sub/1.png"]
    assert manifest.groups.tolist() == ["007", "7x"]


# -- images that the table does not name ---------------------------------------------------


def test_images_that_a_table_does_not_name_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{i}.png" for c in "abc" for i in range(3)))
    path = table(tmp_path, "path,label\na/0.png,x\nb/0.png,y\nb/1.png,y\n", "labels.csv")
    (beside,) = [n for n in read_csv_table(path).notes if "labels.csv" in n]
    assert beside.startswith("3 images")
    whole = [n for n in read_manifest(tmp_path).notes if "labels.csv" in n]
    assert [n.split()[0] for n in whole] == ["3", "3"]
    assert "'c'" in whole[1]


def test_a_table_that_names_every_image_has_no_note(tmp_path: Path) -> None:
    touch(tmp_path, "a/0.png", "b/0.png")
    path = table(tmp_path, "path,label,patient\na/0.png,a,p\nb/0.png,b,q\n", "labels.csv")
    assert read_manifest(path.parent).notes == ()


def test_labels_that_contradict_class_folders_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a/0.png", "a/1.png", "b/0.png")
    manifest = read_csv_table(
        table(tmp_path, "path,label,patient\na/0.png,a,p\na/1.png,b,q\nb/0.png,b,r\n")
    )
    (note,) = manifest.notes
    assert note.startswith("1 of 3 images")
    assert "'a/1.png'" in note
    assert "'b'" in note


def test_folders_of_patients_do_not_contradict_labels(tmp_path: Path) -> None:
    touch(tmp_path, "0/0.png", "1/0.png", "2/0.png")
    rows = "path,label,patient\n0/0.png,1,0\n1/0.png,0,1\n2/0.png,1,2\n"
    assert read_csv_table(table(tmp_path, rows)).notes == ()


# -- groups and labels ---------------------------------------------------------------------


def test_white_space_in_patient_names_is_ignored(tmp_path: Path) -> None:
    touch(tmp_path, "0.png", "1.png", "2.png")
    rows = "path,label,patient\n0.png,a,P1\n1.png,b,P1 \n2.png,b,P2\u200b\n"
    manifest = read_csv_table(table(tmp_path, rows))
    assert manifest.groups.tolist() == ["P1", "P1", "P2"]
    assert any("'patient'" in note for note in manifest.notes)
    both = "path,label,patient,split\n0.png,a,P1,train\n1.png,b,P1 ,test\n2.png,b,P2,train\n"
    with pytest.raises(DataError, match="P1"):
        read_csv_table(table(tmp_path, both))


@pytest.mark.parametrize(
    "cell", ["", "NA", "n/a", "<NA>", "#N/A", "nan", "None", "-", "?", "Unknown"]
)
def test_images_of_unknown_patients_are_refused_with_their_count(tmp_path: Path, cell: str) -> None:
    touch(tmp_path, "0.png", "1.png", "2.png")
    rows = f"path,label,patient\n0.png,a,P1\n1.png,b,{cell}\n2.png,b,{cell}\n"
    with pytest.raises(DataError, match="2 of 3") as caught:
        read_csv_table(table(tmp_path, rows))
    assert "1.png" in str(caught.value)


def test_classes_can_be_named_na_or_none(tmp_path: Path) -> None:
    touch(tmp_path, "0.png", "1.png")
    manifest = read_csv_table(table(tmp_path, "path,label,patient\n0.png,NA,p\n1.png,None,q\n"))
    assert manifest.class_names == ("NA", "None")


def test_a_second_column_of_labels_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "0.png", "1.png")
    path = table(tmp_path, "path,label,diagnosis,patient\n0.png,a,x,p\n1.png,b,y,q\n")
    (note,) = read_csv_table(path).notes
    assert "'diagnosis'" in note
    assert read_csv_table(path, label_column="diagnosis").notes == ()
    assert read_csv_table(path, label_column="diagnosis").class_names == ("x", "y")


def test_parts_of_a_split_are_named_in_any_spelling(tmp_path: Path) -> None:
    names = ("Train", "VAL", "Valid ", "validation", "TEST", "training")
    touch(tmp_path, *(f"{i}.png" for i in range(6)))
    rows = [f"{i}.png,{'ab'[i % 2]},p{i},{name}" for i, name in enumerate(names)]
    manifest = read_csv_table(table(tmp_path, "\n".join(["path,label,patient,split", *rows])))
    assert manifest.table["split"].tolist() == ["train"] * 4 + ["test", "train"]
    assert manifest.notes[0].startswith("3 validation images")


@pytest.mark.parametrize("other", ["Benign", "benign.", "be\u00adnign", "\uff42enign"])
def test_classes_that_differ_in_their_spelling_only_are_refused(tmp_path: Path, other: str) -> None:
    touch(tmp_path, "0.png", "1.png")
    with pytest.raises(DataError, match="benign"):
        read_csv_table(table(tmp_path, f"path,label\n0.png,benign\n1.png,{other}\n"))
