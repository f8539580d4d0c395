"""Finds a class or patient in each path by a user's regular expression."""

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
        Name of the pattern in errors: `group_pattern`.
    what : str
        What the pattern finds: `patient`.

    Raises
    ------
    UsageError
        The pattern is not a regular expression, or has no group.
    DataError
        A path does not match.

    Examples
    --------
    >>> found_by(r"(P\\d+)_", ["a/P1_x.png", "b/P2_y.png"], option="group_pattern", what="patient")
    ['P1', 'P2']
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(
            f"Cannot read the pattern {pattern!r} ({option}): {error}",
            "it must be a regular expression",
            "Correct the pattern",
        ) from error
    if compiled.groups < 1:
        raise UsageError(
            f"The pattern {pattern!r} ({option}) has no parentheses",
            f"parentheses mark the {what}",
            "Use e.g. '(P[0-9]+)'",
        )
    found = [compiled.search(path) for path in paths]
    without = [p for p, match in zip(paths, found, strict=True) if match is None or not match[1]]
    if without:
        raise DataError(
            f"{len(without)} of {len(paths)} paths have no {what} by the pattern {pattern!r} (first: {without[0]})",
            f"each image needs a {what}",
            "Correct the pattern",
        )
    return [match[1] for match in found if match is not None]
