"""README and docs agree with the code: commands, options, Python, settings, links, exit codes.

`bash` blocks of docs/ are run. The commands of `sh` blocks are only parsed, because they need other
images, a cluster or much time.
"""

from __future__ import annotations

import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest

import ensemble_kit as ek
from ensemble_kit import errors
from ensemble_kit.cli import COMMANDS, app
from ensemble_kit.combiners import COMBINERS
from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.experiment import load_experiment
from ensemble_kit.files import read_toml
from ensemble_kit.members import recipe
from ensemble_kit.members.registry import GROUPS, NETWORKS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md"))
OTHERS = ["CONTRIBUTING.md", "checkpoints/README.md", "data/README.md"]
INSTALL = "python3 -m venv .venv && . .venv/bin/activate && pip install -e . && ensemble-kit demo"
TEST = "python3 -m venv .venv && . .venv/bin/activate && pip install -e '.[test]' && pytest -n 2 --dist loadfile"


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[str]:
    found = re.findall(r"^```(\w+)\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language in languages]


def lines(block: str) -> list[str]:
    """The commands of a block; a backslash at the end of a line continues it."""
    joined = block.replace("\\\n", " ").splitlines()
    return [line for line in joined if line.strip() and not line.startswith("#")]


def words(line: str) -> list[str] | None:
    """The arguments of ensemble-kit; None for another program."""
    first, *rest = shlex.split(line, comments=True)
    return rest if first == "ensemble-kit" else None


def parse(words: list[str]) -> None:
    """Parse the arguments as the command line does."""
    command: click.Command = app
    context = click.Context(app)
    while isinstance(command, click.Group):
        if command.invoke_without_command and words[:1] and words[0].startswith("-"):
            break  # a command that has subcommands too
        _, found, words = command.resolve_command(context, list(words))
        assert found is not None
        command = found
    command.make_context(command.name, list(words))


@pytest.fixture
def workspace(tmp_path: Path, trained: Any, slides: Path) -> Path:
    """A folder with the inputs of the pages: `data/slides`, `checkpoints/slides`, CSV predictions."""
    shutil.copytree(slides, tmp_path / "data" / "slides")
    trained.copied_to(tmp_path / "checkpoints" / "slides")
    rng = np.random.default_rng(0)
    n = 24
    ids, labels = [f"img{i:02d}" for i in range(n)], np.array(["benign", "malignant"])[np.arange(n) % 2]  # fmt: skip
    patients = [f"P{i // 2}" for i in range(n)]
    pd.DataFrame({"sample_id": ids, "label": labels, "patient": patients}).to_csv(tmp_path / "labels.csv", index=False)  # fmt: skip
    for name in ("unet", "vit"):
        malignant = np.clip(0.5 + 0.3 * (labels == "malignant") - 0.15 + rng.normal(0, 0.2, n), 0.01, 0.99)  # fmt: skip
        pd.DataFrame({"sample_id": ids, "benign": 1 - malignant, "malignant": malignant}).to_csv(tmp_path / f"{name}.csv", index=False)  # fmt: skip
    return tmp_path


def test_the_readme_has_the_install_and_test_commands() -> None:
    assert [b.strip() for b in blocks("README.md", "bash")] == [INSTALL, TEST]


def test_the_check_script_runs_the_test_command() -> None:
    assert TEST in (ROOT / ".ci" / "run").read_text().splitlines()


def test_the_readme_lists_all_commands() -> None:
    commands = [words(line) for b in blocks("README.md", "sh") for line in lines(b)]
    named = re.findall(r"`ensemble-kit ([a-z-]+)", read("README.md"))
    assert {*named, *(one[0] for one in commands if one)} == set(COMMANDS)
    assert {f"| `ensemble-kit {name}` |" in read("README.md") for name in COMMANDS} == {True}


def test_the_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= 150


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_every_command_in_a_block_can_be_parsed(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Files and folders of the examples do not have to exist.
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)
    for block in blocks(page, "bash", "sh"):
        for line in lines(block):
            if (arguments := words(line)) is not None:
                parse(arguments)


@pytest.mark.parametrize("page", ["README.md", *PAGES])
def test_every_option_in_the_text_exists(page: str) -> None:
    known = {"--help", "--version"}
    waiting: list[click.Command] = [app]
    while waiting:
        command = waiting.pop()
        known |= {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
        if isinstance(command, click.Group):
            names = command.list_commands(click.Context(command))
            waiting += [c for n in names if (c := command.get_command(click.Context(command), n))]
    text = re.sub(r"^```(?!sh|bash).*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    text = "\n".join(one for one in text.splitlines() if not re.search(r"\bp(ip|ytest)\b", one))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "bash", "python", "toml")])
def test_every_block_of_a_page_runs(
    page: str, workspace: Path, cli: Callable[..., tuple[int, str]]
) -> None:
    for block in blocks(page, "bash"):
        for line in lines(block):
            arguments = words(line)
            assert arguments is not None, line
            code, printed = cli(*arguments)
            assert code == 0, f"{line}\n{printed}"
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), {"__name__": "__page__"})
    for block in blocks(page, "toml"):
        file = workspace / "page.toml"
        file.write_text(block)
        load_experiment(file=file).resolved_members()


def test_the_python_block_of_the_readme_runs(tmp_path: Path, paint: Callable[..., Path]) -> None:
    (block,) = blocks("README.md", "python")
    paint(tmp_path / "data" / "slides")
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shape, comparison = done.stdout.splitlines()
    assert re.fullmatch(r"\(\d+, 2, 2\)", shape)
    assert "best member: balanced accuracy" in comparison
    assert (tmp_path / "checkpoints" / "slides" / "report" / "index.html").is_file()


def test_the_python_block_is_about_fifteen_lines() -> None:
    (block,) = blocks("README.md", "python")
    assert len([line for line in block.splitlines() if line.strip()]) <= 16


@pytest.mark.parametrize("page", ["README.md", *OTHERS, *PAGES])
def test_every_public_name_in_the_text_exists(page: str) -> None:
    assert set(re.findall(r"\bek\.([A-Za-z_]+)", read(page))) <= set(ek.__all__)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion_is_as_documented(
    shell: str, cli: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f"_ENSEMBLE_KIT_COMPLETE={shell}_source ensemble-kit" in read("docs/getting-started.md")
    monkeypatch.setenv("_ENSEMBLE_KIT_COMPLETE", f"{shell}_source")
    code, script = cli()
    assert code == 0
    assert f"_ENSEMBLE_KIT_COMPLETE={shell}_complete" in script


def test_the_settings_file_of_the_docs_is_as_described(tmp_path: Path) -> None:
    block = blocks("docs/members.md", "toml")[0]
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


def test_the_schema_of_the_settings_file_is_that_of_the_models() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "settings_schema.py"))
    assert json.loads(read("docs/settings.schema.json")) == json.loads(script["schema_text"]())


