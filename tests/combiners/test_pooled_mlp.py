"""The published MLP on pooled features: layers, gradients, and inputs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ensemble_kit.combiners.stacking.dense_network import EPSILON, DenseNetwork, train_dense
from ensemble_kit.combiners.stacking.pooled_mlp import PooledMLP
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fit
from ensemble_kit.evaluation.runs.stack_run import all_methods
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.testing import toy_predictions


@pytest.fixture
def oof() -> Predictions:
    table = toy_predictions(480, 2, 3, n_groups=96, n_features=6)
    noise = np.random.default_rng(7).normal(size=table.logits.shape)
    return dataclasses.replace(table, logits=noise)


def test_its_layers_are_those_of_the_publication(oof: Predictions) -> None:
    fitted = PooledMLP(epochs=1).fit_to(oof)
    assert isinstance(fitted, PooledMLP)
    # Two members of six features, 128, 32, three classes; a network per fold.
    assert len(fitted.networks_) == 4
    for one in fitted.networks_:
        assert [w.shape for w in one.weights] == [(12, 128), (128, 32), (32, 3)]
        assert [b.shape for b in one.biases] == [(128,), (32,), (3,)]
        assert one.gain.shape == one.shift.shape == (12,)
    assert fitted.dropout == 0.2


def test_its_gradients_are_those_of_torch() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(2, 3, (9, 5)).astype(np.float32)
    labels = np.arange(9) % 3
    network = DenseNetwork.start(rows, (8, 4, 3), rng)
    network.gain[:] = rng.uniform(0.5, 2, 5)
    network.shift[:] = rng.normal(size=5)
    mask = (rng.random((9, 5)) >= 0.2).astype(np.float32) / np.float32(0.8)
    leaves = [torch.tensor(one, requires_grad=True) for one in network.learnt]
    gain, shift, w0, w1, w2, b0, b1, b2 = leaves
    x = torch.nn.functional.batch_norm(
        torch.tensor(rows), None, None, gain, shift, training=True, eps=EPSILON
    )
    x = torch.relu(torch.relu((x * torch.tensor(mask)) @ w0 + b0) @ w1 + b1) @ w2 + b2
    torch.nn.functional.cross_entropy(x, torch.tensor(labels)).backward()
    for found, leaf in zip(network.gradient(rows, labels, mask), leaves, strict=True):
        assert leaf.grad is not None
        np.testing.assert_allclose(found, leaf.grad.numpy(), atol=2e-6)


def test_dropout_and_epochs_change_the_trained_network() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 6)).astype(np.float32)
    labels = (rows[:, 0] > 0).astype(np.int64)

    def trained(dropout: float, epochs: int) -> DenseNetwork:
        return train_dense(
            rows, labels, sizes=(8, 2), dropout=dropout, epochs=epochs, learning_rate=1e-2, seed=1
        )

    def loss(one: DenseNetwork) -> float:
        return float(-np.log(one.predict_proba(rows)[np.arange(40), labels]).mean())

    assert not np.allclose(trained(0.0, 5).weights[0], trained(0.5, 5).weights[0])
    assert loss(trained(0.0, 30)) < 0.2 < loss(trained(0.0, 1))


def test_it_uses_features_and_ignores_logits(oof: Predictions) -> None:
    found = cross_fit(PooledMLP(epochs=15), oof)
    assert (found.predicted == oof.labels).mean() > 0.85
    other = dataclasses.replace(oof, logits=oof.logits[::-1] * 3)
    np.testing.assert_array_equal(cross_fit(PooledMLP(epochs=15), other).proba, found.proba)


def test_it_is_never_replaced_by_the_mean_and_not_part_of_all() -> None:
    assert not PooledMLP().can_fall_back
    assert "pooled-mlp" not in all_methods(3, features=True)
