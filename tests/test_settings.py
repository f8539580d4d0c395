"""Settings tables: frozen, without unknown keys and NaN, and errors with the full key."""

from __future__ import annotations

import pytest
from pydantic import Field

from ensemble_kit.errors import DataError
from ensemble_kit.settings import Settings, SettingsError


class Oven(Settings):
    celsius: float = Field(180, gt=0)
    trays: tuple[str, ...] = ("middle",)


class Kitchen(Settings):
    name: str
    oven: Oven = Oven()


def refused(**values: object) -> str:
    with pytest.raises(SettingsError) as caught:
        Kitchen(**{"name": "k", **values})
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_an_unknown_key_names_the_nearest_one() -> None:
    printed = refused(ovn={})
    assert "'ovn'" in printed
    assert printed.endswith("Did you mean 'oven'?")


def test_an_unknown_key_of_an_inner_table_is_named_in_full() -> None:
    printed = refused(oven={"celcius": 200})
    assert "'oven.celcius'" in printed
    assert printed.endswith("Did you mean 'celsius'?")


def test_a_key_of_an_inner_table_gets_its_full_name() -> None:
    assert refused(celsius=200).endswith("Did you mean 'oven.celsius'?")


def test_a_very_different_key_gets_the_known_keys() -> None:
    assert refused(zzz=1).endswith("Known: name, oven.")


def test_a_wrong_value_is_shown_with_its_key_and_the_reason() -> None:
    printed = refused(oven={"celsius": -3})
    assert "-3" in printed
    assert "'oven.celsius'" in printed


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(DataError, match="'name'"):
        Kitchen()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_are_refused(value: float) -> None:
    assert "'oven.celsius'" in refused(oven={"celsius": value})


def test_a_wrong_type_is_reported_in_toml_terms() -> None:
    assert "a list" in refused(oven={"trays": "top"})


def test_settings_are_frozen() -> None:
    kitchen = Kitchen(name="k")
    with pytest.raises(ValueError, match="frozen"):
        kitchen.name = "other"  # type: ignore[misc]


def test_equal_values_are_equal_settings() -> None:
    assert Kitchen(name="k") == Kitchen(name="k", oven={"celsius": 180})
    assert Kitchen(name="k") != Kitchen(name="k", oven={"celsius": 181})


def test_an_error_under_a_table_gets_the_full_key() -> None:
    inner = SettingsError("'{key}' is bad", "{key} is good", "Fix it", key="b")
    assert str(inner.under(["a", 0])) == "'a.0.b' is bad; a.0.b is good. Fix it."
