"""Folders of empty files, for readers that do not open images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def touch(tmp_path: Path) -> Callable[..., Path]:
    """Make empty files under a folder of this test; returns the folder."""

    def make(*paths: str, root: str = "data") -> Path:
        top = tmp_path / root
        top.mkdir(exist_ok=True)
        for path in paths:
            (top / path).parent.mkdir(parents=True, exist_ok=True)
            (top / path).touch()
        return top

    return make
