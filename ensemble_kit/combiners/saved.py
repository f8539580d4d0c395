"""A fitted combiner on disk: `combiner.json`, and `combiner.safetensors` if it has arrays.

Reading these files cannot run code.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.combiners import make_combiner, name_of
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import IntegrityError, UsageError
from ensemble_kit.files import digest_bytes, write_bytes

SCHEMA_VERSION = 1
JSON_NAME, ARRAYS_NAME = "combiner.json", "combiner.safetensors"


def described(combiner: Combiner) -> dict[str, Any]:
    """Name and parameters as JSON values, also of inner combiners."""
    params = {
        key: described(value) if isinstance(value, Combiner) else value
        for key, value in combiner.get_params(deep=False).items()
    }
    return {"combiner": name_of(combiner), "params": params}


def made_of(description: dict[str, Any]) -> Combiner:
    """The unfitted combiner of a description."""
    params = {key: _value(value) for key, value in description["params"].items()}
    return make_combiner(description["combiner"], **params)


def _value(value: Any) -> Any:
    """A parameter as it was before it became JSON."""
    if isinstance(value, dict) and "combiner" in value:
        return made_of(value)
    return tuple(value) if isinstance(value, list) else value


def save_combiner(
    folder: str | os.PathLike[str], combiner: Combiner, *, about: dict[str, Any] | None = None
) -> None:
    """Write a fitted combiner; the JSON comes last, so that its existence means "complete".

    Parameters
    ----------
    folder : path
    combiner : Combiner
        A fitted combiner.
    about : dict, optional
        Member names, class names and digests of the data of the fit.

    Raises
    ------
    UsageError
        The combiner is not fitted.
    """
    record, content = packed(combiner)
    target = Path(folder)
    if content is not None:
        write_bytes(target / ARRAYS_NAME, content)
    else:
        (target / ARRAYS_NAME).unlink(missing_ok=True)
    write_checked(target / JSON_NAME, {**record, "about": about or {}})


def packed(combiner: Combiner) -> tuple[dict[str, Any], bytes | None]:
    """A fitted combiner as JSON values, and its arrays as safetensors if it has any.

    Raises
    ------
    UsageError
        The combiner is not fitted.
    """
    if not hasattr(combiner, "classes_"):
        raise UsageError(
            f"{combiner!r} is not fitted", "only fitted combiners can be saved", "Call fit first"
        )
    plain, arrays = combiner.state()
    content = _content(arrays) if arrays else None
    record = {
        "schema_version": SCHEMA_VERSION,
        **described(combiner),
        "state": plain,
        "arrays": None if content is None else digest_bytes(content),
    }
    return record, content


def unpacked(record: dict[str, Any], content: bytes | None) -> Combiner:
    """The fitted combiner from the values of `packed`; the caller checks the digests."""
    return made_of(record).restore(record["state"], {} if content is None else _arrays(content))


def _content(arrays: dict[str, Array]) -> bytes:
    from safetensors.numpy import save

    content: bytes = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return content


def load_combiner(folder: str | os.PathLike[str]) -> Combiner:
    """The combiner that `save_combiner` wrote.

    Raises
    ------
    DataError
        The file is missing.
    IntegrityError
        A file is damaged or was changed, the arrays are missing, or the layout is of another version.
    """
    source, stored = Path(folder), read_saved(folder)
    content = _checked(source / ARRAYS_NAME, stored["arrays"]) if stored["arrays"] else None
    return unpacked(stored, content)


def read_saved(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of `combiner.json`.

    Raises
    ------
    DataError
        The file is missing.
    IntegrityError
        The file is damaged or was changed, or its layout is of another version.
    """
    source = Path(folder)
    stored = read_checked(source / JSON_NAME, advice="Run ensemble-kit stack again")
    if stored.get("schema_version") != SCHEMA_VERSION:
        raise IntegrityError(
            f"'{source}' has the layout version {stored.get('schema_version')}",
            f"this version of ensemble-kit reads version {SCHEMA_VERSION}",
            "Use the version of ensemble-kit that wrote it",
        )
    return stored


def _checked(path: Path, digest: str) -> bytes:
    content = path.read_bytes() if path.is_file() else b""
    if digest_bytes(content) != digest:
        raise IntegrityError(
            f"'{path}' {'does not match its digest' if content else 'is missing'}",
            "a saved combiner must be complete and unchanged",
            "Run ensemble-kit stack again",
        )
    return content


def _arrays(content: bytes) -> dict[str, Array]:
    from safetensors.numpy import load

    found: dict[str, Array] = load(content)
    return found
