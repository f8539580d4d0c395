"""Explicit gradients of many small multi-layer perceptrons, and AdamW steps.

All networks are computed together, in float32. Does not import torch.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, log_softmax

Light = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Weights:
    """Trained weights: `w1` (K, F, H), `b1` (K, 1, H), `w2` (K, H, C), `b2` (K, 1, C), float32.

    The arrays are changed in place.
    """

    w1: Light
    b1: Light
    w2: Light
    b2: Light

    @staticmethod
    def start(w1: Light, n_classes: int) -> Weights:
        """The weights before training: `w1`, and zeros, so that the correction is 0."""
        n_networks, _, hidden = w1.shape
        shapes = ((1, hidden), (hidden, n_classes), (1, n_classes))
        return Weights(w1, *(np.zeros((n_networks, *shape), np.float32) for shape in shapes))

    def arrays(self) -> tuple[Light, Light, Light, Light]:
        return self.w1, self.b1, self.w2, self.b2

    def zeros(self) -> Weights:
        return Weights(*map(np.zeros_like, self.arrays()))

    def copy(self) -> Weights:
        return Weights(*map(np.copy, self.arrays()))

    def take(self, networks: slice) -> Weights:
        """Some of the networks."""
        return Weights(*(one[networks] for one in self.arrays()))

    def replace(self, networks: npt.NDArray[np.bool_], source: Weights) -> None:
        """Replace the weights of some networks."""
        for own, new in zip(self.arrays(), source.arrays(), strict=True):
            own[networks] = new[networks]

    def full(self) -> tuple[Array, Array, Array, Array]:
        """The arrays in float64, with the shapes of `Networks`."""
        w1, b1, w2, b2 = (one.astype(np.float64) for one in self.arrays())
        return w1, b1[:, 0], w2, b2[:, 0]


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """The table, and the pool and scaling of each network; `rows` are (K, B) in all methods."""

    features: Light  # (n_samples, F)
    labels: Ints
    pool: Light  # (K, n_members)
    mean: Light  # (K, F)
    scale: Light  # (K, F)

    def _forward(self, weights: Weights, rows: Ints) -> tuple[Light, Light, Light]:
        """Standardised features (K, B, F), hidden units (K, B, H), and scores (K, B, C)."""
        own = self.features[rows]
        n_members, n_classes = self.pool.shape[1], weights.b2.shape[2]
        members = own[..., : n_members * n_classes].reshape(*rows.shape, n_members, n_classes)
        start = (self.pool[:, None, None] @ members)[:, :, 0]
        own -= self.mean[:, None]
        own /= self.scale[:, None]
        hidden = np.tanh(own @ weights.w1 + weights.b1)
        return own, hidden, hidden @ weights.w2 + weights.b2 + start

    def losses(self, weights: Weights, rows: Ints, share: Array) -> Array:
        """Log loss of each network, samples weighted by `share` (K, B); shape (K,).

        Computed one network at a time, because all features may not fit in memory.
        """
        each = [slice(k, k + 1) for k in range(len(rows))]
        parts = [self._take(k)._losses(weights.take(k), rows[k], share[k]) for k in each]
        return np.concatenate(parts)

    def _take(self, networks: slice) -> Data:
        return Data(
            self.features,
            self.labels,
            self.pool[networks],
            self.mean[networks],
            self.scale[networks],
        )

    def _losses(self, weights: Weights, rows: Ints, share: Array) -> Array:
        log_proba = log_softmax(self._forward(weights, rows)[2])
        picked = np.take_along_axis(log_proba, self.labels[rows][..., None], axis=2)[..., 0]
        return np.asarray(-(picked * share).sum(axis=1))

    def gradient(self, weights: Weights, rows: Ints) -> Weights:
        """Gradient of each network's mean log loss over its rows."""
        z, hidden, scores = self._forward(weights, rows)
        scores -= scores.max(axis=2, keepdims=True)
        pull = np.exp(scores, out=scores)
        pull /= pull.sum(axis=2, keepdims=True)
        at = self.labels[rows][..., None]
        np.put_along_axis(pull, at, np.take_along_axis(pull, at, axis=2) - 1.0, axis=2)
        pull /= rows.shape[1]
        inner = (pull @ weights.w2.transpose(0, 2, 1)) * (1.0 - hidden**2)
        return Weights(
            z.transpose(0, 2, 1) @ inner,
            inner.sum(axis=1, keepdims=True),
            hidden.transpose(0, 2, 1) @ pull,
            pull.sum(axis=1, keepdims=True),
        )


@dataclasses.dataclass(eq=False)
class AdamW:
    """Adam with decoupled decay of `w1` and `w2`.

    References
    ----------
    Loshchilov, I., & Hutter, F. (2019). Decoupled weight decay regularization. ICLR.
    """

    decay: float
    mean: Weights
    square: Weights
    n_steps: int = 0

    def step(self, weights: Weights, gradient: Weights, rate: float) -> None:
        """Change the weights in place."""
        self.n_steps += 1
        correct_mean, correct_square = 1 - 0.9**self.n_steps, 1 - 0.999**self.n_steps
        decays = (self.decay, 0.0, self.decay, 0.0)
        parts = (weights, gradient, self.mean, self.square)
        for decay, p, g, m, v in zip(decays, *(one.arrays() for one in parts), strict=True):
            p *= 1.0 - rate * decay
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            p -= (rate / correct_mean) * m / (np.sqrt(v / correct_square) + 1e-8)


def light(array: Array) -> Light:
    """The array in float32, contiguous."""
    return np.ascontiguousarray(array, dtype=np.float32)
