"""Which errors become an `EnvironmentFault` (exit code 4), and what it names."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from ensemble_kit.errors import DISK_FAULTS, EnvironmentFault
from ensemble_kit.faults import as_machine_fault, machine_fault
from ensemble_kit.files import cache_folder


@pytest.mark.parametrize("number", sorted(DISK_FAULTS))
@pytest.mark.parametrize("named", [True, False])
def test_a_disk_error_is_an_environment_fault(tmp_path: Path, number: int, named: bool) -> None:
    target = tmp_path / "state"
    error = OSError(number, os.strerror(number), *([str(target)] if named else []))
    fault = machine_fault(error)
    assert fault is not None
    assert DISK_FAULTS[number][0] in str(fault)
    assert (str(target) in str(fault)) is named


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, os.strerror(errno.EMFILE), "x"),
        ImportError(f"libx.so: cannot open shared object file: {os.strerror(errno.EMFILE)}"),
        BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),
        RuntimeError("can't start new thread"),
        ImportError("libtorch.so: failed to map segment from shared object"),
        MemoryError(),
    ],
)
def test_a_limit_of_the_machine_is_an_environment_fault(error: Exception) -> None:
    fault = machine_fault(error)
    assert isinstance(fault, EnvironmentFault)
    assert fault.exit_code == 4


def test_other_errors_are_no_environment_faults() -> None:
    for error in (KeyError("x"), RuntimeError("shapes"), FileNotFoundError(2, "no", "x"), ImportError("x")):  # fmt: skip
        assert machine_fault(error) is None


def test_a_database_without_room_is_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    database = sqlite3.connect(path)
    database.execute("create table numbers (x)")
    database.execute("pragma max_page_count = 3")

    def fill() -> None:
        with as_machine_fault(path):
            try:
                database.execute("insert into numbers values (zeroblob(100000))")
            except sqlite3.OperationalError as error:
                raise RuntimeError("an error of a library") from error

    with pytest.raises(EnvironmentFault, match=r"study\.db.*the disk is full"):
        fill()
    database.close()


def test_without_a_home_the_error_names_the_variable_of_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def homeless(cls: type[Path]) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("ENSEMBLE_KIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", classmethod(homeless))
    with pytest.raises(EnvironmentFault, match="ENSEMBLE_KIT_CACHE"):
        cache_folder()
