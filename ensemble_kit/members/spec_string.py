"""The short form of a member, `resnet18:seed=1:color=hed`: a network and its settings.

It is the same on the command line, in the settings file and in Python.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.members.member import Member
from ensemble_kit.members.naming import name_of
from ensemble_kit.members.recipe import Recipe, preset_values
from ensemble_kit.members.recipe_sections import Optim, Regularize
from ensemble_kit.members.registry import expand, refuse_place
from ensemble_kit.settings import Settings, merged

# (path of a table in a member, its class, keys without a short form).
_TABLES: tuple[tuple[tuple[str, ...], type[Settings], tuple[str, ...]], ...] = (
    ((), Member, ("network", "name", "head", "recipe", "tuned")),
    (("recipe",), Recipe, ("optim", "regularize")),
    (("recipe", "optim"), Optim, ("name",)),
    (("recipe", "regularize"), Regularize, ()),
)
_SHORT = {"size": "image_size"}


@dataclasses.dataclass(frozen=True)
class ShortForm:
    """The parts of a member's short form.

    Parameters
    ----------
    base : str
        The network, or the name of a `[member.NAME]` table.
    settings : dict
        The settings that differ from it, nested as in `Member`.
    name : str
        Name of the member.
    """

    base: str
    settings: dict[str, Any]
    name: str


def read_short_form(text: str) -> ShortForm:
    """The parts of `BASE[:KEY[=VALUE]]...`; keys are those of a member or of its recipe.

    `preset` names a recipe; the other keys override its values.

    Raises
    ------
    UsageError
        An unknown key or preset, or a key without a value that needs one.
    DataError
        An address in place of a network, such as `hf-hub:...`.

    Examples
    --------
    >>> read_short_form("resnet18:size=128:snapshots=3").name
    'resnet18-128px-snap3'
    >>> read_short_form("resnet18:bag:seed=2").settings
    {'bag': True, 'seed': 2}
    """
    refuse_place(text)
    head, *parts = text.split(":")
    settings: dict[str, Any] = {}
    differs: dict[str, Any] = {}
    preset: dict[str, Any] = {}
    name = ""
    for part in parts:
        key, _, value = part.partition("=")
        if key == "name":
            name = value
            continue
        if key == "preset":
            preset, differs[key] = preset_values(value), value
            continue
        key = _SHORT.get(key, key)
        path, field = _place(key, text)
        if not value and field.annotation is not bool:
            raise UsageError(
                f"'{key}' has no value in the member '{text}'",
                "each key needs a value",
                f"Write {head}:{key}=VALUE",
            )
        typed = _typed(value or "true", field.annotation)
        place = settings
        for table in path:
            place = place.setdefault(table, {})
        place[key] = typed
        if typed != field.default:
            differs[key] = typed
    if preset:
        settings = merged({"recipe": preset}, settings)
    return ShortForm(head, settings, name or name_of(head.replace("/", "_"), differs))


def yielding(text: str, flags: Mapping[str, Any]) -> str:
    """A short form of the settings file without the keys that command-line flags set.

    A preset of the short form stays; flags that change its values are appended to it. A preset
    among the flags replaces it.

    Parameters
    ----------
    text : str
    flags : mapping
        Nested as in `Member`; a preset is under `preset` in the recipe.

    Examples
    --------
    >>> yielding("resnet18:size=128:seed=1", {"image_size": 64, "recipe": {"epochs": 2}})
    'resnet18:seed=1'
    >>> yielding("resnet18:preset=best", {"image_size": 64, "recipe": {"epochs": 2}})
    'resnet18:preset=best:epochs=2:name=resnet18-best'
    """
    head, *parts = text.split(":")
    others: dict[str, str] = {}
    preset: dict[str, Any] = {}
    given_keys = _leaves(flags)
    for part in parts:
        key, _, value = part.partition("=")
        if _SHORT.get(key, key) not in given_keys:
            others[key] = part
            preset = _leaves(preset_values(value)) if key == "preset" else preset
    beside = [f"{key}={given_keys[key]}" for key in given_keys if key in preset]
    if beside and "name" not in others:
        beside.append(f"name={read_short_form(':'.join([head, *others.values()])).name}")
    return ":".join([head, *others.values(), *beside])


def make_members(
    texts: Sequence[str],
    *,
    recipe: Recipe | None = None,
    image_size: int | None = None,
    pretrained: bool = True,
    weights: Path | None = None,
) -> list[Member]:
    """Members from their short forms.

    Parameters
    ----------
    texts : sequence of str
        Networks or groups with their settings: `resnet18`, `resnet18:seed=1`, `small:color=hed`.
    recipe, image_size, pretrained, weights
        Settings of all members, see `Member`; a short form overrides them.

    Returns
    -------
    list of Member

    Raises
    ------
    UsageError
        An unknown key.
    DataError
        An invalid value.

    Examples
    --------
    >>> [m.name for m in make_members(["resnet18", "resnet18:seed=1", "resnet18:size=128"])]
    ['resnet18', 'resnet18-s1', 'resnet18-128px']
    """
    shared = {
        "image_size": image_size,
        "pretrained": pretrained,
        "weights": weights,
        "recipe": recipe.model_dump(exclude_unset=True) if recipe else {},
    }
    made = []
    for text in expand(texts):
        short = read_short_form(text)
        own = merged(shared, short.settings)
        made.append(Member(short.base, **{"name": short.name, **own}))
    return made


def _leaves(table: Mapping[str, Any]) -> dict[str, Any]:
    """All keys and values of nested tables, without the `name` keys."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        out |= _leaves(value) if isinstance(value, Mapping) else {key: value}
    return {key: value for key, value in out.items() if key != "name"}


def _place(key: str, text: str) -> tuple[tuple[str, ...], Any]:
    known: list[str] = ["name", "preset"]
    for path, table, apart in _TABLES:
        fields = {k: f for k, f in table.model_fields.items() if k not in apart}
        if key in fields:
            return path, fields[key]
        known += fields
    raise UsageError(
        f"Unknown key in the member '{text}'",
        "a member is written NETWORK[:KEY=VALUE]..., with keys of a member or its recipe",
        did_you_mean(key, known),
    )


def _typed(value: str, annotation: Any) -> Any:
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError:
        return value  # `Member` raises the error, with the full name of the key
