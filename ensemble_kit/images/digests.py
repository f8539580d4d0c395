"""Digests of the image files, to detect changed data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from PIL import Image

from ensemble_kit.errors import DataError, EnsembleKitError, EnvironmentFault
from ensemble_kit.files import digest_bytes, digest_file
from ensemble_kit.images.containers import read_contained, split_reference
from ensemble_kit.images.decode import inside
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.parallel import in_threads

T = TypeVar("T")
U = TypeVar("U")


def with_digests(manifest: Manifest) -> Manifest:
    """`manifest` with a column `sha256`: the digest of each file's bytes.

    An image inside an array has the digest of its own pixels; a pair has that of both files.

    Raises
    ------
    DataError
        Files are missing or unreadable; the message names all of them.

    Examples
    --------
    >>> from ensemble_kit.manifest.layouts.digits import read_digits
    >>> len(with_digests(read_digits().take([0, 1])).table["sha256"][0])
    64
    """
    columns = [c for c in ("path", "pair_path") if c in manifest.table]
    rows = [
        tuple(p for p in row if p)
        for row in manifest.table[columns].astype(str).itertuples(index=False)
    ]
    digests, faults = map_images(lambda row: digest_of(manifest.root, row), rows)
    refuse_faults(faults, len(rows))
    return manifest.with_columns(sha256=digests)


def map_images(
    work: Callable[[T], U], items: list[T], *, progress: Callable[[int, int], None] | None = None
) -> tuple[list[U | None], dict[int, EnsembleKitError]]:
    """`work` on every item in threads: results in order, and the error of each that failed.

    An error is a DataError, or an EnvironmentFault if an item lacks memory even when it is tried
    again alone.
    """

    def tried(item: T) -> U | DataError | MemoryError:
        try:
            return work(item)
        except (DataError, MemoryError) as error:
            return error

    results: list[U | None] = [None] * len(items)
    faults: dict[int, EnsembleKitError] = {}
    lacking: list[int] = []
    # Set outside the threads. `check_size` refuses images that are too large.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        for i, found in enumerate(in_threads(tried, items)):
            if isinstance(found, DataError):
                faults[i] = found
            elif isinstance(found, MemoryError):
                lacking.append(i)
            else:
                results[i] = found
            if progress is not None:
                progress(i + 1, len(items))
        for i in lacking:
            try:
                results[i] = work(items[i])
            except DataError as error:
                faults[i] = error
            except MemoryError as error:
                faults[i] = _lack_of_memory(error)
    return results, faults


def refuse_faults(faults: dict[int, EnsembleKitError], n: int) -> None:
    """Raise one error that names every image in `faults`, if there are any.

    Raises
    ------
    EnvironmentFault
        There was not enough memory for an image.
    DataError
        Images are unreadable.
    """
    refuse_lack_of_memory(faults)
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        raise DataError(
            f"{len(faults)} of {n} images cannot be read: "
            + "; ".join(error.problem for error in list(faults.values())[:20]),
            "every image must be readable, because results must be about all images",
            "Replace or remove these files. `ensemble-kit data check` lists all of them",
        )


def refuse_lack_of_memory(faults: dict[int, EnsembleKitError]) -> None:
    """Raise the first lack of memory in `faults`, which is no fault of the image.

    Raises
    ------
    EnvironmentFault
        There was not enough memory for an image.
    """
    for error in faults.values():
        if isinstance(error, EnvironmentFault):
            raise error


def _lack_of_memory(error: MemoryError) -> EnvironmentFault:
    return EnvironmentFault(
        f"An image does not fit into memory: {str(error) or 'no memory is left'}",
        "each image is decoded as a whole",
        "Close other programs, use a machine with more memory, or cut the image into smaller ones",
    )


def digest_of(root: Path, row: tuple[str, ...]) -> str:
    """The digest of one image as in `with_digests`; `row` holds its path, and that of its pair.

    Raises
    ------
    DataError
        A file is missing or unreadable.
    """
    parts = [_digest_one(root, path) for path in row]
    return parts[0] if len(parts) == 1 else digest_bytes("".join(parts).encode())


def _digest_one(root: Path, path: str) -> str:
    reference = split_reference(path)
    if reference is not None:
        return digest_bytes(read_contained(root, *reference).tobytes())
    try:
        return digest_file(inside(root, path))
    except OSError as error:
        raise DataError(
            f"'{path}': {error.strerror}",
            "each image of the manifest must exist and be readable",
            "Check the path",
        ) from error
