"""A run's record, and the two tables that it vouches for: written once, refused where they differ.

Knows nothing else that lies in the run folder.
"""

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
from ensemble_kit.errors import DataError, IntegrityError, command, first_few
from ensemble_kit.files import read_csv
from ensemble_kit.folds import Folds
from ensemble_kit.manifest.table import Manifest

RECORD = "run.json"
SCHEMA_VERSION = 1
KEYS = {"manifest", "folds", "digests"}
RESTORE = "Restore it from a backup, or start a new run"
PACKAGES = ("ensemble-kit", "torch", "timm", "numpy", "pandas", "scikit-learn", "pillow")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def new_record(manifest: Manifest, folds: Folds) -> dict[str, Any]:
    """What a run of these data and folds, begun here and now, says of itself."""
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
        # The same folder as `manifest.root`, which may be relative to where the command ran.
        "data_folder": str(manifest.root.resolve()),
        "folds": {
            "n_splits": folds.n_splits,
            "split_by": folds.split_by,
            "notes": list(folds.notes),
        },
        "digests": {"manifest": manifest.digest, "folds": folds.digest},
    }


def read_record(folder: Path) -> dict[str, Any]:
    """The record of the run in `folder`; refused where there is none, or one of another layout.

    Raises
    ------
    DataError
        There is none, or it is of another layout.
    IntegrityError
        It is damaged, or was changed since it was written.
    """
    path = folder / RECORD
    if not path.is_file():
        missing = "it has no run.json" if folder.is_dir() else "this folder does not exist"
        raise DataError(
            f"'{folder}' is no run folder",
            missing,
            f"Train members first: {command('train-members', '--run', folder)}",
        )
    record = read_checked(path, advice=RESTORE)
    if record.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"This version reads run folders of layout {SCHEMA_VERSION}",
            f"'{folder}' says {record.get('schema_version')}",
            "Use the version of ensemble-kit that wrote it",
        )
    if lacking := KEYS - record.keys():
        raise IntegrityError(
            f"'{path}' lacks {first_few(sorted(lacking))}",
            "a run's record must be what was written",
            RESTORE,
        )
    return record


def read_manifest(folder: Path) -> Manifest:
    """The manifest that a run was made of.

    Its root is as it was given, or where that was when the run was made if nothing is there now.

    Raises
    ------
    IntegrityError
        It was changed since.
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
    """The folds that a run was made of.

    Raises
    ------
    IntegrityError
        They were changed since.
    """
    record, path = read_record(folder), folder / "folds.csv"
    about = record["folds"]
    with _unchanged(path):
        table, notes = read_csv(path), tuple(about["notes"])
        folds = Folds.from_table(table, path, split_by=about["split_by"], notes=notes)
    _same_digest(path, folds.digest, record["digests"]["folds"])
    return folds


def refuse_other_data(folder: Path, manifest: Manifest, folds: Folds) -> None:
    """Refuse to go on with a run that was made of other data or other folds, or whose tables changed.

    Raises
    ------
    DataError
        The data or folds are others than those of the run.
    IntegrityError
        Its own tables are no longer what they were.
    """
    record, kept = read_record(folder), read_manifest(folder)
    if manifest.digest != kept.digest:
        raise DataError(
            "A run folder belongs to one manifest",
            f"'{folder}' was made from other data: {difference(kept, manifest)}",
            "Use another --run folder, or restore the data",
        )
    if folds.digest != record["digests"]["folds"]:
        raise DataError(
            "A run folder belongs to one set of folds",
            f"'{folder}' has {record['folds']['n_splits']} folds by {record['folds']['split_by']} "
            f"that differ from the {folds.n_splits} by {folds.split_by} asked for",
            "Use another --run folder, or the same --folds, --seed and --split-by",
        )
    read_folds(folder)


def stamped_as_made(folder: Path, folds: Folds, by: str) -> Folds:
    """Folds stamped `by`, where the run in `folder` was made of them so; else as they are."""
    asked = dataclasses.replace(folds, split_by=by)
    made = (folder / RECORD).is_file() and read_record(folder)["digests"]["folds"] == asked.digest
    return asked if made else folds


@contextlib.contextmanager
def _unchanged(path: Path) -> Iterator[None]:
    # It was whole when it was written: where it cannot be read, it was damaged.
    try:
        yield
    except DataError as error:
        raise _changed(path, f"and cannot be read: {error.got}") from error


def _same_digest(path: Path, got: str, want: str) -> None:
    if got != want:
        raise _changed(path, f"digest {got[:12]}, recorded {want[:12]}")


def _changed(path: Path, how: str) -> IntegrityError:
    return IntegrityError(
        "A run's tables are what its record says",
        f"'{path}' was changed since ({how})",
        RESTORE,
    )


def difference(old: Manifest, new: Manifest) -> str:
    """What changed between two manifests, in words."""
    before, after = set(old.sample_ids.tolist()), set(new.sample_ids.tolist())
    gone, come = sorted(before - after), sorted(after - before)
    if gone or come:
        return (
            f"{len(gone)} images are gone ({first_few(gone, 2)}) and {len(come)} are new "
            f"({first_few(come, 2)})"
        )
    ours = old.table.set_index("sample_id")
    theirs = new.table.set_index("sample_id").loc[ours.index]
    for column in ("label", "group", "split", "sha256"):
        if column in ours and column in theirs:
            changed = ours.index[(ours[column] != theirs[column]).to_numpy()]
            if len(changed):
                what = "pixels (sha256)" if column == "sha256" else column
                return f"the {what} of {len(changed)} images changed ({first_few(changed, 2)})"
    return "its class names or columns changed"


def in_order(members: Iterable[str], asked: Sequence[str]) -> list[str]:
    """Members in the order in which they were asked for, further weights of a training after its own.

    Examples
    --------
    >>> in_order(["a", "a@ema", "a@snap10", "a@snap2", "b"], ["b", "a"])
    ['b', 'a', 'a@ema', 'a@snap2', 'a@snap10']
    """
    place = {name: i for i, name in enumerate(asked)}

    def key(name: str) -> tuple[int, str, int, str]:
        base, _, weights = name.partition("@")
        return place.get(base, len(asked)), base, len(weights), weights

    return sorted(members, key=key)
