"""Replaces a folder atomically: the new one is written beside it, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from ensemble_kit.atomic_write import sync_folder, temporary_beside
from ensemble_kit.errors import disk_fault


@contextlib.contextmanager
def replaced_whole(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to write into, which replaces `folder` when the block ends.

    Readers of `folder` see the old files or the new ones, never a mixture. The old folder stays if
    the block raises an error.

    Raises
    ------
    EnvironmentFault
        The disk is full or read-only; the old folder is unchanged.
    """
    target = Path(folder)
    fresh = temporary_beside(target)
    try:
        try:
            fresh.mkdir(parents=True)
        except OSError as error:
            raise disk_fault(target, error) from error
        yield fresh
        _swap(fresh, target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _swap(fresh: Path, target: Path) -> None:
    old = temporary_beside(target)
    try:
        if target.exists():
            target.rename(old)
        try:
            fresh.rename(target)
        except OSError:
            old.rename(target)
            raise
        sync_folder(target.parent)
    except OSError as error:
        raise disk_fault(target, error) from error
    shutil.rmtree(old, ignore_errors=True)
