"""The matrix of an experiment: axes of options become variants, each a table of settings.

Knows tables of plain values; what they mean is checked elsewhere.
"""

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
        The options that differ from the first of their axis, joined by hyphens.
    options : mapping of axis to option
    settings : mapping
        Nested like `ensemble-kit.toml`.
    """

    name: str
    options: Mapping[str, str]
    settings: Mapping[str, Any]


def variants(
    matrix: Matrix, crossed: Sequence[Sequence[str]], base: Mapping[str, Any]
) -> list[Variant]:
    """Every variant: the first options of all axes, then what differs from them.

    Parameters
    ----------
    matrix : mapping of axis to options
        An option is a table of settings that replace those of `base`. The first option of each
        axis is its baseline.
    crossed : sequence of groups of axes
        All combinations of a group's options are variants. An axis in no group varies alone.
    base : mapping
        Settings of all variants.

    Raises
    ------
    DataError
        An unknown axis in `crossed`, an axis in two groups, or two variants with equal settings.

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
    """Raise DataError if two variants have the same settings: their difference would be an artefact."""
    for one, other in itertools.combinations(some, 2):
        if one.settings == other.settings:
            raise DataError(
                f"The variants '{one.name}' and '{other.name}' have the same settings",
                "each variant of a matrix differs from all others in at least one setting",
                "Leave one of them out, or remove the setting that overrides both",
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
                "an axis is in one group of crossed",
                "Write all axes that are combined in one group",
            )
