"""Locks on files: one holder, no link followed, no file changed, file systems without locks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ensemble_kit import locks
from ensemble_kit.errors import EnvironmentFault, IntegrityError, RunLockedError
from ensemble_kit.locks import file_lock
from ensemble_kit.run import lock as hold


def test_a_lock_is_refused_until_it_is_released(tmp_path: Path) -> None:
    with file_lock(tmp_path / "lock") as works:
        assert works
        with pytest.raises(TimeoutError), file_lock(tmp_path / "lock", seconds=0):
            pass
    with file_lock(tmp_path / "lock", seconds=0):
        pass


def test_a_lock_does_not_change_its_file(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("kept")
    with file_lock(tmp_path / "lock"):
        pass
    assert (tmp_path / "lock").read_text() == "kept"


@pytest.mark.parametrize("name", [hold.LOCK, hold.HEARTBEAT])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_a_lock_file_that_is_no_regular_file_is_safe(tmp_path: Path, name: str, kind: str) -> None:
    own, folder = tmp_path / "thesis.tex", tmp_path / "run"
    folder.mkdir()
    if kind == "link":
        own.write_text("my thesis")
    if kind == "pipe":
        os.mkfifo(folder / name)
    elif kind == "folder":
        (folder / name).mkdir()
    else:
        (folder / name).symlink_to(own)
    assert not hold.is_held(folder)
    if name == hold.LOCK:
        with pytest.raises(IntegrityError, match=r"\.lock"), hold.held(folder):
            pass
    else:
        with hold.held(folder):
            assert hold.read_holder(folder) is not None
    assert (own.read_text() if own.exists() else None) == ("my thesis" if kind == "link" else None)


@pytest.mark.parametrize("refused", sorted(locks.NO_LOCKS))
def test_without_file_locks_the_heartbeat_file_locks_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: int
) -> None:
    def lockless(*_: object) -> None:
        raise OSError(refused, os.strerror(refused))

    monkeypatch.setattr(locks.fcntl, "flock", lockless)
    assert not hold.locks_work(tmp_path)
    with hold.held(tmp_path):
        assert hold.is_held(tmp_path)
        with pytest.raises(RunLockedError, match=f"process {os.getpid()}"), hold.held(tmp_path):
            pass
    assert not hold.is_held(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [hold.LOCK]


@pytest.mark.parametrize(
    "content", ["", "null", "{}", '{"pid": "x", "host": 1, "place": 1, "started": 1, "token": 1, "beat": 1}']
)  # fmt: skip
def test_an_invalid_heartbeat_file_is_ignored(tmp_path: Path, content: str) -> None:
    (tmp_path / hold.HEARTBEAT).write_text(content)
    with hold.held(tmp_path):
        pass


def test_a_heartbeat_file_on_a_full_disk_is_an_environment_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EnvironmentFault, match=r"\.claim"), hold.held(tmp_path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == [hold.LOCK]
