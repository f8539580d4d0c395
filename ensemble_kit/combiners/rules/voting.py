"""Majority vote with a policy for ties, and the number of ties."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.rules.kernels import mean_softmax, vote_counts
from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.predictions.method_predictions import ABSTAINED, Combined, decided

TIES = ("proba", "severity", "abstain", "lowest")


class MajorityVote(Combiner):
    """Each member votes for its highest class; the class with most votes wins.

    Parameters
    ----------
    ties : {"proba", "severity", "abstain", "lowest"}
        Which of the classes with most votes wins. `proba`: highest mean probability. `severity`: the
        `positive` class if it is tied, else as `proba`. `abstain`: none (the prediction is -1).
        `lowest`: lowest index, as in scikit-learn's VotingClassifier.
    positive : int, optional
        The class index that `severity` prefers. If it is the last class, classes are ordered from
        harmless to severe, and `severity` prefers the last of the tied classes. Without it,
        `severity` is `proba`.

    Notes
    -----
    `predict_proba` returns vote shares. `combine(logits).n_ties` is the number of ties.

    Examples
    --------
    >>> logits = np.array([[[2.0, 0.0], [0.0, 1.0]]])          # one sample, one vote each
    >>> vote = MajorityVote().fit(logits, [0])
    >>> vote.predict(logits).tolist(), vote.combine(logits).n_ties
    ([0], 1)
    >>> MajorityVote(ties="severity", positive=1).fit(logits, [0]).predict(logits).tolist()
    [1]
    """

    is_rule = True
    gives_vote_shares = True

    def __init__(self, ties: str = "proba", positive: int | None = None) -> None:
        self.ties = ties
        self.positive = positive

    def _fit(self, logits: Array, labels: Ints, groups: Ints) -> None:  # noqa: ARG002
        self._check_policy()
        self.n_ties_ = self._combine(logits).n_ties

    fitted_names = ("n_ties_",)

    def _check_policy(self) -> None:
        if self.ties not in TIES:
            raise UsageError(
                f"Unknown tie policy '{self.ties}'",
                f"the policies are {', '.join(TIES)}",
                did_you_mean(str(self.ties), TIES),
            )
        if self.positive is not None and not 0 <= self.positive < len(self.classes_):
            raise UsageError(
                f"The positive class {self.positive} is not a class index",
                f"indices go from 0 to {len(self.classes_) - 1}",
                "Give the index of the class in class_names",
            )

    def _combine(self, logits: Array) -> Combined:
        votes = vote_counts(logits)
        proba = votes.astype(np.float64) / logits.shape[1]
        level = votes == votes.max(axis=1, keepdims=True)
        tied = level.sum(axis=1) > 1
        predicted = level.argmax(axis=1).astype(np.int64)  # correct without a tie
        rows = np.flatnonzero(tied)
        if len(rows):
            predicted[rows] = self._break(level[rows], logits[rows])
        return Combined(proba, predicted, tied)

    def _break(self, level: npt.NDArray[np.bool_], logits: Array) -> Ints:
        if self.ties == "abstain":
            return np.full(len(level), ABSTAINED)
        if self.ties == "lowest":
            return level.argmax(axis=1)
        last = level.shape[1] - 1
        if self.ties == "severity" and self.positive == last:
            return last - level[:, ::-1].argmax(axis=1)
        mean = mean_softmax(logits.astype(np.float64))
        likeliest = decided(np.where(level, mean, -1.0)).predicted
        if self.ties == "severity" and self.positive is not None:
            return np.where(level[:, self.positive], self.positive, likeliest)
        return likeliest
