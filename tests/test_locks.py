"""Locks on files: one holder, no link followed, no file changed, no file system without locks a riddle."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ensemble_kit import locks
from ensemble_kit.errors import EnvironmentFault, IntegrityError, RunLockedError
from ensemble_kit.locks import file_lock
from ensemble_kit.run import lock as hold


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    with file_lock(tmp_path / "lock") as works:
        assert works
        with pytest.raises(TimeoutError), file_lock(tmp_path / "lock", seconds=0):
            pass
    with file_lock(tmp_path / "lock", seconds=0):
        pass


def test_a_lock_leaves_the_content_of_its_file(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("kept")
    with file_lock(tmp_path / "lock"):
        pass
    assert (tmp_path / "lock").read_text() == "kept"


@pytest.mark.parametrize("name", [hold.LOCK, hold.HEARTBEAT])
@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_a_lock_or_heartbeat_file_that_is_no_plain_file_harms_nothing_and_hangs_nobody(
    tmp_path: Path, name: str, kind: str
) -> None:
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
def test_without_locks_the_heartbeat_file_alone_locks_a_folder(
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
    "claim", ["", "null", "{}", '{"pid": "x", "host": 1, "place": 1, "started": 1, "token": 1, "beat": 1}']
)  # fmt: skip
def test_a_heartbeat_file_that_names_no_process_locks_nothing(tmp_path: Path, claim: str) -> None:
    (tmp_path / hold.HEARTBEAT).write_text(claim)
    with hold.held(tmp_path):
        pass


def test_a_heartbeat_file_that_finds_no_room_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(EnvironmentFault, match=r"\.claim"), hold.held(tmp_path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == [hold.LOCK]
