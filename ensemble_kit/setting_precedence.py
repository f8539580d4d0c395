"""Precedence of settings: options win over tables, and keys win over the preset beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.members.recipe import preset_values
from ensemble_kit.members.registry import expand
from ensemble_kit.members.spec_string import yielding
from ensemble_kit.settings import merged

# Settings of an option that a member may also have, in addition to its recipe. The seed of a member
# is not the seed of the run.
OF_MEMBERS = ("image_size", "pretrained", "weights")


def with_flags(written: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a file with options: an option wins over every table, also of members.

    If the members are given as options, the settings after their names are more specific than the
    other options, and win over them.

    Parameters
    ----------
    written, flags : mapping
        Both nested in the same way; None in `flags` means not given.

    Raises
    ------
    DataError
        An option makes two members of the file equal.

    Examples
    --------
    >>> with_flags({"member": {"a": {"image_size": 24}}}, {"image_size": 16})
    {'member': {'a': {}}, 'image_size': 16}
    """
    flags = _given(flags)
    given_values = _of_members(flags)
    tables = _without_presets(written) if "preset" in given_values.get("recipe", {}) else written
    out = merged(with_presets(tables), with_presets(flags))
    if isinstance(out.get("member"), Mapping):
        out["member"] = {
            name: _without(table, given_values) for name, table in out["member"].items()
        }
    if given_values and "members" not in flags and _are_names(out.get("members")):
        out["members"] = _checked_members(expand(out["members"]), given_values)
    return out


def with_presets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Replace the `preset` of `[recipe]` and of each member by its keys; keys beside it win."""
    out = _with_preset(settings)
    tables = out.get("member")
    if isinstance(tables, Mapping):
        out["member"] = {
            name: _with_preset(table) if isinstance(table, Mapping) else table
            for name, table in tables.items()
        }
    return out


def _with_preset(table: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(table)
    recipe = out.get("recipe")
    if isinstance(recipe, Mapping) and "preset" in recipe:
        own = {k: v for k, v in recipe.items() if k != "preset"}
        out["recipe"] = merged(preset_values(str(recipe["preset"])), own)
    return out


def _of_members(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a member's table may also set, nested like that table."""
    given_values = {key: flags[key] for key in OF_MEMBERS if key in flags}
    if "stain_norm" in flags.get("data", {}):
        given_values["stain_norm"] = flags["data"]["stain_norm"]
    if "recipe" in flags:
        given_values["recipe"] = merged(_with_preset(flags)["recipe"], flags["recipe"])
    return given_values


def _without_presets(written: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a file without presets, if a preset is among the options."""
    preset = {"recipe": {"preset": None}}
    out: dict[str, Any] = _without(written, preset)
    if isinstance(out.get("member"), Mapping):
        out["member"] = {name: _without(table, preset) for name, table in out["member"].items()}
    return out


def _without(table: Any, given_values: Mapping[str, Any]) -> Any:
    """A table without the keys of `given_values`, also in inner tables."""
    if not isinstance(table, Mapping):
        return table
    return {
        key: _without(value, given_values[key])
        if isinstance(given_values.get(key), Mapping)
        else value
        for key, value in table.items()
        if key not in given_values or isinstance(given_values[key], Mapping)
    }


def _checked_members(texts: Sequence[str], given_values: Mapping[str, Any]) -> list[str]:
    out = [yielding(text, given_values) for text in texts]
    equal = [text for text, new in zip(texts, out, strict=True) if out.count(new) > 1]
    if equal:
        raise DataError(
            f"With this option, the members {first_few(map(repr, equal))} are the same",
            "an option applies to every member of the settings file",
            "Write the members in --members, where each may have its own settings, or leave out the option",
        )
    return out


def _are_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value)


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in flags.items():
        if isinstance(value, Mapping):
            if inner := _given(value):
                out[key] = inner
        elif value is not None:
            out[key] = value
    return out
