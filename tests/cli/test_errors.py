"""Messages and exit codes for invalid input; the exit codes are those of the README."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytestmark = pytest.mark.slow

CLI = Callable[..., tuple[int, str]]
TINY = ("--members", "tiny_cnn", "--image-size", 16, "--epochs", 1, "--no-pretrained", "--device", "cpu")  # fmt: skip


def train(cli: CLI, data: Path, *words: object, folds: int = 2) -> tuple[int, str]:
    return cli("train-members", "--data", data, *TINY, "--folds", folds, "--slots", 1, *words)


@pytest.fixture
def own(tmp_path: Path, paint: Callable[..., Path]) -> Path:
    """Slides that a test may damage: two classes, four patients each, two images per patient."""
    return paint(tmp_path / "own", n_patients=4, n_images=2)


def run_process(*words: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line in its own process."""
    return subprocess.run(
        [sys.executable, "-c", "from ensemble_kit.cli import main; main()", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


# -- usage: exit code 2 --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["frobnicate"], "'frobnicate'"),
        (["stack", "--frobnicate"], "No such option"),
        (["train-members", "--magnification", "forty"], "'forty'"),
        (["train-members", "--split-by", "slide"], "'slide' is not one of"),
        (["train-members", "--slots", "0"], "0 is not in the range"),
        (["tune", "--trials", "0"], "0 is not in the range"),
        (["train-members", "--device", "tpu-9", "--members", "tiny_cnn"], "'tpu-9'"),
        (["train-members", "--precision", "fp8"], "'fp8' is not one of"),
    ],
)
def test_unknown_commands_options_and_values_are_exit_2(
    cli: CLI, words: list[str], printed: str
) -> None:
    code, text = cli(*words)
    assert (code, printed in text) == (2, True), text


# -- bad data or settings: exit code 3 -----------------------------------------------------


def test_a_missing_folder_is_exit_3_and_named(cli: CLI, tmp_path: Path) -> None:
    code, printed = train(cli, tmp_path / "nowhere")
    assert code == 3
    assert f"error: '{tmp_path / 'nowhere'}'" in printed


def test_an_empty_class_folder_is_exit_3_and_named(cli: CLI, own: Path) -> None:
    (own / "uncertain").mkdir()
    code, printed = train(cli, own)
    assert code == 3
    assert "uncertain" in printed


def test_a_single_class_is_exit_3_with_its_count(
    cli: CLI, paint: Callable[..., Path], tmp_path: Path
) -> None:
    code, printed = train(cli, paint(tmp_path / "one", n_patients=3, classes=("benign",)))
    assert code == 3
    assert "benign" in printed
    assert "12" in printed


