"""Finds a name in each path by a user's regular expression.

Reads no file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ensemble_kit.errors import DataError, UsageError


def found_by(pattern: str, paths: Sequence[str], *, option: str, what: str) -> list[str]:
    """The first group of `pattern` in each path.

    Parameters
    ----------
    pattern : str
    paths : sequence of str, length n_samples
    option : str
        What the pattern is called in errors: `group_pattern`.
    what : str
        What it finds: `patient`.

    Raises
    ------
    UsageError
        No regular expression, or one without a group.
    DataError
        Paths that do not match.

    Examples
    --------
    >>> found_by(r"(P\\d+)_", ["a/P1_x.png", "b/P2_y.png"], option="group_pattern", what="patient")
    ['P1', 'P2']
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"{option} is a regular expression", f"{pattern!r}: {error}", "Mend it"
        ) from error
    if compiled.groups < 1:
        raise UsageError(
            f"{option} marks the {what} by parentheses", f"got {pattern!r}", "Use e.g. '(P[0-9]+)'"
        )
    found = [compiled.search(path) for path in paths]
    without = [p for p, match in zip(paths, found, strict=True) if match is None or not match[1]]
    if without:
        raise DataError(
            f"Every image has a {what}",
            f"{len(without)} of {len(paths)} paths have none by {pattern!r} (first: {without[0]})",
            "Mend the pattern",
        )
    return [match[1] for match in found if match is not None]
