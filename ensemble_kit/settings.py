"""The base class of all settings: frozen and checked; unknown keys are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ensemble_kit.errors import DataError, did_you_mean


class Settings(BaseModel):
    """A frozen table of settings. An invalid value raises a `DataError` that names the key.

    Examples
    --------
    >>> class Oven(Settings):
    ...     celsius: int = 180
    >>> Oven(celsius=200).celsius
    200
    >>> Oven(celcius=200)
    Traceback (most recent call last):
    ensemble_kit.settings.SettingsError: Unknown setting 'celcius'; unknown keys are refused. Did you mean 'celsius'?
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
    """An error about one key; `{key}` in its texts is replaced by the full name of the key."""

    def __init__(self, problem: str, allowed: str, advice: str, *, key: str) -> None:
        super().__init__(problem.replace("{key}", key), allowed.replace("{key}", key), advice)
        self.templates, self.key = (problem, allowed), key

    def under(self, path: Sequence[Any]) -> SettingsError:
        """The same error, with its key in the table at `path`."""
        problem, allowed = self.templates
        key = ".".join([*(str(part) for part in path), self.key])
        return SettingsError(problem, allowed, self.advice, key=key)


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
        return SettingsError("Unknown setting '{key}'", "unknown keys are refused", advice, key=key)
    if first["type"] == "missing":
        problem = "The setting '{key}' is missing"
        return SettingsError(problem, "it has no default", "Add it", key=key)
    value = repr(first["input"])[:80]
    message = first["msg"][:1].lower() + first["msg"][1:].replace("a valid tuple", "a list")
    message = message.replace("input should", "it must")
    return SettingsError(
        f"Invalid value {value} for the setting '{{key}}'", message, "Change that value", key=key
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
