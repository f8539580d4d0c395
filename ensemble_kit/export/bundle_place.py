"""The place of a new bundle: a folder or zip archive that is written atomically.

Only an older bundle is replaced.
"""

from __future__ import annotations

import contextlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ensemble_kit.atomic_write import atomic_write
from ensemble_kit.errors import DataError, disk_fault
from ensemble_kit.inference.bundle_files import is_bundle
from ensemble_kit.replaced import replaced_whole


def refuse_other(target: Path) -> None:
    """Raise `DataError` if `target` exists and is not a bundle."""
    empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not empty and not is_bundle(target):
        raise DataError(
            f"'{target}' exists and is not a bundle",
            "only a bundle can be replaced",
            "Choose another folder or .zip",
        )


@contextlib.contextmanager
def written(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target`, a folder or a zip archive, at the end."""
    if target.suffix.lower() != ".zip":
        with replaced_whole(target) as fresh:
            yield fresh
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=target.parent, prefix=".bundle-")
    except OSError as error:
        raise disk_fault(target, error) from error
    with scratch as place:
        folder = Path(place) / target.stem
        folder.mkdir()
        yield folder
        atomic_write(target, lambda file: _zip(folder, file))


def _zip(folder: Path, file: Any) -> None:
    """Store all files uncompressed in one folder, with constant dates."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
                about = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                about.external_attr = 0o644 << 16
                with archive.open(about, "w", force_zip64=True) as entry, path.open("rb") as source:
                    while some := source.read(2**20):
                        entry.write(some)
