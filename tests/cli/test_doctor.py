"""`ensemble-kit doctor`: installed versions, and exit code 4 for missing packages or disk space."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

CLI = Callable[..., tuple[int, str]]


def found(cli: CLI, *words: object) -> tuple[int, dict[str, dict[str, str]]]:
    code, printed = cli("doctor", *words, "--json")
    return code, {one["name"]: one for one in json.loads(printed)}


def test_installed_versions_are_printed_and_locks_work(cli: CLI, tmp_path: Path) -> None:
    code, checks = found(cli, "--run", tmp_path)
    assert code == 0
    assert checks["torch"]["found"] == importlib.metadata.version("torch")
    assert checks["run folder: file locks"]["found"] == "work"
    assert not [*tmp_path.iterdir()]


def test_a_missing_package_is_exit_4_and_named(
    cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["no-such-package>=1"])
    code, checks = found(cli, "--run", tmp_path)
    assert code == 4
    assert "no-such-package>=1" in checks["no-such-package"]["problem"]


def test_a_full_disk_is_exit_4(cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2**20))
    code, checks = found(cli, "--run", tmp_path / "not" / "yet")
    assert code == 4
    assert checks["run folder"]["problem"]
