"""Stored JSON records that hold their own digest and the digests of the files beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.files import digest_file, digest_json, read_json, write_json

OWN_DIGEST = "own_digest"


def write_checked(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Write a JSON object with the digest of its content under `own_digest`."""
    content = {key: value for key, value in record.items() if key != OWN_DIGEST}
    write_json(path, {**content, OWN_DIGEST: digest_json(_as_read(content))})


def read_checked(path: str | os.PathLike[str], *, advice: str) -> dict[str, Any]:
    """Read what `write_checked` wrote, without the digest.

    A file of an earlier version without its own digest is accepted.

    Parameters
    ----------
    path : path
    advice : str
        What the user can do if the file is damaged.

    Raises
    ------
    DataError
        The file is missing, or cannot be read.
    IntegrityError
        The file is damaged, is not a JSON object, or was changed.
    """
    record = _object_in(path, advice)
    digest = record.pop(OWN_DIGEST, None)
    if digest is not None and digest != digest_json(record):
        raise _changed(path, "was changed since it was written", advice)
    return record


def check_file(path: Path, digest: str, *, advice: str) -> None:
    """Compare a stored file with the digest in its record.

    Raises
    ------
    IntegrityError
        The file is missing, or was changed.
    """
    if not path.is_file():
        raise _changed(path, "is missing", advice)
    if digest_file(path) != digest:
        raise _changed(path, "does not match its digest", advice)


def is_bound(path: str | os.PathLike[str]) -> bool:
    """Whether a JSON file has its own digest; files of earlier versions do not."""
    record = read_json(path, limit=None)
    return isinstance(record, dict) and OWN_DIGEST in record


def _object_in(path: str | os.PathLike[str], advice: str) -> dict[str, Any]:
    try:
        record = read_json(path, limit=None)
    except DataError as error:
        if isinstance(error.__cause__, OSError):
            raise
        raise _changed(path, f"is damaged ({error.problem})", advice) from error
    if not isinstance(record, dict):
        raise _changed(path, f"holds {json.dumps(record)[:40]}, not a JSON object", advice)
    return record


def _as_read(content: Mapping[str, Any]) -> Any:
    """The values after writing and reading JSON: lists for tuples, text for keys."""
    return json.loads(json.dumps(content, allow_nan=False))


def _changed(path: str | os.PathLike[str], what: str, advice: str) -> IntegrityError:
    return IntegrityError(
        f"'{os.fspath(path)}' {what}", "stored files must stay as they were written", advice
    )
