"""The head-only phase over a body that stands still: its output computed once, the head trained on it.

Takes no step; knows rows as positions alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError
from ensemble_kit.images.loading.batches import Batch, Batches
from ensemble_kit.images.loading.to_device import to_device
from ensemble_kit.members.training.precision import tensor_float32
from ensemble_kit.members.training.predict import validation_metrics


@dataclasses.dataclass(frozen=True, eq=False)
class FrozenBackbone:
    """What a body says of the images, each seen once, without augmentation, in evaluation mode.

    Parameters
    ----------
    train : Tensor, shape (n_train, n_features)
        On the device; rows as in the batches' `rows`.
    validation : Tensor, shape (n_watched, n_features)
    validation_labels : array of int, shape (n_watched,)
    drop_rate : float
        Of the dropout between pooling and classifier.
    """

    train: Tensor
    validation: Tensor
    validation_labels: npt.NDArray[np.int64]
    drop_rate: float

    def head_of(self, model: nn.Module) -> nn.Module:
        """What is trained: the model's own classifier behind its dropout."""
        return nn.Sequential(nn.Dropout(self.drop_rate), classifier_of(model)).train()

    def steps(self, batches: Batches, epoch: int) -> Iterator[Batch]:
        """`(features, labels, positions)` in the order of `batches.epoch(epoch)`."""
        for positions in batches.steps(epoch):
            rows = to_device(torch.from_numpy(positions), self.train.device)
            labels = to_device(torch.from_numpy(batches.labels[positions]), self.train.device)
            yield self.train[rows], labels, rows

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Metrics of the validation rows by a network with this body."""
        with torch.inference_mode():
            logits = classifier_of(network).eval()(self.validation).float().cpu().numpy()
        return validation_metrics(logits, self.validation_labels)


def refuse_other_tails(model: nn.Module, features: Array, logits: Array) -> None:
    """Refuse a network that does more behind its pooled features than its classifier does.

    Raises
    ------
    DataError
        Its classifier's answers to `features` are not `logits`.
    """
    with torch.inference_mode(), tensor_float32(False):
        given = torch.from_numpy(features).to(next(model.parameters()).device)
        predicted = classifier_of(model).eval()(given).float().cpu().numpy()
    if predicted.shape != logits.shape or not np.allclose(predicted, logits, rtol=1e-3, atol=1e-3):
        raise _no_single_tail(model)


def classifier_of(model: Any) -> nn.Module:
    """The one module whose answers to the pooled features are the logits.

    Raises
    ------
    DataError
        There are two: those of a network that was distilled, whose logits are their mean.
    """
    found: nn.Module | tuple[nn.Module, ...] = model.get_classifier()
    if isinstance(found, tuple):
        raise _no_single_tail(model)
    return found


def _no_single_tail(model: nn.Module) -> DataError:
    return DataError(
        f"The logits of {type(model).__name__} are not computed from its pooled features alone",
        "cache_features needs this",
        "Set cache_features = false for this network",
    )
