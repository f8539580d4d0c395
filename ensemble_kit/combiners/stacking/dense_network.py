"""A network of dense layers with batch normalisation and dropout on its input, in NumPy.

It is trained by Adam with explicit gradients.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Self

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, softmax

Light = npt.NDArray[np.float32]
# Keras' value; the variance of a constant input stays above it.
EPSILON = 1e-3
BATCH = 32


@dataclasses.dataclass(frozen=True, eq=False)
class DenseNetwork:
    """Batch normalisation, then dense layers with ReLU between them, then softmax.

    Parameters
    ----------
    mean, scale : array of float32, shape (n_inputs,)
        Mean and standard deviation of the training rows, which normalise the input in prediction.
    gain, shift : array of float32, shape (n_inputs,)
        Trained parameters of batch normalisation.
    weights : list of arrays of float32, shape (n_in, n_out)
    biases : list of arrays of float32, shape (n_out,)
    """

    mean: Light
    scale: Light
    gain: Light
    shift: Light
    weights: list[Light]
    biases: list[Light]

    @classmethod
    def start(cls, rows: Light, sizes: tuple[int, ...], rng: np.random.Generator) -> Self:
        """An untrained network: Glorot uniform weights for layers of `sizes`, and zero biases."""
        n_inputs = rows.shape[1]
        weights = []
        for n_in, n_out in zip((n_inputs, *sizes), sizes, strict=False):
            edge = math.sqrt(6 / (n_in + n_out))
            weights.append(rng.uniform(-edge, edge, (n_in, n_out)).astype(np.float32))
        biases = [np.zeros(n_out, np.float32) for n_out in sizes]
        scale = np.sqrt(rows.var(axis=0) + EPSILON)
        one = np.ones(n_inputs, np.float32)
        return cls(rows.mean(axis=0), scale, one, np.zeros_like(one), weights, biases)

    @property
    def learnt(self) -> list[Light]:
        """The arrays that training changes."""
        return [self.gain, self.shift, *self.weights, *self.biases]

    def predict_proba(self, rows: Array) -> Array:
        """Probabilities, float64 of shape (n_rows, n_classes)."""
        normal = (rows.astype(np.float32) - self.mean) / self.scale
        outputs = self._layers(normal * self.gain + self.shift)
        return softmax(outputs[-1].astype(np.float64))

    def gradient(self, rows: Light, labels: Ints, mask: Light) -> list[Light]:
        """The gradient of the mean log loss over a batch, one array for each of `learnt`.

        Parameters
        ----------
        rows : array of float32, shape (n_rows, n_inputs)
            Batch normalisation uses their own mean and variance.
        labels : array of int, shape (n_rows,)
        mask : array of float32, shape (n_rows, n_inputs)
            Dropout mask: 0, or 1 / (1 - rate).
        """
        normal = (rows - rows.mean(axis=0)) / np.sqrt(rows.var(axis=0) + EPSILON)
        outputs = self._layers((normal * self.gain + self.shift) * mask)
        pull = softmax(outputs[-1]).astype(np.float32)
        pull[np.arange(len(labels)), labels] -= 1
        pull /= len(labels)
        of_weights: list[Light] = []
        of_biases: list[Light] = []
        for k in reversed(range(len(self.weights))):
            of_weights.insert(0, outputs[k].T @ pull)
            of_biases.insert(0, pull.sum(axis=0))
            pull = pull @ self.weights[k].T
            pull *= mask if k == 0 else outputs[k] > 0
        return [(pull * normal).sum(axis=0), pull.sum(axis=0), *of_weights, *of_biases]

    def _layers(self, rows: Light) -> list[Light]:
        """The input of each layer, and the last layer's output."""
        outputs = [rows]
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            rows = outputs[-1] @ weight + bias
            outputs.append(np.maximum(rows, 0) if k < len(self.weights) - 1 else rows)
        return outputs


def train_dense(
    rows: Light,
    labels: Ints,
    *,
    sizes: tuple[int, ...],
    dropout: float,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> DenseNetwork:
    """A network trained by Adam in batches of 32 for a fixed number of epochs.

    Parameters
    ----------
    rows : array of float32, shape (n_rows, n_inputs)
    labels : array of int, shape (n_rows,)
    sizes : tuple of int
        Outputs of each dense layer; the last one is the number of classes.
    dropout : float
        Share of the inputs that are dropped in each batch.
    """
    rng = np.random.default_rng(seed)
    network = DenseNetwork.start(rows, sizes, rng)
    means, squares = ([np.zeros_like(one) for one in network.learnt] for _ in range(2))
    step = 0
    for _ in range(epochs):
        # Batches of equal size: one row alone cannot be normalised.
        for batch in np.array_split(rng.permutation(len(rows)), -(-len(rows) // BATCH)):
            step += 1
            is_used = rng.random((len(batch), rows.shape[1]), np.float32) >= dropout
            mask = is_used.astype(np.float32) / np.float32(1 - dropout)
            found = network.gradient(rows[batch], labels[batch], mask)
            rate = learning_rate * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
            for one, pull, m, v in zip(network.learnt, found, means, squares, strict=True):
                m += 0.1 * (pull - m)
                v += 0.001 * (pull * pull - v)
                one -= np.float32(rate) * m / (np.sqrt(v) + 1e-7)
    return network
