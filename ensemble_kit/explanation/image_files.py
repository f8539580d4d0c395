"""The files of one explained image, and a record of their digests, which is written last."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.checked import check_file, read_checked, write_checked
from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.files import digest_file, write_bytes

RECORDS = "records"
ADVICE = "Run the same command again"


class ImageFiles:
    """The files of one image.

    Parameters
    ----------
    folder : path
        The folder of all images.
    number : int
        Number of the image, from 1.
    name : str
        Name of the image, any text.
    """

    def __init__(self, folder: Path, number: int, name: str) -> None:
        self.folder = folder
        plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", Path(name).stem).strip("._")[:60]
        self.stem = f"{number:03d}-{plain or 'image'}"
        self._written: dict[str, str] = {}

    @property
    def record_path(self) -> Path:
        return self.folder / RECORDS / f"{self.stem}.json"

    def write(self, room: str, ending: str, content: bytes) -> str:
        """Write `room/STEM.ending`, store its digest, and return its path in the folder."""
        path = f"{room}/{self.stem}.{ending}"
        write_bytes(self.folder / path, content)
        self._written[path] = digest_file(self.folder / path)
        return path

    def finish(self, plan: str, facts: Mapping[str, Any]) -> None:
        """Write the record, after all files."""
        write_checked(self.record_path, {"plan": plan, **facts, "files": dict(self._written)})

    def finished(self, plan: str) -> dict[str, Any] | None:
        """The record, if all files of this plan exist and match their digests, else None."""
        if not self.record_path.is_file():
            return None
        try:
            record = read_checked(self.record_path, advice=ADVICE)
            for path, digest in record["files"].items():
                check_file(self.folder / path, digest, advice=ADVICE)
        except (DataError, IntegrityError, KeyError):
            return None
        return record if record.get("plan") == plan else None
