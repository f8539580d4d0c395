"""The record of a run, and its two tables: written once, then checked by digest."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ensemble_kit.checked import read_checked
from ensemble_kit.errors import (
    DataError,
    IntegrityError,
    command,
    counted,
    did_you_mean,
    first_few,
)
from ensemble_kit.files import read_csv
from ensemble_kit.folds import Folds
from ensemble_kit.manifest.table import Manifest

RECORD = "run.json"
SCHEMA_VERSION = 1
KEYS = {"manifest", "folds", "digests"}
RESTORE = "Restore it from a backup, or start a new run"
PACKAGES = ("ensemble-kit", "torch", "timm", "numpy", "pandas", "scikit-learn", "pillow")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that affect a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def new_record(manifest: Manifest, folds: Folds) -> dict[str, Any]:
    """The record of a new run with these data and folds."""
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
        },
        "manifest": manifest.about(),
        # The same folder as `manifest.root`, which may be relative to the current folder.
        "data_folder": str(manifest.root.resolve()),
        "folds": {
            "n_splits": folds.n_splits,
            "split_by": folds.split_by,
            "notes": list(folds.notes),
        },
        "digests": {"manifest": manifest.digest, "folds": folds.digest},
    }


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the run in `folder`.

    Raises
    ------
    DataError
        There is no record, or it has another layout version.
    IntegrityError
        The record is damaged or was changed.
    """
    path = folder / RECORD
    if not path.is_file():
        why = "" if folder.is_dir() else ": it does not exist"
        raise DataError(
            f"'{folder}' is not a run folder{why}",
            f"a run folder holds {RECORD}",
            _runs_nearby(folder),
        )
    record = read_checked(path, advice=RESTORE)
    if record.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"'{folder}' has the layout version {record.get('schema_version')}",
            f"this version of ensemble-kit reads version {SCHEMA_VERSION}",
            "Use the version of ensemble-kit that wrote it",
        )
    if lacking := KEYS - record.keys():
        raise IntegrityError(
            f"'{path}' lacks {first_few(sorted(lacking))}",
            "the record of a run must stay as it was written",
            RESTORE,
        )
    return record


def _runs_nearby(folder: Path) -> str:
    names = [path.parent.name for path in folder.parent.glob(f"*/{RECORD}")]
    training = command("train-members", "--data", "DATA", "--run", folder)
    if not names:
        return f"Train members first: {training}"
    near = did_you_mean(folder.name, names)
    return f"{near} (runs in '{folder.parent}'). To train a new run: {training}"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run.

    Its root is the given path. If that does not exist, it is the absolute path at the time of the run.

    Raises
    ------
    IntegrityError
        The manifest was changed.
    """
    record, path = read_record(folder), folder / "manifest.csv"
    about = record["manifest"]
    if not Path(about["root"]).exists():
        about = about | {"root": record.get("data_folder", about["root"])}
    with _unchanged(path):
        manifest = Manifest.read(path, **about)
    _same_digest(path, manifest.digest, record["digests"]["manifest"])
    return manifest


def read_folds(folder: Path) -> Folds:
    """The folds of a run.

    Raises
    ------
    IntegrityError
        The folds were changed.
    """
    record, path = read_record(folder), folder / "folds.csv"
    about = record["folds"]
    with _unchanged(path):
        table, notes = read_csv(path), tuple(about["notes"])
        folds = Folds.from_table(table, path, split_by=about["split_by"], notes=notes)
    _same_digest(path, folds.digest, record["digests"]["folds"])
    return folds


def refuse_other_data(folder: Path, manifest: Manifest, folds: Folds) -> None:
    """Refuse a run that was made from other data or other folds, or whose tables were changed.

    Raises
    ------
    DataError
        The data or folds differ from those of the run.
    IntegrityError
        Its tables were changed.
    """
    record, stored = read_record(folder), read_manifest(folder)
    if manifest.digest != stored.digest:
        raise DataError(
            f"'{folder}' was made from other data: {difference(stored, manifest)}",
            "a run folder belongs to one data set",
            "Use another --run folder, or restore the data",
        )
    if folds.digest != record["digests"]["folds"]:
        raise DataError(
            f"'{folder}' has {record['folds']['n_splits']} folds by {record['folds']['split_by']}, "
            f"which differ from the {folds.n_splits} folds by {folds.split_by} of this command",
            "the folds of a run cannot be changed",
            "Use another --run folder, or the same --folds, --seed and --split-by",
        )
    read_folds(folder)


def folds_as_made(folder: Path, folds: Folds, by: str) -> Folds:
    """Folds with `split_by=by` if the run in `folder` was made with it; else unchanged."""
    requested = dataclasses.replace(folds, split_by=by)
    made = (folder / RECORD).is_file() and read_record(folder)["digests"][
        "folds"
    ] == requested.digest
    return requested if made else folds


@contextlib.contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    # Tables are complete when they are written: an unreadable one was changed.
    try:
        yield
    except DataError as error:
        raise _changed(path, error.problem) from error


def _same_digest(path: Path, got: str, want: str) -> None:
    if got != want:
        raise _changed(path, f"digest {got[:12]}, recorded {want[:12]}")


def _changed(path: Path, how: str) -> IntegrityError:
    return IntegrityError(
        f"'{path}' was changed after the run was made ({how})",
        "the tables of a run must stay as they were written",
        RESTORE,
    )


def difference(old: Manifest, new: Manifest) -> str:
    """The first difference between two manifests, in words."""
    before, after = set(old.sample_ids.tolist()), set(new.sample_ids.tolist())
    gone, come = sorted(before - after), sorted(after - before)
    if gone or come:
        return (
            f"{counted(len(gone), 'image', 'is')} missing ({first_few(gone, 2)}) and {len(come)} {'is' if len(come) == 1 else 'are'} new "
            f"({first_few(come, 2)})"
        )
    old_table = old.table.set_index("sample_id")
    new_table = new.table.set_index("sample_id").loc[old_table.index]
    for column in ("label", "group", "split", "sha256"):
        if column in old_table and column in new_table:
            changed = old_table.index[(old_table[column] != new_table[column]).to_numpy()]
            if len(changed):
                what = "pixels (sha256)" if column == "sha256" else column
                return f"the {what} of {counted(len(changed), 'image')} changed ({first_few(changed, 2)})"
    return "its class names or columns changed"


def in_order(members: Iterable[str], requested: Sequence[str]) -> list[str]:
    """Members in the order of the requests, each followed by its extra checkpoints.

    Examples
    --------
    >>> in_order(["a", "a@ema", "a@snap10", "a@snap2", "b"], ["b", "a"])
    ['b', 'a', 'a@ema', 'a@snap2', 'a@snap10']
    """
    place = {name: i for i, name in enumerate(requested)}

    def key(name: str) -> tuple[int, str, int, str]:
        base, _, weights = name.partition("@")
        return place.get(base, len(requested)), base, len(weights), weights

    return sorted(members, key=key)
