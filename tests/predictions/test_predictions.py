"""The predictions table: unique names, missing predictions, and errors."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ensemble_kit.combiners import make_combiner
from ensemble_kit.errors import DataError
from ensemble_kit.predictions.table import Predictions

# -- what is missing -----------------------------------------------------------------------


def test_a_row_that_a_member_has_not_predicted_is_masked(table: Predictions) -> None:
    logits = np.array(table.logits)
    logits[3, 1] = np.nan
    logits[8, 2] = np.nan
    with_gaps = dataclasses.replace(table, logits=logits)
    want = np.ones((90, 4), dtype=bool)
    want[3, 1] = want[8, 2] = False
    assert np.array_equal(with_gaps.available, want)
    assert not with_gaps.is_complete
    assert table.is_complete
    whole = with_gaps.predicted_by_all()
    assert len(whole) == 88
    assert not {"oof-3", "oof-8"} & set(whole.sample_ids.tolist())
    assert whole.is_complete


@pytest.mark.parametrize("method", ["vote", "mean", "mlp"])
def test_nan_is_never_taken_for_a_class(table: Predictions, method: str) -> None:
    logits = np.array(table.logits)
    logits[3, 1] = np.nan
    with pytest.raises(DataError, match="1 of 360"):
        make_combiner(method).fit(logits, table.labels)


def test_a_partly_nan_row_is_refused(table: Predictions) -> None:
    logits = np.array(table.logits)
    logits[3, 1, 0] = np.nan
    with pytest.raises(DataError):
        dataclasses.replace(table, logits=logits)


# -- making a table ------------------------------------------------------------------------


def test_a_repeated_sample_id_is_refused(table: Predictions) -> None:
    with pytest.raises(DataError, match="90 rows for 89"):
        dataclasses.replace(
            table, sample_ids=np.where(np.arange(90) == 5, "oof-4", table.sample_ids)
        )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_ids", np.array(["a", "b"])),
        ("groups", np.array(["a"] * 89)),
        ("fold", np.zeros(91)),
        ("member_names", ("a", "b", "c")),
        ("member_names", ("a", "a", "b", "c")),
        ("class_names", ("x", "y")),
        ("class_names", ("x", "x", "y")),
    ],
)
def test_every_axis_has_unique_names(table: Predictions, field: str, value: object) -> None:
    with pytest.raises(DataError, match=f"{field} has"):
        dataclasses.replace(table, **{field: value})  # type: ignore[arg-type]


def test_labels_outside_the_classes_are_refused(table: Predictions) -> None:
    with pytest.raises(DataError):
        dataclasses.replace(table, labels=np.where(np.arange(90) == 0, 3, table.labels))


def test_the_table_cannot_be_changed_by_hand_nor_by_its_source() -> None:
    source = np.zeros((2, 1, 2), dtype=np.float32)
    table = Predictions.from_arrays({"a": source[:, 0]}, [0, 1])
    source[:] = 9
    assert table.logits.max() == 0
    for array in (table.logits, table.labels, table.fold, table.groups, table.sample_ids):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]


def test_without_groups_each_sample_is_its_own_group() -> None:
    alone = Predictions.from_arrays({"a": np.zeros((3, 2))}, [0, 1, 0])
    assert (alone.n_groups, alone.group_kind) == (3, "image")
    grouped = Predictions.from_arrays({"a": np.zeros((3, 2))}, [0, 1, 0], groups=["p", "p", "q"])
    assert (grouped.n_groups, grouped.group_kind) == (2, "group")


def test_arrays_of_different_shapes_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"a \(3, 2\), b \(4, 2\)"):
        Predictions.from_arrays({"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, [0, 1, 0])


def test_members_are_selected_in_the_requested_order(table: Predictions) -> None:
    picked = table.select(["member3", "member1"])
    assert picked.member_names == ("member3", "member1")
    assert np.array_equal(picked.logits, table.logits[:, [3, 1]])
    with pytest.raises(DataError, match=r"Did you mean 'member1'\?"):
        table.select(["membr1"])


def test_class_names_may_be_an_array() -> None:
    named = Predictions.from_arrays(
        {"a": np.zeros((2, 2))}, [0, 1], class_names=np.array(["benign", "malignant"])
    )
    assert named.class_names == ("benign", "malignant")
    with pytest.raises(DataError, match="class_names has 0"):
        Predictions.from_arrays({"a": np.zeros((2, 2))}, [0, 1], class_names=np.array([]))


def test_some_rows_without_a_fold_are_refused(table: Predictions) -> None:
    fold = np.array(table.fold)
    fold[[4, 7]] = -1
    with pytest.raises(DataError, match=r"\(first: oof-4, oof-7\)"):
        dataclasses.replace(table, fold=fold)
    assert (dataclasses.replace(table, fold=np.full(90, -1)).fold == -1).all()
