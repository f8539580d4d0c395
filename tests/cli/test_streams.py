"""Standard output that is closed, full or not UTF-8: exit codes and complete results."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ensemble_kit.cli as cli_module
from ensemble_kit.cli import main
from ensemble_kit.cli.output import streams

# Prints a class name, and opens a file that must not become standard output.
COMMAND = (
    "import sys, click\nimport ensemble_kit.cli as cli\n"
    "def work(**_):\n"
    "    with open('result', 'w') as file:\n"
    "        click.echo('class \\u826f\\u6027 ' + sys.argv[-1]); click.echo('to stderr', err=True); file.write('whole')\n"
    "cli.app = work\ncli.main()\n"
)


def in_shell(
    folder: Path, redirection: str, **environment: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" 良性 {redirection}', sys.executable, COMMAND],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
    )


@pytest.mark.parametrize(
    ("redirection", "codes"),
    [(">&-", {0}), (">&- 2>&-", {0}), ("<&- >&- 2>&-", {0}), (">/dev/full", {4}), (">/dev/full 2>/dev/full", {4}), ("2>/dev/full", {4})],
)  # fmt: skip
def test_a_closed_or_full_output_gives_no_traceback(
    tmp_path: Path, redirection: str, codes: set[int]
) -> None:
    done = in_shell(tmp_path, redirection)
    assert done.returncode in codes, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert (tmp_path / "result").read_text() in {"whole", ""}
    if codes == {0}:
        assert (tmp_path / "result").read_text() == "whole"


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "cp1252"}, {"PYTHONIOENCODING": "latin-1"}, {"PYTHONIOENCODING": "ascii"}],
)  # fmt: skip
def test_a_name_that_the_terminal_cannot_print_is_escaped(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    done = in_shell(tmp_path, "", **environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "result").read_text() == "whole"


def test_arguments_are_read_as_utf8_with_an_ascii_locale(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = in_shell(tmp_path, "", **ascii_only)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == "class 良性 良性\n"


def test_output_is_escaped_in_this_process_too(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="cp1252"))
    monkeypatch.setattr(cli_module, "app", lambda **_: print("良性"))
    main()
    sys.stdout.flush()
    assert raw.getvalue() == b"\\u826f\\u6027\n"
    streams.flush()


def test_ctrl_c_inside_an_exec_of_a_library_is_exit_130(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(
        "import ensemble_kit.cli as cli\n"
        "def work(**_):\n"
        "    exec('raise KeyboardInterrupt')\n"
        "cli.app = work\ncli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "probe"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 130
