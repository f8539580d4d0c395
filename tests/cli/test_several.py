"""Settings that are refused before training, the plan, and runs that continue after a stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble_kit.cli.commands.train_members import data_summary
from ensemble_kit.folds import make_folds
from ensemble_kit.manifest.table import Manifest

CLI = Callable[..., tuple[int, str]]


def words(data: Path, *flags: object) -> list[object]:
    return [
        "train-members", "--data", data, "--group-pattern", r"(P\d+)_", "--image-size", 16, "--epochs", 1,
        "--no-pretrained", "--device", "cpu", "--slots", 1, "--run", "run", *flags,
    ]  # fmt: skip


def splits_of(data: Path, *, folds: bool) -> Path:
    """Every fifth patient is in the test part, the others are in two folds by their number."""
    lines = ["sample_id,split" + ",fold" * folds]
    for path in sorted(p.relative_to(data).as_posix() for p in data.glob("*/*.png")):
        number = int(path.partition("/P")[2][:2])
        part = "test" if number % 5 == 4 else "train"
        lines.append(f"{path},{part}" + f",{number % 2 if part == 'train' else ''}" * folds)
    Path("splits.csv").write_text("\n".join(lines))
    return Path("splits.csv")


@pytest.mark.parametrize(
    ("flags", "printed"),
    [
        (("--protocol", "both"), "--protocol both"),
        (("--repeats", 2), "'splits.csv'"),
        (("--repeats", 2, "--protocol", "both"), "--repeats 2"),
    ],
)
def test_given_folds_are_not_trained_twice(
    cli: CLI, slides: Path, flags: tuple[object, ...], printed: str
) -> None:
    splits = splits_of(slides, folds=True)
    code, text = cli(*words(slides, "--members", "tiny_cnn", "--splits", splits, *flags))
    assert (code, printed in text) == (2, True), text
    assert sorted(p.name for p in Path().iterdir()) == ["splits.csv"]


def test_both_protocols_are_refused_without_groups(cli: CLI, slides: Path) -> None:
    code, text = cli(
        "train-members", "--data", slides, "--members", "tiny_cnn", "--protocol", "both", "--run", "run"
    )  # fmt: skip
    assert code == 2
    assert f"'{slides}'" in text
    assert "--protocol both" in text
    assert not Path("run-by-group").exists()


def test_random_folds_are_possible_with_a_given_test_part(cli: CLI, slides: Path) -> None:
    splits = splits_of(slides, folds=False)
    common = words(slides, "--members", "tiny_cnn", "--splits", splits, "--folds", 2, "--dry-run")
    code, text = cli(*common, "--protocol", "both")
    assert code == 0, text
    assert ("run-by-group" in text, "run-by-image" in text) == (True, True)
    code, text = cli(*common, "--repeats", 2)
    assert code == 0, text
    assert text.count("Plan: ") == 1
    assert "run-repeat-2" in text


def test_the_plan_counts_images_and_patients_of_each_class() -> None:
    rows = [(f"i{i}", f"i{i}.png", "ab"[i // 8], f"p{i // 2}") for i in range(14)]
    manifest = Manifest.from_records(rows, group_kind="patient")
    printed = data_summary(manifest, make_folds(manifest, 2)).splitlines()
    assert printed[1].split() == ["images", "(patients)", "a", "b", "all"]
    assert printed[2].split() == ["train", "8", "(4)", "6", "(3)", "14", "(7)"]


def test_given_folds_of_whole_patients_are_a_split_by_group(cli: CLI, slides: Path) -> None:
    flags = ("--splits", splits_of(slides, folds=True), "--split-by", "image", "--dry-run")
    code, text = cli(*words(slides, "--members", "tiny_cnn", *flags))
    assert code == 0, text
    assert "Split by group" in text
    assert "IMAGE" not in text


def test_a_repeated_member_is_refused_before_the_plan(cli: CLI, slides: Path) -> None:
    code, text = cli(*words(slides, "--members", "tiny_cnn,tiny_cnn:color=rgb", "--dry-run"))
    assert code == 2
    assert "tiny_cnn:name=other" in text
    assert "Plan:" not in text


@pytest.mark.parametrize("given", [False, True])
def test_a_run_stopped_at_a_bad_image_can_continue_without_it(
    cli: CLI, paint: Callable[..., Path], given: bool
) -> None:
    data = paint(Path("slides"), n_patients=5, n_images=2)
    (data / "benign" / "P01_1.png").write_bytes(b"no image")
    flags: tuple[object, ...] = ("--members", "tiny_cnn", "--folds", 2)
    if given:
        flags = (*flags, "--splits", splits_of(data, folds=True))
    code, text = cli(*words(data, *flags))
    assert code == 3, text
    assert "P01_1.png" in text
    code, text = cli(*words(data, *flags, "--on-bad-image", "skip"))
    assert code == 0, text
    assert "benign/P01_1.png" in text
    assert ("'splits.csv'" in text) == given


def test_the_plan_names_the_role_of_each_level_of_folders(
    cli: Callable[..., tuple[int, str]], tmp_path: Path, paint: Callable[..., Path]
) -> None:
    for part in ("train", "val"):
        paint(tmp_path / "data" / part, n_patients=3, n_images=1)
    of_data = ("train-members", "--data", tmp_path / "data", "--members", "tiny_cnn")
    plan = (*of_data, "--no-pretrained", "--image-size", 16, "--folds", 2, "--dry-run")
    code, text = cli(*plan)
    assert code == 0
    assert "train/val > class > image; patients: not known" in text
    assert "--group-pattern" in text
    assert "--test-part valid" in text
    code, text = cli(*plan, "--test-part", "valid")
    assert (code, "--test-part valid" in text) == (0, False)
    assert ["test", "3", "3", "6"] in [line.split() for line in text.splitlines()]


def test_the_plan_of_a_table_names_its_columns_and_images(
    cli: Callable[..., tuple[int, str]], tmp_path: Path, paint: Callable[..., Path]
) -> None:
    root = paint(tmp_path / "data", n_patients=9, n_images=1)
    images = sorted(p.relative_to(root) for p in root.rglob("*.png"))
    grades = [f"{path.name},{i % 3}" for i, path in enumerate(images)]
    (root / "train_labels.csv").write_text("\n".join(["id,label", *grades]))
    flags = ("--members", "tiny_cnn", "--no-pretrained", "--image-size", 16, "--folds", 2)
    plan = ("train-members", *flags, "--dry-run", "--data")
    code, text = cli(*plan, root / "train_labels.csv")
    assert code == 0, text
    for name in ("'id'", "'label'", str(images[0]), "--group-column", "--ordinal"):
        assert name in text
    code, text = cli(*plan, root / "train_labels.csv", "--ordinal")
    assert (code, "--ordinal" in text) == (0, False)
    (root / "train").mkdir()
    for path in images:
        (root / path).rename(root / "train" / path.name)
    code, text = cli(*plan, root)
    assert (code, "train_labels.csv" in text) == (3, True), text
