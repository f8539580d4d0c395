"""What the README says is so: its commands, its Python, its settings file, its tree, its codes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ensemble_kit as ek
from ensemble_kit import errors
from ensemble_kit.cli import COMMANDS
from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.experiment import load_experiment
from ensemble_kit.members.registry import GROUPS, NETWORKS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSTALL = "python3 -m venv .venv && . .venv/bin/activate && pip install -e . && ensemble-kit demo"
TEST = "python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[test]' && pytest -n 2 --dist loadfile"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_both_commands_stand_in_a_block_of_their_own() -> None:
    assert [b.strip() for b in blocks("bash")][:2] == [INSTALL, TEST]


def test_the_check_script_runs_the_test_command_word_for_word() -> None:
    assert TEST in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readme_tells_of_every_command_and_of_no_other() -> None:
    assert set(re.findall(r"ensemble-kit ([a-z-]+)", README)) == set(COMMANDS)


def test_every_option_in_the_bash_blocks_exists() -> None:
    lines = [line for b in blocks("bash") for line in b.splitlines()]
    checked = 0
    for line in lines:
        command = re.match(r"ensemble-kit ([a-z-]+)(.*)", line)
        if command:
            from ensemble_kit.cli import app

            options = {o for p in app.get_command(None, command[1]).params for o in p.opts}  # type: ignore[arg-type, union-attr]
            used = re.findall(r"--[a-z-]+", command[2])
            assert set(used) <= options
            checked += len(used)
    assert checked >= 5


def test_the_python_block_runs_as_it_stands(tmp_path: Path, paint: Callable[..., Path]) -> None:
    (block,) = blocks("python")
    paint(tmp_path / "data" / "slides")
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shape, verdict = done.stdout.splitlines()
    assert re.fullmatch(r"\(\d+, 2, 2\)", shape)
    assert "best-member: balanced accuracy" in verdict
    assert (tmp_path / "checkpoints" / "slides" / "report" / "index.html").is_file()


def test_the_python_block_is_about_fifteen_lines() -> None:
    (block,) = blocks("python")
    assert len([line for line in block.splitlines() if line.strip()]) <= 16


def test_every_public_name_in_the_readme_exists() -> None:
    names = set(re.findall(r"\bek\.([A-Za-z_]+)", README))
    assert len(names) > 8
    assert names <= set(ek.__all__)


def test_the_settings_file_loads_and_means_what_its_comments_say(tmp_path: Path) -> None:
    (block,) = blocks("toml")
    file = tmp_path / "ensemble-kit.toml"
    file.write_text(block)
    experiment = load_experiment(file=file)
    members = {m.name: m for m in experiment.resolved_members()}
    assert list(members) == ["resnet18", *GROUPS["efficientnetv1"], "small-input"]
    assert members["resnet18"].recipe.select_on == "inner"
    assert members["resnet18"].recipe.learning_rate == 5e-4
    small = members["small-input"]
    assert (small.network, small.image_size) == ("densenet121", 128)
    assert small.recipe.learning_rate == 1e-3
    assert small.recipe.patience == 5
    assert experiment.data.magnification == (100,)


def test_the_tree_is_what_lies_on_the_disk() -> None:
    tree = next(b for b in blocks("text") if b.startswith("ensemble_kit/"))
    named = [line.split()[0] for line in tree.splitlines()[1:] if line.strip()]
    package = Path(ek.__file__).parent
    there = {
        f"{p.name}/" if p.is_dir() else p.name
        for p in package.iterdir()
        if (p / "__init__.py").is_file() or (p.suffix == ".py" and p.stem != "__init__")
    }
    assert len(named) == len(set(named))
    assert set(named) == there


def test_every_line_of_the_tree_says_a_job() -> None:
    tree = next(b for b in blocks("text") if b.startswith("ensemble_kit/"))
    for line in tree.splitlines()[1:]:
        assert len(line.split()) >= 3, line


def test_the_exit_codes_are_those_of_the_errors() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type)]
    codes = {k.exit_code for k in kinds if issubclass(k, EnsembleKitError)} - {1}
    said = {int(n) for row in re.findall(r"^\| ([\d, ]+) \|", README, re.MULTILINE)
            for n in row.split(",")}  # fmt: skip
    assert said == codes | {0, 130, 143}


def test_every_network_and_group_that_it_names_is_in_the_catalogue() -> None:
    paragraph = next(p for p in README.split("\n\n") if p.startswith("Networks are"))
    networks, groups = paragraph.split(";")[:2]
    named = re.findall(r"`([a-z0-9_]+)`", networks)
    assert len(named) >= 6
    for name in named:
        assert name in NETWORKS or name in {"b3", "b4"}, name
    assert set(re.findall(r"`([a-z0-9]+)`", groups)) <= set(GROUPS)


def test_every_link_within_the_repository_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_documents_use_plain_signs(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "—" not in text
    assert not re.search(r"/(?:work|home|tmp)/", text)
