"""The image files under a folder, in a stable order, with a note on everything passed over.

Does not know what the folders mean (the readers do) and opens no file.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ensemble_kit.errors import DataError, first_few

IMAGE_SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".webp"),
        *(".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
    )
)
# Files that stand beside images and are none: not worth a word next to every result.
BESIDE = frozenset((".csv", ".json", ".md", ".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"))
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def list_images(root: str | os.PathLike[str]) -> tuple[list[str], tuple[str, ...]]:
    """Paths of the image files under `root`, and notes on what was passed over.

    Symbolic links to folders are not followed (they may loop); pipes, sockets and devices are
    never opened; hidden files are ignored.

    Parameters
    ----------
    root : path

    Returns
    -------
    paths : list of str
        Relative to `root`, with `/`, sorted so that `2.png` stands before `10.png`.
    notes : tuple of str
        One sentence per kind of thing passed over.

    Raises
    ------
    DataError
        `root` is no folder, or a name holds control characters or is not UTF-8.
    """
    top = Path(root)
    if not top.is_dir():
        raise DataError(
            "The data must be an existing folder",
            f"'{root}' is {'a file' if top.exists() else 'not there'}",
            "Check the path",
        )
    paths: list[str] = []
    others: Counter[str] = Counter()
    for entry, relative in _walk(top):
        kind = _kind(entry)
        if kind != "file":
            others[kind] += 1
        elif PurePosixPath(relative).suffix.lower() in IMAGE_SUFFIXES:
            paths.append(relative)
        elif PurePosixPath(relative).suffix.lower() not in BESIDE:
            others[f"'{PurePosixPath(relative).suffix.lower() or 'no suffix'}' file"] += 1
    _refuse_names(paths)
    return sorted(paths, key=natural_key), _notes(others)


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that counts: `2` before `10`, `2+` after `1+`.

    Examples
    --------
    >>> sorted(["10", "2", "1+"], key=natural_key)
    ['1+', '2', '10']
    """
    parts = re.split(r"(\d+)", text)
    return tuple((1, int(p), p) if p.isdecimal() and p.isascii() else (0, 0, p) for p in parts)


def _walk(top: Path) -> Iterator[tuple[os.DirEntry[str], str]]:
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            entries = sorted(os.scandir(top / folder), key=lambda e: e.name)
        except OSError as error:
            raise DataError(
                "Every folder of the data must be readable",
                f"'{top / folder}': {error.strerror}",
                "Mend its rights",
            ) from error
        for entry in entries:
            if entry.name.startswith("."):
                continue
            relative = f"{folder}/{entry.name}" if folder else entry.name
            if entry.is_dir(follow_symlinks=False):
                pending.append(relative)
            else:
                yield entry, relative


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "broken link"
    if stat.S_ISREG(mode):
        return "file"
    return "linked folder" if stat.S_ISDIR(mode) else "pipe, socket or device"


def _refuse_names(paths: list[str]) -> None:
    odd = [path for path in paths if _UNPRINTABLE.search(path)]
    if odd:
        raise DataError(
            "File names are UTF-8 without control characters, so that tables stay readable",
            f"{len(odd)} are not: {first_few(map(ascii, odd), 3)}",
            "Rename them",
        )


def _notes(others: Counter[str]) -> tuple[str, ...]:
    return tuple(
        f"{count} {kind}{'' if count == 1 else 's'} under the data folder passed over: not read as images."
        for kind, count in sorted(others.items())
    )
