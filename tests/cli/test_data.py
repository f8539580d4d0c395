"""`data check`, `data phantom` and `data show` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from ensemble_kit.cli import app
from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.manifest.phantom.write import write_phantom


def ek(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)])


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(
        tmp_path_factory.mktemp("p") / "phantom", n_patients=24, images_per_patient=2, image_size=64
    )


def test_the_phantom_is_written_and_called_synthetic(tmp_path: Path) -> None:
    done = ek(
        "phantom",
        tmp_path / "p",
        "--patients",
        "12",
        "--images-per-patient",
        "1",
        "--image-size",
        "32",
    )
    assert done.exit_code == 0, done.output
    assert "synthetic" in done.output
    assert len(list((tmp_path / "p/IHC").rglob("*.png"))) == 12


def test_check_exits_with_0_for_clean_data_and_3_for_damaged_data(
    phantom: Path, tmp_path: Path
) -> None:
    assert ek("check", phantom, "--no-leak").exit_code == 0
    for i in range(4):
        folder = tmp_path / "d" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    (tmp_path / "d/a/half.png").write_bytes((tmp_path / "d/a/0.png").read_bytes()[:900])
    done = ek("check", tmp_path / "d")
    assert done.exit_code == 3
    assert "ERROR: 1 of 5 images" in done.output
    assert "a/half.png" in done.output


def test_check_prints_json_with_the_same_exit_code(phantom: Path) -> None:
    done = ek("check", phantom, "--stain", "he", "--json")
    printed = json.loads(done.output)
    assert printed["exit_code"] == done.exit_code == 0
    assert printed["n_images"] == 48
    assert printed["color_leak"]["by_image"] > printed["color_leak"]["by_group"]


def test_row_56_control_characters_in_names_are_not_printed(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    for name in ("1.png", "2.png"):
        Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "m" / name)
    (tmp_path / "m/manifest.csv").write_text("path,label\n1.png,a\x1b]0;pwned\x07\n2.png,b\n")
    assert "\x1b" not in ek("check", tmp_path / "m").output


def test_sheets_have_a_row_per_class_or_per_augmented_image(phantom: Path, tmp_path: Path) -> None:
    assert ek("show", phantom, tmp_path / "c.png", "--columns", "3", "--tile", "32").exit_code == 0
    assert Image.open(tmp_path / "c.png").size == (4 + 3 * 36, 4 + 4 * 52)
    more = ("--augment", "light", "--rows", "2", "--columns", "5", "--tile", "32")
    assert ek("show", phantom, tmp_path / "a.png", *more).exit_code == 0
    assert Image.open(tmp_path / "a.png").size == (4 + 5 * 36, 4 + 2 * 52)


def test_an_augmentation_of_the_settings_file_can_be_shown(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ensemble-kit.toml").write_text("[augmentation.mine]\nbrightness = 0.9\n")
    more = ("--rows", "2", "--columns", "3", "--tile", "32")
    sheets = []
    for name in ("none", "mine"):
        assert ek("show", phantom, tmp_path / "a.png", "--augment", name, *more).exit_code == 0
        sheets.append(Image.open(tmp_path / "a.png").tobytes())
    assert sheets[0] != sheets[1]


def test_six_channels_are_shown_as_two_pictures(phantom: Path, tmp_path: Path) -> None:
    words = ("--stain", "both", "--join", "channels", "--tile", "32", "--columns", "1")
    assert ek("show", phantom, tmp_path / "c.png", *words).exit_code == 0
    assert Image.open(tmp_path / "c.png").width == 4 + 68


def test_an_unknown_preset_is_refused_with_the_nearest_name(phantom: Path, tmp_path: Path) -> None:
    done = ek("show", phantom, tmp_path / "x.png", "--augment", "lihgt")
    assert isinstance(done.exception, EnsembleKitError)
    assert "Did you mean 'light'" in str(done.exception)
    assert done.exception.exit_code == 2


def test_check_with_a_data_flag_is_refused_with_the_correct_command(phantom: Path) -> None:
    done = ek("check", "--data", phantom, "--no-leak")
    assert isinstance(done.exception, EnsembleKitError)
    assert done.exception.exit_code == 2
    assert f"data check {phantom} --no-leak" in str(done.exception)


def test_check_of_clean_data_prints_the_training_command_with_the_same_options(
    phantom: Path,
) -> None:
    printed = ek("check", phantom, "--no-leak", "--stain", "he").output
    assert f"ensemble-kit train-members --data {phantom} --stain he --dry-run" in printed
