"""The matrix of an experiment: combining the options of its axes into variants."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_kit.errors import DataError, did_you_mean
from ensemble_kit.settings import merged

Matrix = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclasses.dataclass(frozen=True)
class Variant:
    """One cell of the matrix.

    Parameters
    ----------
    name : str
        The options that are not the first of their axis, joined by hyphens.
    options : mapping of axis to option
    settings : mapping
        Nested as in `ensemble-kit.toml`.
    """

    name: str
    options: Mapping[str, str]
    settings: Mapping[str, Any]


def variants(
    matrix: Matrix, crossed: Sequence[Sequence[str]], base: Mapping[str, Any]
) -> list[Variant]:
    """All variants, starting with the one that has the first options of all axes.

    Parameters
    ----------
    matrix : mapping of axis to options
        An option is a table of settings that replace settings of `base`. The first option of each
        axis is its baseline.
    crossed : sequence of groups of axes
        All combinations of a group's options are variants. An axis outside all groups varies alone.
    base : mapping
        Settings of all variants.

    Raises
    ------
    DataError
        `crossed` has an unknown axis, or the same axis in two groups.

    Examples
    --------
    >>> matrix = {"stain": {"he": {}, "ihc": {"stain": "ihc"}}, "rate": {"fast": {}, "slow": {"rate": 0.1}}}
    >>> [one.name for one in variants(matrix, [], {})]
    ['he', 'ihc', 'slow']
    >>> [one.name for one in variants(matrix, [["stain", "rate"]], {})]
    ['he', 'slow', 'ihc', 'ihc-slow']
    """
    if not matrix:
        return [Variant("base", {}, base)]
    _check(matrix, crossed)
    named = [axis for group in crossed for axis in group]
    groups = [*crossed, *([axis] for axis in matrix if axis not in named)]
    first = {axis: next(iter(options)) for axis, options in matrix.items()}
    found: dict[str, Variant] = {}
    for group in groups:
        for picked in itertools.product(*(matrix[axis] for axis in group)):
            one = _variant(matrix, {**first, **dict(zip(group, picked, strict=True))}, first, base)
            found.setdefault(one.name, one)
    return list(found.values())


def refuse_equal(some: Sequence[Variant]) -> None:
    """Raise `DataError` if two variants have the same settings."""
    for one, other in itertools.combinations(some, 2):
        if one.settings == other.settings:
            raise DataError(
                f"The variants '{one.name}' and '{other.name}' have the same settings",
                "two variants must differ in at least one setting",
                "Remove one of them, or the setting that overrides both",
            )


def _variant(
    matrix: Matrix, options: Mapping[str, str], first: Mapping[str, str], base: Mapping[str, Any]
) -> Variant:
    settings = dict(base)
    for axis, option in options.items():
        settings = merged(settings, matrix[axis][option])
    differing = [option for axis, option in options.items() if option != first[axis]]
    return Variant("-".join(differing) or next(iter(first.values())), options, settings)


def _check(matrix: Matrix, crossed: Sequence[Sequence[str]]) -> None:
    named = [axis for group in crossed for axis in group]
    for axis in named:
        if axis not in matrix:
            raise DataError(
                f"Unknown axis '{axis}' in crossed",
                f"the axes of the matrix are {', '.join(matrix)}",
                did_you_mean(axis, matrix),
            )
        if named.count(axis) > 1:
            raise DataError(
                f"The axis '{axis}' is crossed twice",
                "an axis can be in one group of crossed only",
                "Put all axes that are combined into one group",
            )
