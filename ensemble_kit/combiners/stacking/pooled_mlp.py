"""The MLP of a published ensemble: dense layers over all members' pooled features, without logits."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ensemble_kit.arrays import Array, Ints
from ensemble_kit.combiners.stacking.dense_network import DenseNetwork, train_dense
from ensemble_kit.combiners.stacking.feature_combiner import FeatureCombiner, learnable_spaces
from ensemble_kit.predictions.features import PooledFeatures
from ensemble_kit.seeding import derive_seed


class PooledMLP(FeatureCombiner):
    """Batch normalisation, dropout .2, dense layers of 128, 32 and n_classes on pooled features.

    The layers are those of a published ensemble of ten EfficientNets. It is included for comparison:
    it has many weights, no early stopping, and is never replaced by the mean. The publication uses
    features of images that its members were trained on. Here the models of each fold have their own
    network, fitted to the held-out images of that fold, as in `FeatureMLP`.

    Parameters
    ----------
    seed : int
    epochs : int
        Number of epochs.
    learning_rate : float

    References
    ----------
    The feature-fusion MLP of an ensemble of ten EfficientNets on BreakHis, Scientific Reports 15
    (July 2025), there over features of one training split.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels, fold = np.arange(80) % 2, np.arange(80) // 40
    >>> logits = rng.normal(size=(80, 3, 2))
    >>> values = [rng.normal(size=(80, 1, 6)) + labels[:, None, None] for _ in range(3)]
    >>> pooled = PooledFeatures(tuple(values), fold[:, None])
    >>> PooledMLP(epochs=3).fit(logits, labels, features=pooled).predict_proba(logits, pooled).shape
    (80, 2)
    """

    hidden = (128, 32)
    dropout = 0.2

    def __init__(self, seed: int = 0, epochs: int = 30, learning_rate: float = 1e-3) -> None:
        self.seed = seed
        self.epochs = epochs
        self.learning_rate = learning_rate

    @property
    def can_fall_back(self) -> bool:
        """False: a published method is evaluated unchanged."""
        return False

    def _fit_on(self, logits: Array, labels: Ints, groups: Ints, features: PooledFeatures) -> None:
        space = features.spaces[:, 0]
        self.spaces_ = learnable_spaces(groups, space)
        self.networks_ = []
        for k in self.spaces_:
            rows = np.flatnonzero(space == k)
            self.networks_.append(
                train_dense(
                    _side_by_side([one[rows, 0] for one in features.values]),
                    labels[rows],
                    sizes=(*self.hidden, logits.shape[2]),
                    dropout=self.dropout,
                    epochs=self.epochs,
                    learning_rate=self.learning_rate,
                    seed=derive_seed(self.seed, "pooled-mlp", int(k)),
                )
            )

    def _predict_in(self, space: int, logits: Array, features: list[Array]) -> Array | None:  # noqa: ARG002
        found = np.flatnonzero(self.spaces_ == space)
        if not len(found):
            return None
        return self.networks_[int(found[0])].predict_proba(_side_by_side(features))

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """The spaces and the networks' arrays."""
        plain, _ = super().state()
        arrays: dict[str, Array] = {"spaces": self.spaces_}
        for s, one in enumerate(self.networks_):
            for name, array in zip(_names(len(one.weights)), _arrays(one), strict=True):
                arrays[f"{name}.{s}"] = array
        return plain, arrays

    def restore(self, plain: dict[str, Any], arrays: dict[str, Array]) -> Self:
        """Restore the values of `state`."""
        super().restore(plain, {})
        self.spaces_ = arrays["spaces"]
        n = len(self.hidden) + 1
        self.networks_ = []
        for s in range(len(self.spaces_)):
            mean, scale, gain, shift, *rest = [arrays[f"{name}.{s}"] for name in _names(n)]
            self.networks_.append(DenseNetwork(mean, scale, gain, shift, rest[:n], rest[n:]))
        return self


def _side_by_side(features: list[Array]) -> Any:
    return np.concatenate(features, axis=1).astype(np.float32)


def _names(n_layers: int) -> list[str]:
    layers = range(n_layers)
    return [
        "mean",
        "scale",
        "gain",
        "shift",
        *(f"w{k}" for k in layers),
        *(f"b{k}" for k in layers),
    ]


def _arrays(one: DenseNetwork) -> list[Any]:
    return [one.mean, one.scale, *one.learnt]
