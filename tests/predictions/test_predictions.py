"""The predictions table: everything joined by id and name, nothing missing taken for a number."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ensemble_kit.combiners import make_combiner
from ensemble_kit.errors import DataError
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.testing import toy_predictions


def reordered(table: Predictions, rows: np.ndarray, classes: list[int]) -> Predictions:
    """The same predictions with rows in another order and classes in another order."""
    moved = table.take(rows)
    back = np.argsort(classes)
    return dataclasses.replace(
        moved,
        logits=moved.logits[:, :, classes],
        labels=back[moved.labels],
        class_names=tuple(moved.class_names[c] for c in classes),
    )


@pytest.fixture
def table() -> Predictions:
    return dataclasses.replace(toy_predictions(n_samples=90, n_members=4), manifest_digest="m")


@pytest.fixture
def halves(table: Predictions) -> tuple[Predictions, Predictions]:
    return table.select(["member0", "member1"]), table.select(["member2", "member3"])


# -- joining -------------------------------------------------------------------------------


def test_a_join_goes_by_sample_id_and_class_name_and_never_by_position(
    table: Predictions, halves: tuple[Predictions, Predictions]
) -> None:
    ours, theirs = halves
    rows = np.random.default_rng(0).permutation(len(table))
    joined = ours.join(reordered(theirs, rows, [2, 0, 1]))
    assert joined.member_names == table.member_names
    assert joined.sample_ids.tolist() == table.sample_ids.tolist()
    assert np.array_equal(joined.logits, table.logits)
    assert np.array_equal(joined.labels, table.labels)


@pytest.mark.parametrize("method", ["vote", "mean", "mlp"])
def test_permuted_rows_and_classes_give_the_same_ensemble(
    table: Predictions, halves: tuple[Predictions, Predictions], method: str
) -> None:
    rows = np.random.default_rng(1).permutation(len(table))
    joined = halves[0].join(reordered(halves[1], rows, [1, 2, 0]))
    want = make_combiner(method).fit(table.logits, table.labels).predict_proba(table.logits)
    got = make_combiner(method).fit(joined.logits, joined.labels).predict_proba(joined.logits)
    assert np.array_equal(got, want)
    # What joining by position would have given is something else.
    wrong = np.concatenate([halves[0].logits, halves[1].logits[rows]], axis=1)
    assert not np.allclose(
        make_combiner(method).fit(wrong, table.labels).predict_proba(wrong), want
    )


def test_a_join_keeps_the_notes_of_both_once(halves: tuple[Predictions, Predictions]) -> None:
    ours = dataclasses.replace(halves[0], notes=("a", "b"))
    theirs = dataclasses.replace(halves[1], notes=("b", "c"))
    assert ours.join(theirs).notes == ("a", "b", "c")


def test_an_unknown_manifest_may_join_and_another_may_not(
    halves: tuple[Predictions, Predictions],
) -> None:
    ours, theirs = halves
    assert ours.join(dataclasses.replace(theirs, manifest_digest="")).n_members == 4
    with pytest.raises(DataError, match="the same manifest; got digests m, n"):
        ours.join(dataclasses.replace(theirs, manifest_digest="n"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"class_names": ("class0", "class1", "class9")}, "same class names"),
        ({"kind": "test"}, "same kind and split; got oof by group and test by group"),
        ({"split_by": "image"}, "same kind and split; got oof by group and oof by image"),
        ({"member_names": ("member0", "x")}, "different members; member0 is in both"),
    ],
)
def test_tables_that_mean_different_things_do_not_join(
    halves: tuple[Predictions, Predictions], change: dict[str, object], said: str
) -> None:
    with pytest.raises(DataError, match=said) as caught:
        halves[0].join(dataclasses.replace(halves[1], **change))  # type: ignore[arg-type]
    assert caught.value.exit_code == 3


def test_samples_in_one_table_only_are_counted_and_named(
    halves: tuple[Predictions, Predictions],
) -> None:
    with pytest.raises(DataError, match=r"7 ids are in one only: oof-0, oof-1, .* and 2 more"):
        halves[0].join(halves[1].take(np.arange(7, 90)))


@pytest.mark.parametrize("what", ["label", "group", "fold"])
def test_a_sample_that_means_something_else_is_refused(
    halves: tuple[Predictions, Predictions], what: str
) -> None:
    ours, theirs = halves
    field = {"label": "labels", "group": "groups", "fold": "fold"}[what]
    values = np.array(getattr(theirs, field))
    values[5] = (int(values[5]) + 1) % 3 if what != "group" else "other"
    with pytest.raises(DataError, match=f"{what} differs for some ids"):
        ours.join(dataclasses.replace(theirs, **{field: values}))  # type: ignore[arg-type]


# -- what is missing -----------------------------------------------------------------------


def test_a_row_that_a_member_has_not_predicted_is_masked(table: Predictions) -> None:
    logits = np.array(table.logits)
    logits[3, 1] = np.nan
    logits[8, 2] = np.nan
    holed = dataclasses.replace(table, logits=logits)
    want = np.ones((90, 4), dtype=bool)
    want[3, 1] = want[8, 2] = False
    assert np.array_equal(holed.available, want)
    assert not holed.is_complete
    assert table.is_complete
    whole = holed.predicted_by_all()
    assert len(whole) == 88
    assert not {"oof-3", "oof-8"} & set(whole.sample_ids.tolist())
    assert whole.is_complete


@pytest.mark.parametrize("method", ["vote", "mean", "mlp"])
def test_nan_is_never_taken_for_a_class(table: Predictions, method: str) -> None:
    logits = np.array(table.logits)
    logits[3, 1] = np.nan
    with pytest.raises(DataError, match=r"NaN has no class; 1 of 360 .* at \(3, 1\)"):
        make_combiner(method).fit(logits, table.labels)


def test_a_row_that_is_nan_in_part_is_damage_and_no_gap(table: Predictions) -> None:
    logits = np.array(table.logits)
    logits[3, 1, 0] = np.nan
    with pytest.raises(DataError, match="NaN has no class"):
        dataclasses.replace(table, logits=logits)


# -- making a table ------------------------------------------------------------------------


def test_a_sample_id_that_stands_twice_is_refused(table: Predictions) -> None:
    with pytest.raises(DataError, match="90 rows of 89 ids"):
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
def test_every_axis_is_named_once(table: Predictions, field: str, value: object) -> None:
    with pytest.raises(DataError, match=f"{field} has"):
        dataclasses.replace(table, **{field: value})  # type: ignore[arg-type]


def test_labels_outside_the_classes_are_refused(table: Predictions) -> None:
    with pytest.raises(DataError, match=r"Labels lie in 0 \.\. 2; got 0 \.\. 3"):
        dataclasses.replace(table, labels=np.where(np.arange(90) == 0, 3, table.labels))


def test_the_table_cannot_be_changed_by_hand_nor_by_its_source() -> None:
    source = np.zeros((2, 1, 2), dtype=np.float32)
    table = Predictions.from_arrays({"a": source[:, 0]}, [0, 1])
    source[:] = 9
    assert table.logits.max() == 0
    for array in (table.logits, table.labels, table.fold, table.groups, table.sample_ids):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]


def test_without_groups_each_sample_stands_for_itself_and_that_is_stamped() -> None:
    alone = Predictions.from_arrays({"a": np.zeros((3, 2))}, [0, 1, 0])
    assert (alone.n_groups, alone.group_kind) == (3, "image")
    grouped = Predictions.from_arrays({"a": np.zeros((3, 2))}, [0, 1, 0], groups=["p", "p", "q"])
    assert (grouped.n_groups, grouped.group_kind) == (2, "group")


def test_arrays_of_different_shapes_are_told_apart_by_name() -> None:
    with pytest.raises(DataError, match=r"got a \(3, 2\), b \(4, 2\)"):
        Predictions.from_arrays({"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, [0, 1, 0])


def test_selecting_keeps_the_order_asked_for(table: Predictions) -> None:
    picked = table.select(["member3", "member1"])
    assert picked.member_names == ("member3", "member1")
    assert np.array_equal(picked.logits, table.logits[:, [3, 1]])
    with pytest.raises(DataError, match=r"got 'membr1'\. Did you mean 'member1'\?"):
        table.select(["membr1"])


def test_class_names_may_be_an_array() -> None:
    named = Predictions.from_arrays(
        {"a": np.zeros((2, 2))}, [0, 1], class_names=np.array(["benign", "malignant"])
    )
    assert named.class_names == ("benign", "malignant")
    with pytest.raises(DataError, match="class_names has 0"):
        Predictions.from_arrays({"a": np.zeros((2, 2))}, [0, 1], class_names=np.array([]))


def test_rows_without_a_fold_are_no_fold_of_their_own(table: Predictions) -> None:
    fold = np.array(table.fold)
    fold[[4, 7]] = -1
    with pytest.raises(DataError, match=r"2 of 90 have none \(first: oof-4, oof-7\)"):
        dataclasses.replace(table, fold=fold)
    assert (dataclasses.replace(table, fold=np.full(90, -1)).fold == -1).all()
