"""A table of predictions that is written block by block and can be continued after a kill.

The unfinished table is `NAME.part`. A record beside it stores the number and digest of its valid rows.
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

# The first bytes of every table of predictions. Other files are not replaced.
FIRST = b"image,"


class PredictionFile:
    """An unfinished table, from `opened`.

    Parameters
    ----------
    n_done : int
        Number of images in the file.
    """

    def __init__(self, target: Path, plan: Mapping[str, str], file: BinaryIO, n_done: int) -> None:
        self.target, self.n_done = target, n_done
        self._plan, self._file = dict(plan), file
        self._digest = hashlib.sha256()

    @property
    def part(self) -> Path:
        """The unfinished file."""
        return part_of(self.target)

    def append(self, text: str, n_images: int) -> None:
        """Add the rows of `n_images` images and record them as valid.

        Raises
        ------
        EnvironmentFault
            The disk is full or read-only. Earlier rows stay valid.
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
        """Rename the complete table to its final name."""
        self._file.close()
        try:
            self.part.replace(self.target)
            sync_folder(self.target.parent)
        except OSError as error:
            raise disk_fault(self.target, error) from error
        record_of(self.target).unlink(missing_ok=True)

    def resume(self, n_bytes: int, digest: str) -> None:
        """Check the valid rows, and delete everything after them.

        Raises
        ------
        IntegrityError
            The rows were changed.
        """
        left = n_bytes
        while left and (some := self._file.read(min(left, 2**20))):
            self._digest.update(some)
            left -= len(some)
        if left or self._digest.hexdigest() != digest:
            raise IntegrityError(
                f"'{self.part}' was changed since it was written",
                "an interrupted prediction continues only from unchanged rows",
                f"Delete '{self.part}', then run the same command: it starts from the beginning",
            )
        self._file.seek(n_bytes)
        self._file.truncate()


@contextlib.contextmanager
def opened(target: Path, plan: Mapping[str, str]) -> Iterator[PredictionFile]:
    """The table at `target`, continued if an earlier run with the same plan was interrupted.

    Parameters
    ----------
    target : path
    plan : mapping of str to digest
        Everything that the rows depend on: images, run, method.

    Raises
    ------
    DataError
        `target` is another kind of file, or was started with another plan.
    RunLockedError
        Another process is writing the table.
    IntegrityError
        The unfinished table was changed.
    """
    _refuse_other_file(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(part_of(target), seconds=0):
            yield from _locked(target, plan)
    except TimeoutError as error:
        raise RunLockedError(
            f"Another process is writing '{target}'",
            f"'{part_of(target)}' is locked",
            "Wait until it ends, or choose another --out",
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
            f"'{part_of(target)}' was started with other {first_few(changed)}",
            f"it has the predictions of {about['n_images']} images",
            f"Run the command as before, choose another --out, or {begin_again}",
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
                f"'{target}' exists and is not a table of predictions",
                "only tables of predictions are replaced",
                "Name another file with --out",
            )


def part_of(target: Path) -> Path:
    """The path of an unfinished table."""
    return target.with_name(target.name + ".part")


def record_of(target: Path) -> Path:
    """The record of the valid rows of an unfinished table."""
    return target.with_name(target.name + ".part.json")
