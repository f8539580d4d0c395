"""Natural order of classes, unknown patients, and nearly equal names."""

from __future__ import annotations

import unicodedata

import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.manifest.names import in_natural_order, is_unknown, known_groups, near_equal
from ensemble_kit.manifest.table import Manifest


def test_class_names_are_sorted_by_their_numbers() -> None:
    assert in_natural_order(map(str, range(12))) == tuple(map(str, range(12)))
    assert in_natural_order(f"ISUP {k}" for k in (10, 2, 1)) == ("ISUP 1", "ISUP 2", "ISUP 10")
    assert in_natural_order(["0.5", "0.25", "-1", "10"]) == ("-1", "0.25", "0.5", "10")
    assert in_natural_order(["3+", "0", "2+", "1+"]) == ("0", "1+", "2+", "3+")


@pytest.mark.parametrize(
    "group",
    ["", " ", "NA", "n/a", "N.A.", "NULL", "<NA>", "#N/A", "nan", "None", "-", "?", "unknown"],
)
def test_an_unknown_patient_is_refused(group: str) -> None:
    with pytest.raises(DataError, match="s2"):
        known_groups(["P1", group], ["s1", "s2"], where="column 'patient'")


@pytest.mark.parametrize("group", ["NA12878", "0", "Nan Li", "none-1", "NL-7"])
def test_a_name_that_begins_like_unknown_is_known(group: str) -> None:
    assert not is_unknown(group)
    assert known_groups([f"{group}\u00a0"], ["s1"], where="column 'patient'") == [group]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("P01", "P1"),
        ("P01", "p01"),
        ("P01", "P-01"),
        ("P_01", "P 01"),
        ("12", "12.0"),
        ("Müller", unicodedata.normalize("NFD", "Müller")),
        ("P01", "P\u200b01"),
        ("P01", "Ｐ01"),
    ],
)
def test_names_that_look_the_same_are_nearly_equal(one: str, other: str) -> None:
    assert near_equal([one, other, "Q7"]) == [tuple(sorted((one, other)))]


@pytest.mark.parametrize(
    ("one", "other"), [("P1-1", "P11"), ("1", "10"), ("2+", "2"), ("12.5", "125"), ("a", "b")]
)
def test_different_names_are_not_nearly_equal(one: str, other: str) -> None:
    assert near_equal([one, other]) == []


def test_records_have_classes_in_natural_order_and_known_patients() -> None:
    rows = [(f"s{k}", f"s{k}.png", str(k % 11), f"P{k} ") for k in range(22)]
    manifest = Manifest.from_records(rows)
    assert manifest.class_names == tuple(map(str, range(11)))
    assert manifest.groups[0] == "P0"
    with pytest.raises(DataError):
        Manifest.from_records([*rows, ("s99", "s99.png", "0", "N/A")])
