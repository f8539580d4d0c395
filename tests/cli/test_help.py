"""The help of every command, and that it loads quickly."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

import ensemble_kit.cli
from ensemble_kit.cli import COMMANDS, app

HEAVY = ("torch", "timm", "pandas", "sklearn", "numpy", "matplotlib", "optuna", "pydantic")
CLI = tuple[int, str]


def commands(group: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(group, click.Group):
        context = click.Context(group)
        for name in group.list_commands(context):
            inner = group.get_command(context, name)
            assert inner is not None, name
            yield from commands(inner, (*words, name))


EVERY = list(commands(app))


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_command_has_help(words: tuple[str, ...], cli: Callable[..., CLI]) -> None:
    code, printed = cli(*words, "--help")
    assert code == 0
    assert printed.startswith(" ".join(["Usage: ensemble-kit", *words]))
    # A sentence below the usage describes the command.
    assert re.search(r"^  [A-Z].*[a-z.]", printed, re.MULTILINE)


@pytest.mark.parametrize("words", EVERY, ids=" ".join)
def test_every_option_has_a_help_text_or_a_default(words: tuple[str, ...]) -> None:
    command: click.Command = app
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)  # type: ignore[assignment]
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help or option.show_default, f"{' '.join(words)} --{option.name}"


def test_help_loads_no_heavy_package() -> None:
    code = (
        "import sys\n"
        "from ensemble_kit.cli import main\n"
        "sys.argv = ['ensemble-kit', '--help']\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        f"print('loaded:', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_loads_neither_torch_nor_pandas(name: str) -> None:
    code = (
        "import sys\n"
        "from ensemble_kit.cli import main\n"
        f"sys.argv = ['ensemble-kit', {name!r}, '--help']\n"
        "try:\n    main()\nexcept SystemExit: pass\n"
        "print('loaded:', [m for m in ('torch', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


def test_the_list_of_commands_has_every_command_with_its_line(cli: Callable[..., CLI]) -> None:
    _, printed = cli("--help")
    listed = " ".join(printed.split("Commands:")[1].split())
    assert listed == " ".join(f"{name} {line}" for name, (_, _, line) in COMMANDS.items())


def test_every_command_file_is_a_command() -> None:
    folder = Path(ensemble_kit.cli.__file__).parent
    with_command = {
        f"commands.{p.stem}"
        for p in (folder / "commands").glob("*.py")
        if re.search(r"^@click\.(command|group)", p.read_text(), re.MULTILINE)
    }
    assert with_command == {module for module, _, _ in COMMANDS.values()}


def test_the_version_is_that_of_the_package(cli: Callable[..., CLI]) -> None:
    code, printed = cli("--version")
    assert (code, printed.strip()) == (0, f"ensemble-kit {ensemble_kit.__version__}")


def test_an_unknown_command_is_refused_with_the_nearest_name(cli: Callable[..., CLI]) -> None:
    code, printed = cli("train-member")
    assert code == 2
    assert "Did you mean 'train-members'?" in printed
