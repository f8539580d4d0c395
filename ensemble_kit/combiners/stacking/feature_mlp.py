"""The feature-fusion stacker: networks over all members' pooled features and logits."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ensemble_kit.arrays import Array, Ints
from ensemble_kit.combiners.log_proba import flat_features
from ensemble_kit.combiners.stacking.feature_combiner import FeatureCombiner, learnable_spaces
from ensemble_kit.combiners.stacking.mlp import inner_stops
from ensemble_kit.combiners.stacking.mlp_training import Networks, Schedule, train_batched
from ensemble_kit.combiners.stacking.pca import principal_axes
from ensemble_kit.predictions.features import PooledFeatures
from ensemble_kit.seeding import derive_seed


class FeatureMLP(FeatureCombiner):
    """Small networks over members' pooled features and logits, separate for the models of each fold.

    The models of two folds have different feature spaces. Each space therefore has its own networks,
    fitted to the held-out images of that fold. An out-of-fold row is predicted in its own space; a
    test row has features in every space, and its prediction is the mean over them. Each network is
    fitted to 1 / n_folds of the rows, so it needs more images than `MLPStacker`. Features of training
    rows (as in the paper) or maps between spaces would leak labels.

    In each space the members' features are reduced to their principal components, standardised,
    and joined to the centred log-probabilities. As in `MLPStacker`, the networks correct the
    members' pooled log-probability, with early stopping on other groups.

    Parameters
    ----------
    seed : int
    n_networks : int
        Networks averaged in each space.
    hidden : int
        Units of the hidden layer.
    components : int
        Maximum number of principal components of each member's features.
    epochs : int
        Maximum number of epochs.
    weight_decay : float

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
    >>> FeatureMLP(epochs=3).fit(logits, labels, features=pooled).predict_proba(logits, pooled).shape
    (80, 2)
    """

    def __init__(
        self,
        seed: int = 0,
        n_networks: int = 4,
        hidden: int = 32,
        components: int = 16,
        epochs: int = 60,
        weight_decay: float = 0.1,
    ) -> None:
        self.seed = seed
        self.n_networks = n_networks
        self.hidden = hidden
        self.components = components
        self.epochs = epochs
        self.weight_decay = weight_decay

    def _fit_on(self, logits: Array, labels: Ints, groups: Ints, features: PooledFeatures) -> None:
        space = features.spaces[:, 0]
        # A space of one group has no held-out rows for early stopping; the members' mean is used.
        self.spaces_ = learnable_spaces(groups, space)
        rows_of = [np.flatnonzero(space == k) for k in self.spaces_]
        self.axes_ = [
            [
                principal_axes(one[rows, 0].astype(np.float64), self.components, seed=self.seed)
                for one in features.values
            ]
            for rows in rows_of
        ]
        if not len(self.spaces_):
            self.networks_ = _no_networks()
            return
        inputs = self._inputs_of(logits, features, rows_of)
        fit_rows, stop_rows, seeds = [], [], []
        for k, rows in zip(self.spaces_, rows_of, strict=True):
            pairs = inner_stops(labels[rows], groups[rows], self.n_networks, self.seed)
            for j, (learn, stop) in enumerate(pairs):
                fit_rows.append(rows[learn])
                stop_rows.append(rows[stop])
                seeds.append(derive_seed(self.seed, "feature-mlp", int(k), j))
        self.networks_ = train_batched(
            inputs,
            labels,
            n_members=logits.shape[1],
            n_classes=logits.shape[2],
            fit_rows=fit_rows,
            stop_rows=stop_rows,
            seeds=seeds,
            schedule=Schedule(
                hidden=self.hidden,
                epochs=self.epochs,
                batch_size=64,
                weight_decay=self.weight_decay,
                patience=12,
            ),
        )

    def _inputs_of(self, logits: Array, features: PooledFeatures, rows_of: list[Ints]) -> Array:
        """Inputs of the networks of each row's own space, shape (n_samples, n_inputs)."""
        inputs = np.zeros((len(logits), self._width(logits)))
        for s, rows in enumerate(rows_of):
            inputs[rows] = self._in_space(
                s, logits[rows], [one[rows, 0] for one in features.values]
            )
        return inputs

    def _width(self, logits: Array) -> int:
        return logits.shape[1] * (logits.shape[2] + self.components)

    def _in_space(self, s: int, logits: Array, features: list[Array]) -> Array:
        """Log-probabilities and principal components; fewer components are padded with zeros."""
        parts = [flat_features(logits)]
        for (centre, axes), one in zip(self.axes_[s], features, strict=True):
            projected = (one.astype(np.float64) - centre) @ axes
            missing = self.components - projected.shape[1]
            parts.append(np.pad(projected, ((0, 0), (0, missing))))
        return np.concatenate(parts, axis=1)

    def _predict_in(self, space: int, logits: Array, features: list[Array]) -> Array | None:
        found = np.flatnonzero(self.spaces_ == space)
        if not len(found):
            return None
        s = int(found[0])
        own = self.networks_.take(slice(s * self.n_networks, (s + 1) * self.n_networks))
        return own.predict_proba(self._in_space(s, logits, features))

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """The spaces, their axes and the networks' arrays."""
        plain, _ = super().state()
        arrays = {"spaces": self.spaces_, **vars(self.networks_)}
        for s, members in enumerate(self.axes_):
            for m, (centre, axes) in enumerate(members):
                arrays[f"centre.{s}.{m}"], arrays[f"axes.{s}.{m}"] = centre, axes
        return plain, arrays

    def restore(self, plain: dict[str, Any], arrays: dict[str, Array]) -> Self:
        """Restore the values of `state`."""
        super().restore(plain, {})
        own = {k: v for k, v in arrays.items() if "." not in k and k != "spaces"}
        self.spaces_, self.networks_ = arrays["spaces"], Networks(**own)
        self.axes_ = [
            [(arrays[f"centre.{s}.{m}"], arrays[f"axes.{s}.{m}"]) for m in range(self.n_members_)]
            for s in range(len(self.spaces_))
        ]
        return self


def _no_networks() -> Networks:
    none = np.zeros(0)
    return Networks(none, none, none, none, none, none, none, np.zeros(0, dtype=np.int64))
