"""Gradient-boosted trees over all members' log-probabilities, with early stopping on held-out groups.

Fitted by scikit-learn and stored as plain arrays, so that prediction needs numpy only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ensemble_kit.arrays import Array, Ints, group_numbers, log_softmax, softmax
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.inner_folds import inner_folds
from ensemble_kit.combiners.log_proba import flat_features, with_absent_classes
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.seeding import derive_seed, generator

# Finer bins double the time of a fit of a few thousand images, and the log loss stays the same.
N_BINS = 64
# The search ends after PATIENCE rounds without a lower loss; STEP rounds are fitted at a time.
PATIENCE, STEP = 20, 20


class BoostingStacker(Combiner):
    """Histogram gradient boosting; the number of rounds is chosen on an inner group split.

    Parameters
    ----------
    n_rounds : int
        Maximum number of rounds.
    learning_rate : float
    max_leaves : int
    seed : int

    References
    ----------
    Friedman, J. H. (2001). Greedy function approximation: a gradient boosting machine. Annals of
    Statistics 29(5), 1189-1232.

    Examples
    --------
    >>> labels = np.arange(80) % 2
    >>> logits = np.eye(2)[labels][:, None] * np.ones((80, 3, 1))
    >>> BoostingStacker(n_rounds=10).fit(logits, labels).score(logits, labels)
    1.0
    """

    is_fitted_to_labels = True
    ignores_member_order = False
    fitted_names = ("nodes_", "starts_", "baseline_", "present_")

    def __init__(
        self, n_rounds: int = 100, learning_rate: float = 0.1, max_leaves: int = 8, seed: int = 0
    ) -> None:
        self.n_rounds = n_rounds
        self.learning_rate = learning_rate
        self.max_leaves = max_leaves
        self.seed = seed

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:
        x = _features(logits)
        self.present_ = np.unique(labels)
        if len(self.present_) == 1:
            self.nodes_, self.starts_ = np.zeros((0, 6)), np.zeros((0, 1), dtype=np.int64)
            self.baseline_ = np.zeros(1)
            return
        rounds = self._rounds(x, labels, groups)
        model = self._model(rounds).fit(x, labels)
        self.baseline_ = _baseline(model)
        self.nodes_, self.starts_ = _plain_trees(model._predictors)

    def _rounds(self, x: Array, labels: Ints, groups: Ints) -> int:
        numbered = group_numbers(groups)
        n_splits = min(4, int(numbered.max()) + 1)
        if n_splits < 2:
            return max(1, self.n_rounds // 4)
        fold = inner_folds(labels, numbered, n_splits, generator(self.seed, "boosting"))
        learn, held_out = fold != 0, fold == 0
        if len(np.unique(labels[learn])) < len(self.present_):
            return max(1, self.n_rounds // 4)
        column = np.searchsorted(self.present_, labels[held_out])
        return self._best_round(x[learn], labels[learn], x[held_out], column)

    def _best_round(self, x: Array, labels: Ints, x_held_out: Array, column: Ints) -> int:
        """The number of rounds of lowest log loss on held-out rows."""
        model, losses = self._model(STEP).set_params(warm_start=True), [np.inf]
        raw: Array = np.empty((0, 0))
        while len(losses) <= self.n_rounds and len(losses) - np.argmin(losses) <= PATIENCE:
            n_done = len(losses) - 1
            model.set_params(max_iter=min(n_done + STEP, self.n_rounds)).fit(x, labels)
            if not n_done:
                raw = np.tile(_baseline(model), (len(x_held_out), 1))
            nodes, starts = _plain_trees(model._predictors[n_done:])
            for of_round in starts:
                _add_leaves(raw, nodes, of_round, x_held_out)
                losses.append(_log_loss(raw, column))
        return int(np.argmin(losses))

    def _model(self, n_rounds: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier

        return HistGradientBoostingClassifier(
            max_iter=n_rounds,
            learning_rate=self.learning_rate,
            max_leaf_nodes=self.max_leaves,
            max_bins=N_BINS,
            early_stopping=False,
            random_state=derive_seed(self.seed, "trees") % 2**32,
        )

    def _combine(self, logits: Array) -> Combined:
        x = _features(logits)
        scores = np.zeros((len(x), logits.shape[2]))
        raw = np.tile(self.baseline_, (len(x), 1))
        for starts in self.starts_:
            _add_leaves(raw, self.nodes_, starts, x)
        if raw.shape[1] == 1:  # two classes have one score; a single class has none
            scores[:, self.present_[0]] = 0.0
            if len(self.present_) == 2:
                scores[:, self.present_[1]] = raw[:, 0]
        else:
            scores[:, self.present_] = raw
        return decided(with_absent_classes(softmax(scores), logits, self.present_))


def _features(logits: Array) -> Array:
    """Rounded features: a bin edge can equal a value, so last bits must not change the bin."""
    return np.round(flat_features(logits), 9)


def _baseline(model: Any) -> Array:
    """Scores before the first round, shape (n_scores,)."""
    return np.atleast_1d(np.squeeze(np.asarray(model._baseline_prediction, dtype=np.float64)))


def _add_leaves(raw: Array, nodes: Array, starts: Ints, x: Array) -> None:
    """Add the trees of one round to the scores, shape (n_samples, n_scores), in place."""
    for k, start in enumerate(starts):
        raw[:, k] += _leaf_values(nodes, int(start), x)


def _log_loss(raw: Array, column: Ints) -> float:
    """Mean log loss; two classes have one score."""
    scores = np.column_stack([np.zeros(len(raw)), raw]) if raw.shape[1] == 1 else raw
    picked = log_softmax(scores)[np.arange(len(column)), column]
    return float(-np.maximum(picked, np.log(1e-15)).mean())


def _plain_trees(predictors: list[list[Any]]) -> tuple[Array, Array]:
    """Nodes of all trees (value, feature, threshold, left, right, is leaf), and the first node of each
    tree, shape (n_rounds, n_scores)."""
    nodes, starts, at = [], [], 0
    for stage in predictors:
        row = []
        for tree in stage:
            n = tree.nodes
            fields = ("value", "feature_idx", "num_threshold", "left", "right", "is_leaf")
            nodes.append(np.stack([n[name].astype(np.float64) for name in fields], axis=1))
            row.append(at)
            at += len(n)
        starts.append(row)
    return np.concatenate(nodes), np.array(starts, dtype=np.int64)


def _leaf_values(nodes: Array, start: int, x: Array) -> Array:
    """The value of the leaf that each row falls into, shape (n_samples,)."""
    at = np.full(len(x), start)
    rows = np.arange(len(x))
    while True:
        inner = nodes[at, 5] == 0
        if not inner.any():
            return np.asarray(nodes[at, 0])
        here, some = at[inner], rows[inner]
        left = x[some, nodes[here, 1].astype(np.int64)] <= nodes[here, 2]
        at[inner] = start + np.where(left, nodes[here, 3], nodes[here, 4]).astype(np.int64)
