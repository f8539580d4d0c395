"""Joined tables: by id and name, never by position; refused if a sample differs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ensemble_kit.combiners import make_combiner
from ensemble_kit.errors import DataError
from ensemble_kit.predictions.table import Predictions


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
def halves(table: Predictions) -> tuple[Predictions, Predictions]:
    return table.select(["member0", "member1"]), table.select(["member2", "member3"])


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
    # Joining by position gives another result.
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
    with pytest.raises(DataError):
        ours.join(dataclasses.replace(theirs, manifest_digest="n"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"class_names": ("class0", "class1", "class9")}, "class9"),
        ({"kind": "test"}, "oof by group and test by group"),
        ({"split_by": "image"}, "oof by group and oof by image"),
        ({"member_names": ("member0", "x")}, "member0"),
    ],
)
def test_different_tables_are_not_joined(
    halves: tuple[Predictions, Predictions], change: dict[str, object], named: str
) -> None:
    with pytest.raises(DataError, match=named) as caught:
        halves[0].join(dataclasses.replace(halves[1], **change))  # type: ignore[arg-type]
    assert caught.value.exit_code == 3


def test_samples_in_one_table_only_are_counted_and_named(
    halves: tuple[Predictions, Predictions],
) -> None:
    with pytest.raises(DataError, match="only: oof-0, oof-1"):
        halves[0].join(halves[1].take(np.arange(7, 90)))


@pytest.mark.parametrize("what", ["label", "group", "fold"])
def test_a_sample_with_another_label_group_or_fold_is_refused(
    halves: tuple[Predictions, Predictions], what: str
) -> None:
    ours, theirs = halves
    field = {"label": "labels", "group": "groups", "fold": "fold"}[what]
    values = np.array(getattr(theirs, field))
    values[5] = (int(values[5]) + 1) % 3 if what != "group" else "other"
    with pytest.raises(DataError, match=f"{what} differs"):
        ours.join(dataclasses.replace(theirs, **{field: values}))  # type: ignore[arg-type]
