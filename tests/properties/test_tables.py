"""Properties of tables and combiners: joins by name and id, independence of order, storage."""

from __future__ import annotations

import dataclasses
import tempfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ensemble_kit.combiners import combiner_class, make_combiner
from ensemble_kit.combiners.baselines import Oracle
from ensemble_kit.combiners.rules.voting import MajorityVote
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fit
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.predictions.store import MemberLogits, PredictionStore
from ensemble_kit.testing import toy_predictions

FEW = settings(max_examples=25, deadline=None)
VALUES = st.sampled_from([-30.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 30.0])
LOGITS = st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(2, 4)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=VALUES)
)
SYMMETRIC = ("mean", "vote", "mean-logits", "median", "trimmed-mean", "max", "min", "product")
SIMPLEX = ("simplex", "greedy")
FITTED = ("simplex", "greedy", "classwise", "logistic", "ridge", "temperature", "best-member")


@pytest.mark.parametrize("name", SYMMETRIC)
@FEW
@given(logits=LOGITS, seed=st.integers(0, 99))
def test_renaming_the_classes_renames_the_predictions(
    name: str, logits: np.ndarray, seed: int
) -> None:
    order = np.random.default_rng(seed).permutation(logits.shape[2])
    labels = np.zeros(len(logits), dtype=int)
    a = make_combiner(name).fit(logits, labels).combine(logits)
    b = make_combiner(name).fit(logits[:, :, order], labels).combine(logits[:, :, order])
    np.testing.assert_allclose(a.proba[:, order], b.proba, atol=1e-9)
    clear = ~(a.tied | b.tied)
    top = np.sort(a.proba, axis=1)
    clear &= top[:, -1] - top[:, -2] > 1e-9
    np.testing.assert_array_equal(a.predicted[clear], order[b.predicted[clear]])


@pytest.mark.parametrize("name", FITTED)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 99))
def test_fits_do_not_depend_on_the_order_of_members_samples_or_classes(
    name: str, seed: int
) -> None:
    table = toy_predictions(90, 3, 3, n_groups=30, seed=seed)
    rng = np.random.default_rng(seed)
    rows, members, classes = rng.permutation(90), rng.permutation(3), rng.permutation(3)
    renamed = np.argsort(classes)[table.labels[rows]]
    turned = table.logits[rows][:, members][:, :, classes]
    a = make_combiner(name).fit(table.logits, table.labels, table.groups)
    b = make_combiner(name).fit(turned, renamed, table.groups[rows])
    np.testing.assert_allclose(
        a.predict_proba(table.logits)[rows][:, classes], b.predict_proba(turned), atol=2e-3
    )


@pytest.mark.parametrize("name", SIMPLEX)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999), n_members=st.integers(1, 6), n_classes=st.integers(2, 4))
def test_weights_are_shares(name: str, seed: int, n_members: int, n_classes: int) -> None:
    table = toy_predictions(60, n_members, n_classes, seed=seed)
    weights = make_combiner(name).fit(table.logits, table.labels, table.groups).weights_
    assert (weights >= 0).all()
    assert weights.sum() == pytest.approx(1.0)


@FEW
@given(logits=LOGITS, seed=st.integers(0, 99))
def test_exactly_the_tied_votes_are_counted(logits: np.ndarray, seed: int) -> None:
    # Different offsets, so that no member has a tie.
    logits = logits + np.arange(logits.shape[2]) * 0.01
    out = MajorityVote().fit(logits, np.zeros(len(logits), dtype=int)).combine(logits)
    votes = np.stack([np.bincount(row, minlength=logits.shape[2]) for row in logits.argmax(axis=2)])
    tied = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1
    np.testing.assert_array_equal(out.tied, tied)
    assert out.n_ties == tied.sum()


