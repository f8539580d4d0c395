"""A table of predictions that grows block by block and can be continued after a kill.

Until it is whole it is called `NAME.part`; a record beside it says how much of it counts. Knows
text and digests; predicts nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ensemble_kit.atomic_write import sync_folder
from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.errors import DataError, IntegrityError, RunLockedError, disk_fault, first_few
from ensemble_kit.locks import file_lock

# How every table of predictions begins: another file of that name is not replaced.
FIRST = b"image,"


class PredictionFile:
    """The table while it is written; made by `opened`.

    Parameters
    ----------
    n_done : int
        Images whose rows are in the file.
    """

    def __init__(self, target: Path, plan: Mapping[str, str], file: BinaryIO, n_done: int) -> None:
        self.target, self.n_done = target, n_done
        self._plan, self._file = dict(plan), file
        self._digest = hashlib.sha256()

    @property
    def part(self) -> Path:
        """The file that is written."""
        return part_of(self.target)

    def append(self, text: str, n_images: int) -> None:
        """Add the rows of `n_images` images; they count from now on.

        Raises
        ------
        EnvironmentFault
            The disk is full or read-only; what was written before still counts.
        """
        content = text.encode("utf-8")
        try:
            self._file.write(content)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise disk_fault(self.target, error, len(content)) from error
        self._digest.update(content)
        self.n_done += n_images
        about = {"plan": self._plan, "n_images": self.n_done, "n_bytes": self._file.tell()}
        write_checked(record_of(self.target), {**about, "sha256": self._digest.hexdigest()})

    def finish(self) -> None:
        """Give the whole table its name."""
        self._file.close()
        try:
            self.part.replace(self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            raise disk_fault(self.target, error) from error
        record_of(self.target).unlink(missing_ok=True)

    def resume(self, n_bytes: int, digest: str) -> None:
        """Drop what does not count, and check the rest.

        Raises
        ------
        IntegrityError
            The rows are not those that were written.
        """
        left = n_bytes
        while left and (some := self._file.read(min(left, 2**20))):
            self._digest.update(some)
            left -= len(some)
        if left or self._digest.hexdigest() != digest:
            raise IntegrityError(
                f"'{self.part}' was changed since it was written",
                "a prediction continues from the rows that it wrote",
                f"Delete '{self.part}', then run the same command: it starts from the beginning",
            )
        self._file.seek(n_bytes)
        self._file.truncate()


@contextlib.contextmanager
def opened(target: Path, plan: Mapping[str, str]) -> Iterator[PredictionFile]:
    """The table at `target`, continued where a run of the same plan was stopped.

    Parameters
    ----------
    target : path
    plan : mapping of what to digest
        Everything that decides the rows: images, run, method.

    Raises
    ------
    DataError
        A file that is no table of predictions stands there, or one of another plan was begun.
    RunLockedError
        Another process is writing it.
    IntegrityError
        The begun table was changed.
    """
    _refuse_other_file(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(part_of(target), seconds=0):
            yield from _locked(target, plan)
    except TimeoutError as error:
        raise RunLockedError(
            f"Another process writes '{target}'",
            f"'{part_of(target)}' is locked",
            "Wait for it, or name another --out",
        ) from error


def _locked(target: Path, plan: Mapping[str, str]) -> Iterator[PredictionFile]:
    begun = _begun(target, plan)
    try:
        file = part_of(target).open("r+b")
    except OSError as error:
        raise disk_fault(target, error) from error
    with file:
        table = PredictionFile(target, plan, file, begun["n_images"])
        table.resume(begun["n_bytes"], begun["sha256"])
        try:
            yield table
        finally:
            if not table.n_done:
                table.part.unlink(missing_ok=True)


def _begun(target: Path, plan: Mapping[str, str]) -> dict[str, Any]:
    record = record_of(target)
    if not record.is_file() or not part_of(target).stat().st_size:
        return {"n_images": 0, "n_bytes": 0, "sha256": hashlib.sha256().hexdigest()}
    begin_again = f"delete '{part_of(target)}' and '{record}'"
    about = read_checked(record, advice=f"To start from the beginning, {begin_again}")
    old = about["plan"]
    changed = [what for what in {**old, **plan} if old.get(what) != plan.get(what)]
    if changed:
        raise DataError(
            f"'{part_of(target)}' was begun with other {first_few(changed)}",
            f"{about['n_images']} images are predicted in it",
            f"Run the command as before, name another --out, or {begin_again}",
        )
    return about


def _refuse_other_file(target: Path) -> None:
    if target.is_dir():
        raise DataError(f"'{target}' is a folder", "predictions are one file", "Name a .csv file")
    if not target.is_file():
        return
    with target.open("rb") as file:
        if not file.read(len(FIRST)).startswith(FIRST):
            raise DataError(
                f"'{target}' exists and is no table of predictions",
                "it is not replaced",
                "Name another file with --out",
            )


def part_of(target: Path) -> Path:
    """Where a table stands until it is whole."""
    return target.with_name(target.name + ".part")


def record_of(target: Path) -> Path:
    """What says how much of a begun table counts."""
    return target.with_name(target.name + ".part.json")
