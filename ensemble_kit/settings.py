"""The base of every settings table: frozen, checked, unknown keys refused with the nearest known one.

Knows no particular setting.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    ensemble_kit.errors.DataError: Settings have known keys only; got 'celcius'. Did you mean 'celsius'?
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _explained(error, type(self)) from None


def _explained(error: ValidationError, table: type[BaseModel]) -> DataError:
    first = error.errors()[0]
    where: Sequence[Any] = first["loc"]
    inner = first.get("ctx", {}).get("error")
    if isinstance(inner, DataError):
        return inner
    name = ".".join(str(part) for part in where) or table.__name__
    if first["type"] == "extra_forbidden":
        known = _table_at(table, where[:-1]).model_fields
        return DataError(
            "Settings have known keys only", f"got '{name}'", did_you_mean(str(where[-1]), known)
        )
    if first["type"] == "missing":
        return DataError(
            "A setting without a default must be given", f"'{name}' is missing", "Add it"
        )
    got = repr(first["input"])
    message = first["msg"][:1].lower() + first["msg"][1:]
    return DataError(
        f"The setting '{name}' must be right", f"got {got[:80]}: {message}", "Change that value"
    )


def _table_at(table: type[BaseModel], path: Sequence[Any]) -> type[BaseModel]:
    for key in path:
        field = table.model_fields.get(str(key))
        inner = field.annotation if field else None
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            table = inner
    return table
