"""The feature-fusion stacker: it uses the information of features, and never mixes spaces."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ensemble_kit.combiners.rules.averaging import MeanLogits, MeanProba
from ensemble_kit.combiners.saved import load_combiner, save_combiner
from ensemble_kit.combiners.stacking.feature_combiner import FeatureCombiner, crossing_folds
from ensemble_kit.combiners.stacking.feature_mlp import FeatureMLP
from ensemble_kit.combiners.stacking.pca import principal_axes
from ensemble_kit.combiners.stacking.pooled_mlp import PooledMLP
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fit
from ensemble_kit.evaluation.evaluate import evaluate, evaluate_all
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.predictions.features import PooledFeatures
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.testing import toy_predictions

QUICK = Protocol(n_resamples=100)


def blind_logits(table: Predictions) -> Predictions:
    """The same table with logits that are independent of the labels."""
    noise = np.random.default_rng(7).normal(size=table.logits.shape)
    return dataclasses.replace(table, logits=noise)


def small() -> FeatureMLP:
    return FeatureMLP(n_networks=2, components=6)


@pytest.fixture
def oof() -> Predictions:
    return blind_logits(toy_predictions(480, 2, 3, n_groups=96, n_features=6))


@pytest.fixture
def test() -> Predictions:
    return blind_logits(toy_predictions(240, 2, 3, n_groups=48, n_features=6, kind="test", seed=3))


def test_it_uses_information_that_only_features_have(oof: Predictions, test: Predictions) -> None:
    evaluated = evaluate_all({"feature-mlp": small()}, oof, test, protocol=QUICK)
    found, mean = evaluated["feature-mlp"], evaluated["mean"]
    assert not found.fell_back
    for part in ("cross_fitted", "test"):
        assert found.parts[part]["accuracy"].value > 0.9
        assert mean.parts[part]["accuracy"].value < 0.45
    assert any("own feature space" in note for note in found.notes)


def test_networks_over_mixed_spaces_are_much_worse(oof: Predictions, test: Predictions) -> None:
    """The same features, all marked as one space."""
    assert oof.features is not None
    mixed = PooledFeatures(oof.features.values, np.zeros_like(oof.features.spaces))
    own = cross_fit(small(), oof).predicted == oof.labels
    wrong = cross_fit(small(), dataclasses.replace(oof, features=mixed)).predicted == oof.labels
    assert own.mean() > wrong.mean() + 0.1
    assert test.features is not None


def test_it_is_at_chance_on_permuted_labels(oof: Predictions) -> None:
    labels = np.random.default_rng(1).permutation(oof.labels)
    permuted = dataclasses.replace(oof, labels=labels)
    hits = cross_fit(small(), permuted).predicted == labels
    # 480 rows at 1/3: five standard errors are 0.108.
    assert abs(hits.mean() - 1 / 3) < 0.108
    found = evaluate(small(), permuted, protocol=QUICK)
    assert found.cross_fitted["log_loss"].value < mean_log_loss(permuted) + 0.05


def mean_log_loss(table: Predictions) -> float:
    proba = MeanProba().fit(table.logits, table.labels).predict_proba(table.logits)
    return float(-np.log(proba[np.arange(len(table)), table.labels]).mean())


def test_a_row_is_evaluated_by_fits_that_saw_neither_its_group_nor_its_label(
    oof: Predictions,
) -> None:
    before = cross_fit(small(), oof).proba
    hidden = oof.groups == oof.groups[0]
    labels = np.where(hidden, (oof.labels + 1) % 3, oof.labels)
    after = cross_fit(small(), dataclasses.replace(oof, labels=labels)).proba
    # Labels decide the assignment of groups to folds, but only within their own space.
    assert oof.features is not None
    other_spaces = oof.fold != oof.fold[0]
    np.testing.assert_array_equal(before[other_spaces], after[other_spaces])
    fold = crossing_folds(oof.labels, oof.groups, oof.features.spaces[:, 0])
    for group in np.unique(oof.groups):
        assert len(np.unique(fold[oof.groups == group])) == 1


def test_predictions_in_a_space_depend_only_on_its_rows(oof: Predictions) -> None:
    fitted = small().fit_to(oof)
    assert oof.features is not None
    ours = oof.fold == 0
    values = tuple(np.where(ours[:, None, None], v, 1e3 * v) for v in oof.features.values)
    labels = np.where(ours, oof.labels, 0)
    changed = dataclasses.replace(
        oof, labels=labels, features=PooledFeatures(values, oof.features.spaces)
    )
    again = small().fit_to(changed)
    rows = oof.take(ours)
    # Networks are trained in one batch, so they may stop at slightly different epochs.
    np.testing.assert_allclose(again.apply(rows).proba, fitted.apply(rows).proba, atol=0.02)


@pytest.mark.parametrize("combiner", [small(), PooledMLP(epochs=2)], ids=["feature", "pooled"])
def test_a_test_row_is_the_mean_over_the_spaces(
    oof: Predictions, test: Predictions, combiner: FeatureCombiner
) -> None:
    fitted = combiner.fit_to(oof)
    features = test.features
    assert features is not None
    alone = [
        fitted.predict_proba(
            test.logits,
            PooledFeatures(tuple(v[:, [k]] for v in features.values), features.spaces[:, [k]]),
        )
        for k in range(4)
    ]
    np.testing.assert_allclose(fitted.apply(test).proba, np.mean(alone, axis=0), atol=1e-12)


def test_a_saved_combiner_predicts_the_same_test_rows(
    oof: Predictions, test: Predictions, tmp_path: Path
) -> None:
    fitted = small().fit_to(oof)
    save_combiner(tmp_path, fitted)
    np.testing.assert_array_equal(
        load_combiner(tmp_path).apply(test).proba, fitted.apply(test).proba
    )


def test_spaces_of_one_group_predict_the_members_mean(tmp_path: Path) -> None:
    table = toy_predictions(120, 3, 3, n_groups=4, n_folds=4, n_features=6)
    mean = MeanLogits().fit(table.logits, table.labels).predict_proba(table.logits)
    fitted = small().fit_to(table)
    np.testing.assert_allclose(fitted.apply(table).proba, mean, atol=1e-3)
    np.testing.assert_allclose(cross_fit(small(), table).proba, mean, atol=1e-3)
    save_combiner(tmp_path, fitted)
    np.testing.assert_allclose(load_combiner(tmp_path).apply(table).proba, mean, atol=1e-3)


def test_principal_axes_are_those_of_the_singular_value_decomposition() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 80)) * 0.9 ** np.arange(80)
    centre, axes = principal_axes(rows, 5)
    _, _, exact = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(centre, rows.mean(axis=0))
    np.testing.assert_allclose(np.abs(exact[:3] @ axes[:, :3]), np.eye(3), atol=0.02)
    np.testing.assert_allclose(axes.T @ axes, np.eye(5), atol=1e-12)


# -- errors --------------------------------------------------------------------------------


def test_logits_alone_are_refused(oof: Predictions) -> None:
    bare = dataclasses.replace(oof, features=None)
    with pytest.raises(UsageError, match="--keep-features"):
        small().fit_to(bare)
    with pytest.raises(UsageError, match="--keep-features"):
        small().fit_to(oof).apply(bare)


def test_test_rows_are_not_fitted_to(test: Predictions) -> None:
    with pytest.raises(DataError, match="of 4"):
        small().fit_to(test)


def test_features_of_other_rows_or_widths_are_refused(oof: Predictions) -> None:
    fitted = small().fit_to(oof)
    features = oof.features
    assert isinstance(fitted, FeatureMLP)
    assert features is not None
    with pytest.raises(DataError, match="10 rows of 2 members"):
        fitted.combine(oof.logits, features.take(np.arange(10)))
    narrow = PooledFeatures(tuple(v[:, :, :4] for v in features.values), features.spaces)
    with pytest.raises(DataError, match=r"4, 4.*6, 6"):
        fitted.combine(oof.logits, narrow)
    with pytest.raises(DataError, match="1 row of"):
        dataclasses.replace(oof, features=features.take([0]))
    broken = features.values[0].copy()
    broken[3] = np.nan
    with pytest.raises(DataError, match="1 of 1 members"):
        PooledFeatures((broken,), features.spaces)


def test_features_are_selected_with_rows_and_members(oof: Predictions) -> None:
    assert oof.features is not None
    part = oof.take([5, 3]).select(["member1"])
    assert part.features is not None
    np.testing.assert_array_equal(part.features.values[0], oof.features.values[1][[5, 3]])
    np.testing.assert_array_equal(part.features.spaces[:, 0], oof.fold[[5, 3]])
    first, second = oof.select(["member0"]), oof.select(["member1"])
    turned = second.take(np.arange(len(oof))[::-1])
    joined = first.join(turned)
    assert joined.features is not None
    np.testing.assert_array_equal(joined.features.values[1], oof.features.values[1])
    assert first.join(dataclasses.replace(turned, features=None)).features is None