@pytest.mark.parametrize("damage", ["cut in half", "empty", "a web page"])
def test_an_unreadable_image_is_exit_3_and_named_by_its_path(
    cli: CLI, own: Path, damage: str
) -> None:
    image = own / "benign" / "P01_1.png"
    content = image.read_bytes()
    cuts = {
        "cut in half": content[: len(content) // 2],
        "empty": b"",
        "a web page": b"<html></html>",
    }
    image.write_bytes(cuts[damage])
    code, printed = train(cli, own)
    assert code == 3
    assert "benign/P01_1.png" in printed
    assert "P01_0.png" not in printed


def test_two_unreadable_images_are_both_named(cli: CLI, own: Path) -> None:
    for name in ("benign/P00_0.png", "malignant/P05_1.png"):
        (own / name).write_bytes(b"no image")
    code, printed = train(cli, own)
    assert code == 3
    assert "benign/P00_0.png" in printed
    assert "malignant/P05_1.png" in printed


def test_fewer_groups_than_folds_is_exit_3_with_the_largest_feasible_number(
    cli: CLI, tmp_path: Path
) -> None:
    lines = ["path,label,group,split"]
    for p, label in enumerate(("a", "b", "a", "b", "a", "b")):
        for i in range(2):
            name = f"{p}-{i}.png"
            Image.new("RGB", (16, 16), (40 * p, 0, 99 * i)).save(tmp_path / name)
            lines.append(f"{name},{label},patient{p},{'test' if p > 3 else 'train'}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(lines))
    code, printed = train(cli, table, folds=5)
    assert code == 3
    assert "5 folds" in printed
    assert "--folds 4" in printed
    # The advice is possible: with 4 folds there is no error about the number of folds.
    assert "4 folds need" not in train(cli, table, "--dry-run", folds=4)[1]


def test_a_missing_label_column_is_exit_3_with_the_columns_of_the_table(
    cli: CLI, tmp_path: Path
) -> None:
    (tmp_path / "table.csv").write_text("path,lable,group\na.png,x,p1\n")
    code, printed = train(cli, tmp_path / "table.csv")
    assert code == 3
    assert "path, lable, group" in printed
    assert "Did you mean 'lable'?" in printed


def test_an_unknown_key_in_the_settings_file_is_exit_3_and_names_the_nearest(
    cli: CLI, tmp_path: Path
) -> None:
    (tmp_path / "ensemble-kit.toml").write_text("[recipe]\nlerning_rate = 0.1\n")
    for command in ("train-members", "stack", "tune", "report"):
        code, printed = cli(command)
        assert code == 3
        assert "'recipe.lerning_rate' (in 'ensemble-kit.toml')" in printed
        assert "Did you mean 'learning_rate'?" in printed


@pytest.mark.parametrize("kind", ["pipe", "dangling link", "folder"])
def test_a_settings_file_that_is_not_a_regular_file_is_exit_3_and_named(
    cli: CLI, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "ensemble-kit.toml"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("nowhere.toml")
    for command in ("train-members", "stack"):
        code, printed = cli(command)
        assert (code, file.name in printed) == (3, True), printed


def test_a_pipe_given_as_a_table_is_exit_3_and_named(cli: CLI, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "table.csv")
    code, printed = cli("train-members", "--data", "table.csv")
    assert (code, "table.csv" in printed) == (3, True), printed


def test_an_unknown_network_is_exit_3_and_names_the_nearest(cli: CLI, own: Path) -> None:
    code, printed = cli("train-members", "--data", own, "--members", "resnet81", "--folds", 2)
    assert code == 3
    assert "'resnet81'" in printed
    assert "'resnet18'" in printed


def test_a_run_folder_made_from_other_data_is_exit_3_with_the_difference(
    cli: CLI, own: Path
) -> None:
    assert train(cli, own, "--run", "run")[0] == 0
    image = own / "benign" / "P00_0.png"
    Image.new("RGB", (16, 16), (1, 2, 3)).save(image)
    code, printed = train(cli, own, "--run", "run")
    assert code == 3
    assert "benign/P00_0.png" in printed


def test_a_run_folder_with_other_folds_is_exit_3(cli: CLI, own: Path) -> None:
    assert train(cli, own, "--run", "run")[0] == 0
    code, printed = train(cli, own, "--run", "run", folds=3)
    assert code == 3
    assert "'run'" in printed
    assert "2 folds" in printed


def test_other_settings_in_a_finished_run_are_exit_3_and_listed(cli: CLI, own: Path) -> None:
    assert train(cli, own, "--run", "run")[0] == 0
    code, printed = train(cli, own, "--run", "run", "--batch-size", 4)
    assert code == 3
    assert "recipe.batch_size: 32 -> 4" in printed
    assert "--retrain" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("command", ["stack", "report"])
def test_a_folder_without_a_run_is_exit_3_with_the_training_command(cli: CLI, command: str) -> None:
    code, printed = cli(command, "--run", "nowhere")
    assert code == 3
    assert "ensemble-kit train-members --data DATA --run nowhere" in printed
    code, printed = cli(command)
    assert code == 3
    assert "ensemble-kit train-members --data DATA" in printed


# -- the machine: exit code 4 --------------------------------------------------------------


def test_missing_weights_without_network_access_are_exit_4_with_two_solutions(
    own: Path, tmp_path: Path
) -> None:
    done = run_process(
        "train-members", "--data", own, "--members", "resnet18", "--image-size", 32, "--folds", 2,
        "--epochs", 1, "--slots", 1, "--device", "cpu",
        cwd=tmp_path, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hub"),
    )  # fmt: skip
    assert done.returncode == 4
    assert "resnet18" in done.stderr
    assert "--weights PATH" in done.stderr
    assert "--no-pretrained" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_initial_checkpoint_is_exit_4(cli: CLI, own: Path) -> None:
    code, printed = train(cli, own, "--weights", "nowhere.pt")
    assert code == 4
    assert "nowhere.pt" in printed


def test_a_missing_device_is_exit_4(cli: CLI, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed = train(cli, own, "--device", "cuda:77")
    assert code == 4
    assert "--device cpu" in printed


# -- locked: exit code 6; integrity: exit code 7 -------------------------------------------


def test_a_run_locked_by_another_process_is_exit_6_with_its_id(
    cli: CLI, own: Path, tmp_path: Path
) -> None:
    holder = textwrap.dedent("""
        import sys
        from ensemble_kit.run import Run
        with Run("run").locked():
            print("held", flush=True)
            sys.stdin.read()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", holder],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        code, printed = train(cli, own, "--run", "run")
        assert code == 6
        assert f"process {other.pid} on {os.uname().nodename}" in printed
        other.kill()
    # A killed process has no lock.
    assert train(cli, own, "--run", "run")[0] == 0


def test_one_flipped_bit_in_stored_logits_is_exit_7_and_named(
    cli: CLI, trained: Any, tmp_path: Path
) -> None:
    run = trained.copied_to(tmp_path / "run").run
    file = run.path / "predictions" / "tiny_cnn" / "oof.npy"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    code, printed = cli("stack", "--run", "run", "--method", "vote")
    assert code == 7
    assert "predictions/tiny_cnn/oof.npy'" in printed


def test_a_changed_manifest_in_the_run_folder_is_exit_7(
    cli: CLI, trained: Any, tmp_path: Path
) -> None:
    run = trained.copied_to(tmp_path / "run").run
    table = run.path / "manifest.csv"
    table.write_text(table.read_text().replace(",benign,", ",malignant,", 1))
    for command in ("stack", "report"):
        code, printed = cli(command, "--run", "run")
        assert code == 7
        assert "manifest.csv'" in printed


# -- output --------------------------------------------------------------------------------


def test_control_characters_in_names_are_not_printed(
    cli: CLI, own: Path, paint: Callable[..., Path]
) -> None:
    evil = "\x1b]0;owned\x07class"
    (own / "benign").rename(own / evil)
    _, printed = train(cli, own, "--dry-run")
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "owned" in printed


def test_expected_errors_have_no_traceback(cli: CLI, tmp_path: Path) -> None:
    for words in (
        ["train-members", "--data", "x"],
        ["stack"],
        ["report"],
        ["tune", "--member", "y"],
    ):
        code, printed = cli(*words)
        assert code in {2, 3}
        assert printed.count("error:") + printed.count("Error:") == 1
        assert "Traceback" not in printed
