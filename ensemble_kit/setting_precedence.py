"""Which setting wins: a recipe preset stands beneath the keys beside it, a flag above every table.

Knows tables of plain values; what they mean is checked elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.members.recipe import preset_values
from ensemble_kit.members.registry import expand
from ensemble_kit.members.spec_string import yielding
from ensemble_kit.settings import merged

# What a flag may say that a member may say for itself, besides its recipe; a member's seed is not
# the run's.
OF_MEMBERS = ("image_size", "pretrained", "weights")


def with_flags(written: Mapping[str, Any], flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a file beneath flags: a flag wins over every table, those of members too.

    Where the members are flags themselves, what stands behind their names is more specific than
    the other flags, and wins over them.

    Parameters
    ----------
    written, flags : mapping
        Nested alike; values of `flags` that are None were not given.

    Raises
    ------
    DataError
        A flag takes away what told two members of the file apart.

    Examples
    --------
    >>> with_flags({"member": {"a": {"image_size": 24}}}, {"image_size": 16})
    {'member': {'a': {}}, 'image_size': 16}
    """
    flags = _given(flags)
    said = _of_members(flags)
    tables = _without_presets(written) if "preset" in said.get("recipe", {}) else written
    out = merged(with_presets(tables), with_presets(flags))
    if isinstance(out.get("member"), Mapping):
        out["member"] = {name: _without(table, said) for name, table in out["member"].items()}
    if said and "members" not in flags and _are_names(out.get("members")):
        out["members"] = _beneath(expand(out["members"]), said)
    return out


def with_presets(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`preset` of `[recipe]` and of each member's replaced by its keys, beneath those beside it."""
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
    """What flags say that a member's table may say too, as nested as that table."""
    said = {key: flags[key] for key in OF_MEMBERS if key in flags}
    if "stain_norm" in flags.get("data", {}):
        said["stain_norm"] = flags["data"]["stain_norm"]
    if "recipe" in flags:
        said["recipe"] = merged(_with_preset(flags)["recipe"], flags["recipe"])
    return said


def _without_presets(written: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of a file without the presets that a preset among the flags replaces."""
    preset = {"recipe": {"preset": None}}
    out: dict[str, Any] = _without(written, preset)
    if isinstance(out.get("member"), Mapping):
        out["member"] = {name: _without(table, preset) for name, table in out["member"].items()}
    return out


def _without(table: Any, said: Mapping[str, Any]) -> Any:
    """A table without the keys of `said`, table by table."""
    if not isinstance(table, Mapping):
        return table
    return {
        key: _without(value, said[key]) if isinstance(said.get(key), Mapping) else value
        for key, value in table.items()
        if key not in said or isinstance(said[key], Mapping)
    }


def _beneath(texts: Sequence[str], said: Mapping[str, Any]) -> list[str]:
    out = [yielding(text, said) for text in texts]
    alike = [text for text, new in zip(texts, out, strict=True) if out.count(new) > 1]
    if alike:
        raise DataError(
            "A flag holds for every member of the settings file",
            f"with it, {first_few(map(repr, alike))} are one and the same member",
            "Write the members behind --members, where each may differ, or leave that flag out",
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
