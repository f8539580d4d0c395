"""The base of every settings table: frozen, checked, unknown keys refused with the nearest known one.

Knows no particular setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ensemble_kit.errors import DataError, did_you_mean


class Settings(BaseModel):
    """A frozen table of settings; what cannot be right raises `DataError` naming the key.

    Examples
    --------
    >>> class Oven(Settings):
    ...     celsius: int = 180
    >>> Oven(celsius=200).celsius
    200
    >>> Oven(celcius=200)
    Traceback (most recent call last):
    ensemble_kit.settings.SettingsError: got 'celcius'. Settings have known keys only. Did you mean 'celsius'?
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _explained(error, type(self)) from None


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, table by table."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else value
    return out


class SettingsError(DataError):
    """What is wrong with one key; `{key}` in its texts stands for the key's full name."""

    def __init__(self, law: str, got: str, advice: str, *, key: str) -> None:
        super().__init__(law.replace("{key}", key), got.replace("{key}", key), advice)
        self.templates, self.key = (law, got), key

    def under(self, path: Sequence[Any]) -> SettingsError:
        """The same error, its key standing in the table at `path`."""
        law, got = self.templates
        key = ".".join([*(str(part) for part in path), self.key])
        return SettingsError(law, got, self.advice, key=key)


def _explained(error: ValidationError, table: type[BaseModel]) -> DataError:
    first = error.errors()[0]
    where: Sequence[Any] = first["loc"]
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, SettingsError):
        return inner.under(where)
    if isinstance(inner, DataError):
        return inner
    key = ".".join(str(part) for part in where) or table.__name__
    if first["type"] == "extra_forbidden":
        advice = _nearest_key(str(where[-1]), _table_at(table, where[:-1]))
        return SettingsError("Settings have known keys only", "got '{key}'", advice, key=key)
    if first["type"] == "missing":
        law = "A setting without a default must be given"
        return SettingsError(law, "'{key}' is missing", "Add it", key=key)
    value = repr(first["input"])[:80]
    message = first["msg"][:1].lower() + first["msg"][1:].replace("a valid tuple", "a list")
    return SettingsError(
        "The setting '{key}' must be right", f"got {value}: {message}", "Change that value", key=key
    )


def _nearest_key(name: str, table: type[BaseModel]) -> str:
    for key, field in table.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel) and name in inner.model_fields:
            return f"Did you mean '{key}.{name}'?"
    return did_you_mean(name, table.model_fields)


def _table_at(table: type[BaseModel], path: Sequence[Any]) -> type[BaseModel]:
    for key in path:
        field = table.model_fields.get(str(key))
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            table = inner
    return table