@FEW
@given(logits=LOGITS, seed=st.integers(0, 999))
def test_the_oracle_is_at_least_every_member_and_gains_by_each(logits, seed: int) -> None:
    rng = np.random.default_rng(seed)
    n_samples, _, n_classes = logits.shape
    labels = rng.integers(0, n_classes, n_samples)

    def right(some: np.ndarray) -> np.ndarray:
        return Oracle().fit(some, labels).combine_with_labels(some, labels).predicted == labels

    always = 5.0 * np.eye(n_classes)[labels][:, None]
    another = rng.normal(size=(n_samples, 1, n_classes))
    alone = np.stack([right(logits[:, [m]]) for m in range(logits.shape[1])], axis=1)
    np.testing.assert_array_equal(right(logits), alone.any(axis=1))
    assert (right(np.concatenate([logits, another], axis=1)) >= right(logits)).all()
    assert right(np.concatenate([logits, always], axis=1)).all()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 999))
def test_metrics_do_not_depend_on_the_order_of_rows(seed: int) -> None:
    table = toy_predictions(80, 3, 3, n_groups=20, seed=seed)
    shuffled = table.take(np.random.default_rng(seed).permutation(80))
    found = []
    for one in (table, shuffled):
        methods = {"simplex": cross_fit(make_combiner("simplex"), one)}
        scored = score_methods(
            methods, np.asarray(one.labels), one.groups, 3,
            metrics=["accuracy", "log_loss", "auroc"],
        )  # fmt: skip
        found.append(
            [v for i in scored["simplex"].values.metrics.values() for v in dataclasses.astuple(i)]
        )
    assert found[0] == pytest.approx(found[1], abs=1e-4)


@FEW
@given(seed=st.integers(0, 999))
def test_tables_join_by_id_and_class_name(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = toy_predictions(40, 4, 3, seed=seed)
    left, right = table.select(table.member_names[:2]), table.select(table.member_names[2:])
    rows, classes = rng.permutation(40), rng.permutation(3)
    moved = right.take(rows)
    moved = dataclasses.replace(
        moved,
        logits=moved.logits[:, :, classes],
        labels=np.argsort(classes)[moved.labels],
        class_names=tuple(table.class_names[c] for c in classes),
    )
    joined = left.join(moved)
    np.testing.assert_array_equal(joined.logits, table.logits)
    assert joined.member_names == table.member_names
    assert joined.sample_ids.tolist() == table.sample_ids.tolist()


@settings(max_examples=15, deadline=None)
@given(
    logits=arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(2, 4)), elements=st.floats(-100, 100, width=32)),
    n_folds=st.integers(1, 3),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_stored_logits_are_read_back_unchanged(logits: np.ndarray, n_folds: int, seed: int) -> None:
    n_samples, n_classes = logits.shape
    gaps = np.random.default_rng(seed).random(n_samples) < 0.3
    oof = np.where(gaps[:, None], np.float32(np.nan), logits)
    stored = MemberLogits(
        oof=oof,
        test={k: logits + k for k in range(n_folds)},
        train_ids=tuple(f"träin {i}/ü" for i in range(n_samples)),
        test_ids=tuple(f"t{i}" for i in range(n_samples)),
        class_names=tuple(f"c{c}" for c in range(n_classes)),
        about={"folds_done": list(range(n_folds))},
    )
    with tempfile.TemporaryDirectory() as folder:
        store = PredictionStore(folder)
        store.write("a member", stored)
        back = store.read("a member")
    np.testing.assert_array_equal(back.oof, stored.oof)
    assert back.test.keys() == stored.test.keys()
    for k, array in stored.test.items():
        np.testing.assert_array_equal(back.test[k], array)
    assert (back.train_ids, back.test_ids) == (stored.train_ids, stored.test_ids)
    assert back.class_names == stored.class_names


def test_the_lists_agree_with_the_combiners() -> None:
    assert not any(combiner_class(name).is_fitted_to_labels for name in SYMMETRIC)
    assert all(combiner_class(name).is_fitted_to_labels for name in FITTED)
