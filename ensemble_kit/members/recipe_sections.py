"""The tables inside a recipe: how steps are taken, and what keeps a network from learning by heart.

Knows no torch.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ensemble_kit.errors import DataError
from ensemble_kit.settings import Settings


class Optim(Settings):
    """How steps are taken, beyond rate and decay.

    Parameters
    ----------
    name : str
        Any optimizer of timm's factory that needs first derivatives alone: `adamw`, `sgd`, `lamb`,
        `lion`, ...; `lookahead_adamw` wraps one (Zhang et al. 2019, "Lookahead optimizer").
    head_rate : float
        The new head's learning rate, as a multiple of the recipe's.
    layer_decay : float
        Each block nearer to the input learns at this multiple of the next one's rate (Clark et al.
        2020, "ELECTRA"; Bao et al. 2022, "BEiT"); 1 is off. Each stage counts as one where there
        are 25 blocks or more, stem and head included, and timm knows stages of the network.
    head_only_epochs : int
        First epochs in which only the head learns: the body's weights stand still, and so do the
        statistics of its batch normalisation.
    cache_features : bool
        In the head-only epochs, compute the body's output once per image and train the head on
        that: faster, and another training. Images are not augmented or mixed in these epochs, and
        the body's dropout is off.
    freeze_batch_norm : bool
        Keep the statistics and weights of batch normalisation as they came.
    clip_norm : float
        Largest norm of a step's gradient; 0 is off.
    micro_batches : int
        Parts that a batch is computed in; the step still sees the whole batch. Each holds two
        images at least where batch normalisation learns.
    step_epochs, step_factor : int, float
        For `schedule = "step"`: multiply the rate by `step_factor` every `step_epochs` epochs.
    plateau_epochs : int
        For `schedule = "plateau"`: multiply by `step_factor` after so many epochs without
        improvement, those of warm-up and head-only epochs not counted.
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
    """What keeps a network from learning its training rows by heart, and how weights are averaged.

    Parameters
    ----------
    drop_path : float
        Stochastic depth (Huang et al. 2016), where the network has it; 0 is none, for networks with
        a rate of their own too.
    mixup, cutmix : float
        Alpha of the Beta distribution that images of a batch, augmented before, and their labels
        are mixed by: mixup (Zhang et al. 2018) blends whole images, cutmix (Yun et al. 2019) pastes
        a box. 0 is off; with both, each batch is mixed by one of them at even odds, as timm does.
        Usual are 0.2 and 1.
    focal_gamma : float
        Focal loss (Lin et al. 2017); 0 is plain cross-entropy.
    ema_decay : float
        Exponential moving average of the weights per step (Polyak & Juditsky 1992); 0 is off.
    average_last : int
        Equal average of the weights after each of the last so many epochs (Izmailov et al. 2018,
        "Averaging weights leads to wider optima"); 0 is off.
    average_beside : bool
        Keep the average beside the weights themselves, as a member of its own, `NAME@ema` or
        `NAME@swa`, and not in their place.
    tta : {"none", "flips", "dihedral"}
        Test-time augmentation: logits averaged over 4 mirror images, or all 8 views; of images that
        are not square over the 4.
    eval_size : int, optional
        Input size in pixels when predicting, where it differs from training (Touvron et al. 2019).
    select_metric : {"log_loss", "accuracy", "balanced_accuracy"}
        What `select_on` and `patience` watch.
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
