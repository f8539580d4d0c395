"""Many small multi-layer perceptrons trained as one batched model: one per (fold, seed).

Each network has its own rows, order of rows and early stopping. Gradients: see `mlp_gradients`.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ensemble_kit.arrays import Array, Ints, softmax
from ensemble_kit.combiners.stacking.log_pool import pool_weights
from ensemble_kit.combiners.stacking.mlp_gradients import AdamW, Data, Weights, light
from ensemble_kit.errors import DataError


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Training settings of all networks."""

    hidden: int = 32
    epochs: int = 30
    batch_size: int = 256
    learning_rate: float = 5e-3
    weight_decay: float = 0.1
    patience: int = 6

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch (counted from 1): half a cosine."""
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / self.epochs))


@dataclasses.dataclass(frozen=True, eq=False)
class Networks:
    """K trained networks: softmax(pool . x + tanh(z W1 + b1) W2 + b2), z = (x - mean) / scale.

    The first n_members * C columns of x are the members' log-probabilities, each up to a constant;
    `pool . x` is their sum under the weights of a network, which it corrects.

    Shapes: `pool` (K, n_members); `mean, scale` (K, F); `w1` (K, F, H); `b1` (K, H); `w2` (K, H, C); `b2` (K, C);
    `best_epoch` (K,), 0 if no epoch was better than the start.
    """

    pool: Array
    mean: Array
    scale: Array
    w1: Array
    b1: Array
    w2: Array
    b2: Array
    best_epoch: Ints

    def take(self, networks: slice) -> Networks:
        """Some of the networks."""
        return Networks(
            **{f.name: getattr(self, f.name)[networks] for f in dataclasses.fields(self)}
        )

    def predict_proba(self, features: Array) -> Array:
        """The networks' mean probability, float64 of shape (n_samples, n_classes)."""
        total = np.zeros((len(features), self.b2.shape[1]))
        n_members, n_classes = self.pool.shape[1], self.b2.shape[1]
        members = features[:, : n_members * n_classes].reshape(-1, n_members, n_classes)
        for k in range(len(self.b2)):
            start = np.einsum("nmc,m->nc", members, self.pool[k])
            z = (features - self.mean[k]) / self.scale[k]
            hidden = np.tanh(z @ self.w1[k] + self.b1[k])
            total += softmax(start + hidden @ self.w2[k] + self.b2[k])
        return total / len(self.b2)


def train_batched(
    features: Array,
    labels: Ints,
    *,
    n_members: int,
    n_classes: int,
    fit_rows: list[Ints],
    stop_rows: list[Ints],
    seeds: list[int],
    schedule: Schedule,
) -> Networks:
    """Train one network per entry of `fit_rows`.

    The last layer starts at zero, so every network starts as the members' geometric mean with the
    weights of lowest log loss on its `fit_rows`. The epoch of lowest loss on its `stop_rows` is
    selected, including the start.

    Parameters
    ----------
    features : array, shape (n_samples, n_features)
        The members' log-probabilities (n_members * n_classes columns), then other features.
    labels : array of int, shape (n_samples,)
    fit_rows, stop_rows : list of K integer arrays
        Rows to fit, and rows of other groups for early stopping.
    seeds : list of K int

    Raises
    ------
    DataError
        Training diverged.
    """
    n_features, n_own = features.shape[1], n_members * n_classes
    members = features[:, :n_own].reshape(-1, n_members, n_classes)
    pool = np.stack([pool_weights(members[rows], labels[rows]) for rows in fit_rows])
    mean = np.stack([features[rows].mean(axis=0) for rows in fit_rows])
    scale = np.stack([np.maximum(features[rows].std(axis=0), 1e-3) for rows in fit_rows])
    rngs = [np.random.default_rng(seed) for seed in seeds]
    w1 = np.stack(
        [rng.normal(0.0, n_features**-0.5, (n_features, schedule.hidden)) for rng in rngs]
    )
    data = Data(light(features), labels, light(pool), light(mean), light(scale))
    weights = Weights.start(light(w1), n_classes)
    best, best_epoch = _trained(data, weights, fit_rows, stop_rows, rngs, schedule)
    return Networks(pool, mean, scale, *best.full(), best_epoch)


def _trained(
    data: Data,
    weights: Weights,
    fit_rows: list[Ints],
    stop_rows: list[Ints],
    rngs: list[np.random.Generator],
    schedule: Schedule,
) -> tuple[Weights, Ints]:
    """The weights of each network at its best epoch, and that epoch, shape (K,)."""
    optimizer = AdamW(schedule.weight_decay, weights.zeros(), weights.zeros())
    stop, stop_share = _padded(stop_rows)
    best_loss = data.losses(weights, stop, stop_share)
    best, best_epoch = weights.copy(), np.zeros(len(fit_rows), dtype=np.int64)
    n_steps = -(-max(map(len, fit_rows)) // schedule.batch_size)
    for epoch in range(1, schedule.epochs + 1):
        rate = schedule.rate(epoch)
        order = _epoch_order(fit_rows, n_steps, schedule.batch_size, rngs)
        for step in range(n_steps):
            optimizer.step(weights, data.gradient(weights, order[:, step]), rate)
        # Select this epoch for the networks whose loss on held-out groups fell.
        now = data.losses(weights, stop, stop_share)
        better = now < best_loss - 1e-7
        best.replace(better, weights)
        best_loss = np.where(better, now, best_loss)
        best_epoch = np.where(better, epoch, best_epoch)
        if epoch - best_epoch.max() >= schedule.patience:
            break
    if not np.isfinite(best_loss).all():
        raise DataError(
            f"The loss of the stacker is {best_loss}",
            "it must be a finite number",
            "Check the members' logits for extreme values",
        )
    return best, best_epoch


def _padded(rows: list[Ints]) -> tuple[Ints, Array]:
    """Row lists of unequal length as one array, with weights that average each list alone."""
    longest = max(map(len, rows))
    index = np.zeros((len(rows), longest), dtype=np.int64)
    weight = np.zeros((len(rows), longest))
    for k, some in enumerate(rows):
        index[k, : len(some)] = some
        weight[k, : len(some)] = 1.0 / len(some)
    return index, weight


def _epoch_order(
    fit_rows: list[Ints], n_steps: int, batch_size: int, rngs: list[np.random.Generator]
) -> Ints:
    """Shuffled rows of each network, shape (K, n_steps, B); shorter lists are repeated."""
    size = min(batch_size, max(map(len, fit_rows)))
    return np.stack(
        [
            np.resize(rng.permutation(rows), n_steps * size).reshape(n_steps, size)
            for rows, rng in zip(fit_rows, rngs, strict=True)
        ]
    )
