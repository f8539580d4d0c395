"""The sections of a recipe: optimizer and regularization. Does not import torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ensemble_kit.errors import DataError
from ensemble_kit.settings import Settings


class Optim(Settings):
    """The optimizer, beyond learning rate and weight decay.

    Parameters
    ----------
    name : str
        Any first-order optimizer of timm: `adamw`, `sgd`, `lamb`, `lion`, ... The prefix
        `lookahead_` adds lookahead (Zhang et al. 2019, "Lookahead optimizer").
    head_rate : float
        Learning rate of the classifier, as a multiple of the recipe's.
    layer_decay : float
        Each block has this multiple of the learning rate of the block after it (Clark et al.
        2020, "ELECTRA"; Bao et al. 2022, "BEiT"); 1 is off. Networks with 25 blocks or more use
        stages instead of blocks, if timm defines stages for them.
    head_only_epochs : int
        First epochs in which only the classifier is trained. The backbone is frozen, with the
        statistics of its batch normalisation.
    cache_features : bool
        In the head-only epochs, compute the backbone's output once per image and train the
        classifier on it. This is faster, but images are not augmented or mixed in these epochs,
        and the backbone's dropout is off.
    freeze_batch_norm : bool
        Freeze the statistics and weights of batch normalisation at their initial values.
    clip_norm : float
        Largest norm of a step's gradient; 0 is off.
    micro_batches : int
        Number of parts in which a batch is computed; a step still uses the gradient of the whole
        batch. With batch normalisation a part has at least two images.
    step_epochs, step_factor : int, float
        For `schedule = "step"`: multiply the rate by `step_factor` every `step_epochs` epochs.
    plateau_epochs : int
        For `schedule = "plateau"`: multiply by `step_factor` after this number of epochs without
        improvement. Warm-up and head-only epochs do not count.
    """

    name: str = "adamw"
    head_rate: float = Field(1.0, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    head_only_epochs: int = Field(0, ge=0)
    cache_features: bool = False
    freeze_batch_norm: bool = False
    clip_norm: float = Field(0.0, ge=0)
    micro_batches: int = Field(1, ge=1)
    step_epochs: int = Field(10, ge=1)
    step_factor: float = Field(0.1, gt=0, lt=1)
    plateau_epochs: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _cache_needs_frozen_epochs(self) -> Optim:
        if self.cache_features and not self.head_only_epochs:
            raise DataError(
                "cache_features is true and head_only_epochs is 0",
                "features are cached for epochs that train only the classifier",
                "Set head_only_epochs, or remove cache_features",
            )
        return self


class Regularize(Settings):
    """Regularization, averaging of weights, and test-time augmentation.

    Parameters
    ----------
    drop_path : float
        Rate of stochastic depth (Huang et al. 2016), for networks that have it; 0 is off.
    mixup, cutmix : float
        Alpha of the Beta distribution for mixing the augmented images of a batch and their labels.
        mixup (Zhang et al. 2018) blends whole images, cutmix (Yun et al. 2019) pastes a box. 0 is
        off; usual values are 0.2 and 1. With both, each batch uses one of them at even odds.
    focal_gamma : float
        Focal loss (Lin et al. 2017); 0 is plain cross-entropy.
    ema_decay : float
        Exponential moving average of the weights per step (Polyak & Juditsky 1992); 0 is off.
    average_last : int
        Number of last epochs whose weights are averaged with equal weight (Izmailov et al. 2018,
        "Averaging weights leads to wider optima"); 0 is off.
    average_beside : bool
        Store the average as a separate member, `NAME@ema` or `NAME@swa`. Otherwise it replaces the
        member's own weights.
    tta : {"none", "flips", "dihedral"}
        Test-time augmentation: logits are averaged over 4 mirror images, or over all 8 views.
        Images that are not square use 4 views at most.
    eval_size : int, optional
        Input size in pixels for predictions, if it differs from training (Touvron et al. 2019).
    select_metric : {"log_loss", "accuracy", "balanced_accuracy"}
        Validation metric of `select_on` and `patience`.
    """

    drop_path: float = Field(0.0, ge=0, lt=1)
    mixup: float = Field(0.0, ge=0)
    cutmix: float = Field(0.0, ge=0)
    focal_gamma: float = Field(0.0, ge=0)
    ema_decay: float = Field(0.0, ge=0, lt=1)
    average_last: int = Field(0, ge=0)
    average_beside: bool = False
    tta: Literal["none", "flips", "dihedral"] = "none"
    eval_size: int | None = Field(None, ge=8, le=2048)
    select_metric: Literal["log_loss", "accuracy", "balanced_accuracy"] = "log_loss"

    @model_validator(mode="after")
    def _one_average(self) -> Regularize:
        if self.ema_decay and self.average_last:
            raise DataError(
                "Both ema_decay and average_last are set",
                "weights are averaged in one way only",
                "Set one of them to 0",
            )
        if self.average_beside and not (self.ema_decay or self.average_last):
            raise DataError(
                "average_beside is true, but ema_decay and average_last are 0",
                "an average of the weights must be computed to be stored",
                "Set one of them, e.g. ema_decay = 0.998",
            )
        return self