def test_the_tree_lists_the_package() -> None:
    tree = next(b for b in blocks("CONTRIBUTING.md", "text") if b.startswith("ensemble_kit/"))
    named = [line.split()[0] for line in tree.splitlines()[1:] if line.strip()]
    package = Path(ek.__file__).parent
    existing = {
        f"{p.name}/" if p.is_dir() else p.name
        for p in package.iterdir()
        if (p / "__init__.py").is_file() or (p.suffix == ".py" and p.stem != "__init__")
    }
    assert len(named) == len(set(named))
    assert set(named) == existing
    assert all(len(line.split()) >= 3 for line in tree.splitlines()[1:])


def test_the_exit_codes_are_those_of_the_errors() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type)]
    known = {k.exit_code: k.code for k in kinds if issubclass(k, EnsembleKitError)}
    text = read("docs/getting-started.md")
    rows = re.findall(r"^\| ([\d, ]+) \| (?:`([a-z-]+)` )?\|", text, re.MULTILINE)
    listed = {int(n): code for numbers, code in rows for n in numbers.split(",")}
    unnamed = {0: "", 130: "", 143: ""}
    assert listed == {n: code for n, code in known.items() if n != 1} | unnamed


def first_cells(page: str, heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    section = read(page).partition(f"\n## {heading}\n")[2].partition("\n##")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_tables_of_names_are_complete() -> None:
    networks = first_cells("docs/members.md", "Networks")
    assert set(GROUPS) <= networks <= {*NETWORKS, *GROUPS}
    assert first_cells("docs/reading-the-table.md", "Methods") == set(COMBINERS)
    presets = Path(recipe.__file__).with_name("recipes.toml")
    assert first_cells("docs/members.md", "Recipes") == set(read_toml(presets))


@pytest.mark.parametrize("page", ["README.md", *OTHERS, *PAGES])
def test_links_within_the_repository_exist(page: str) -> None:
    for link, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", read(page)):
        target = (ROOT / page).parent / link if link else ROOT / page
        assert target.exists(), link
        if anchor:
            heads = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in heads}  # fmt: skip


@pytest.mark.parametrize("page", ["README.md", "CHANGELOG.md", *OTHERS, *PAGES])
def test_documents_use_plain_signs(page: str) -> None:
    assert "—" not in read(page)
    assert not re.search(r"/(?:work|home|tmp)/", read(page))
