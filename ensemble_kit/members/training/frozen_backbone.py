"""Training of the head on cached features: the output of a frozen backbone, computed once."""

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
    """The backbone's output for each image, in evaluation mode, without augmentation.

    Parameters
    ----------
    train : Tensor, shape (n_train, n_features)
        On the device; rows as in the batches' `rows`.
    validation : Tensor, shape (n_validation, n_features)
    validation_labels : array of int, shape (n_validation,)
    drop_rate : float
        Dropout rate between pooling and classifier.
    """

    train: Tensor
    validation: Tensor
    validation_labels: npt.NDArray[np.int64]
    drop_rate: float

    def head_of(self, model: nn.Module) -> nn.Module:
        """The part that is trained: dropout and the model's classifier."""
        return nn.Sequential(nn.Dropout(self.drop_rate), classifier_of(model)).train()

    def steps(self, batches: Batches, epoch: int) -> Iterator[Batch]:
        """`(features, labels, positions)` in the order of `batches.epoch(epoch)`."""
        for positions in batches.steps(epoch):
            rows = to_device(torch.from_numpy(positions), self.train.device)
            labels = to_device(torch.from_numpy(batches.labels[positions]), self.train.device)
            yield self.train[rows], labels, rows

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Validation metrics of a network with this backbone."""
        with torch.inference_mode():
            logits = classifier_of(network).eval()(self.validation).float().cpu().numpy()
        return validation_metrics(logits, self.validation_labels)


def refuse_other_tails(model: nn.Module, features: Array, logits: Array) -> None:
    """Refuse a network whose logits are not its classifier's output for its pooled features.

    Raises
    ------
    DataError
        The classifier's output for `features` differs from `logits`.
    """
    with torch.inference_mode(), tensor_float32(False):
        given = torch.from_numpy(features).to(next(model.parameters()).device)
        predicted = classifier_of(model).eval()(given).float().cpu().numpy()
    if predicted.shape != logits.shape or not np.allclose(predicted, logits, rtol=1e-3, atol=1e-3):
        raise _no_single_tail(model)


def classifier_of(model: Any) -> nn.Module:
    """The module that computes the logits from the pooled features.

    Raises
    ------
    DataError
        There are two classifiers, as in distilled networks; their mean is the logits.
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
