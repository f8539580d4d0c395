"""The multi-layer perceptron stacker: networks over all members' logits, averaged over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, group_numbers
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.inner_folds import inner_folds
from ensemble_kit.combiners.log_proba import flat_features
from ensemble_kit.combiners.stacking.mlp_training import Networks, Schedule, train_batched
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.seeding import derive_seed, generator


class MLPStacker(Combiner):
    """Small networks that correct the members' pooled log-probability, averaged over seeds.

    Each network starts from the members' geometric mean with weights of lowest log loss. Logits are
    centred per member, and standardised per feature. Training stops early: the epoch of lowest loss
    on held-out groups is selected, or the start if no epoch is better.

    Parameters
    ----------
    seed : int
    n_networks : int
        Networks averaged; each has its own seed and its own inner hold-out.
    hidden : int
        Units of the hidden layer.
    epochs : int
        Maximum number of epochs.
    weight_decay : float

    References
    ----------
    Wolpert, D. H. (1992). Stacked generalization. Neural Networks 5(2), 241-259.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(60) % 2
    >>> logits = rng.normal(size=(60, 3, 2)) + 2.0 * np.eye(2)[labels][:, None]
    >>> MLPStacker(seed=0, epochs=3).fit(logits, labels).predict_proba(logits).shape
    (60, 2)
    """

    is_fitted_to_labels = True
    ignores_member_order = False

    def __init__(
        self,
        seed: int = 0,
        n_networks: int = 4,
        hidden: int = 32,
        epochs: int = 30,
        weight_decay: float = 0.1,
    ) -> None:
        self.seed = seed
        self.n_networks = n_networks
        self.hidden = hidden
        self.epochs = epochs
        self.weight_decay = weight_decay

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:
        self.networks_ = self._train(logits, labels, groups, [np.arange(len(labels))])

    def fit_many(
        self,
        logits: npt.ArrayLike,
        labels: npt.ArrayLike,
        groups: npt.ArrayLike | None,
        row_sets: Sequence[Ints],
    ) -> list[Self]:
        """One fitted copy per set of rows: all folds and seeds in one batched training."""
        checked, truth, units = self._inputs(logits, labels, groups)
        trained = self._train(checked, truth, units, row_sets)
        copies = []
        for i in range(len(row_sets)):
            copy = self.fresh()
            copy._note_shape(checked)
            copy.networks_ = trained.take(slice(i * self.n_networks, (i + 1) * self.n_networks))
            copies.append(copy)
        return copies

    def _train(
        self, logits: Array, labels: Ints, groups: Ints, row_sets: Sequence[Ints]
    ) -> Networks:
        fit_rows, stop_rows, seeds = [], [], []
        for rows in row_sets:
            for j, (learn, stop) in enumerate(
                inner_stops(labels[rows], groups[rows], self.n_networks, self.seed)
            ):
                fit_rows.append(rows[learn])
                stop_rows.append(rows[stop])
                seeds.append(derive_seed(self.seed, "mlp", j))
        return train_batched(
            flat_features(logits),
            labels,
            n_members=logits.shape[1],
            n_classes=logits.shape[2],
            fit_rows=fit_rows,
            stop_rows=stop_rows,
            seeds=seeds,
            schedule=Schedule(
                hidden=self.hidden, epochs=self.epochs, weight_decay=self.weight_decay
            ),
        )

    def _combine(self, logits: Array) -> Combined:
        return decided(self.networks_.predict_proba(flat_features(logits)))

    def state(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """The networks' arrays."""
        plain, _ = super().state()
        return plain, dict(vars(self.networks_))

    def restore(self, plain: dict[str, Any], arrays: dict[str, Array]) -> Self:
        """Restore the values of `state`."""
        super().restore(plain, {})
        self.networks_ = Networks(**arrays)
        return self


def inner_stops(labels: Ints, groups: Ints, n_networks: int, seed: int) -> list[tuple[Ints, Ints]]:
    """Rows to fit, and rows of other groups for early stopping, for each network."""
    numbered = group_numbers(groups)
    n_splits = min(5, int(numbered.max()) + 1)
    everything = np.arange(len(labels))
    if n_splits < 2:  # one group: no held-out rows
        return [(everything, everything)] * n_networks
    pairs = []
    for j in range(n_networks):
        fold = inner_folds(labels, numbered, n_splits, generator(seed, "inner", j // n_splits))
        pairs.append((everything[fold != j % n_splits], everything[fold == j % n_splits]))
    return pairs
