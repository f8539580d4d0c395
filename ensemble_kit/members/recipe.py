"""Recipes: how a member is trained, and the named presets. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from ensemble_kit.errors import DataError, UsageError, did_you_mean
from ensemble_kit.files import read_toml
from ensemble_kit.images.augmentation.presets import NameOrAugmentation
from ensemble_kit.members.recipe_sections import Optim, Regularize
from ensemble_kit.settings import Settings, merged

# Stored as "kept-fold", as earlier versions did, so that their trainings stay comparable.
SelectOn = Annotated[
    Literal["none", "inner", "held-out-fold"],
    BeforeValidator(lambda value: "held-out-fold" if value == "kept-fold" else value),
    PlainSerializer(lambda value: "kept-fold" if value == "held-out-fold" else value),
]


class Recipe(Settings):
    """How a member is trained.

    Parameters
    ----------
    epochs : int
    batch_size : int
        Images per optimizer step.
    learning_rate : float
        Peak learning rate.
    weight_decay : float
        Applied to weights, not to biases and normalisation layers.
    warmup_epochs : float
        Epochs of linear warm-up from 0; may be a fraction.
    schedule : {"cosine", "constant", "step", "plateau", "one-cycle", "cyclic"}
        Learning rate after the warm-up (Loshchilov & Hutter 2017, "SGDR"; Smith & Topin 2019 for
        one-cycle). `plateau` follows the validation loss, so it needs `select_on`. `cyclic`
        restarts the cosine, with one cycle per snapshot.
    snapshots : int
        Number of checkpoints stored from one training. The last one is the member itself, the
        others are the members `NAME@snap1`, `NAME@snap2`, ... `cyclic` stores them at the end of
        each cycle (Huang et al. 2017, "Snapshot ensembles: train 1, get M for free"); other
        schedules after each of the last epochs. 0: the last checkpoint only.
    label_smoothing : float
    class_weights : {"none", "balanced", "effective"}
        `balanced` weighs the loss by n_samples / (n_classes * count), `effective` by the effective
        number of samples (Cui et al. 2019). Counts are those of the training rows.
    augmentation : str or Augmentation
        Name of a preset (see `ensemble_kit.images.augmentation.presets.PRESETS`), or an Augmentation.
    sampling : {"none", "oversample", "undersample", "balanced"}
        Resampling of the training rows; validation and test rows stay as they are. It cannot be
        combined with `class_weights`.
    select_on : {"none", "inner", "held-out-fold"}
        Which epoch's weights are stored. `none`: the last epoch. `inner`: the best epoch on a
        validation split of whole groups, drawn from the training folds. It holds every class
        if the groups allow it, else a caveat names the missing classes. `held-out-fold`: the best
        epoch on the fold that is predicted afterwards. Its out-of-fold metrics are optimistic, and
        a caveat beside every result says so.
    patience : int
        Stop after this number of epochs without improvement; 0: never stop early. Warm-up and
        head-only epochs do not count. Needs `select_on`.
    optim : Optim
    regularize : Regularize

    Examples
    --------
    >>> Recipe(epochs=30).batch_size
    32
    >>> Recipe.preset("best", epochs=5).regularize.tta
    'dihedral'
    """

    epochs: int = Field(15, ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(5e-4, gt=0, le=10)
    weight_decay: float = Field(0.02, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    schedule: Literal["cosine", "constant", "step", "plateau", "one-cycle", "cyclic"] = "cosine"
    snapshots: int = Field(0, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced", "effective"] = "none"
    augmentation: NameOrAugmentation = "light"
    sampling: Literal["none", "oversample", "undersample", "balanced"] = "none"
    select_on: SelectOn = "none"
    patience: int = Field(0, ge=0)
    optim: Optim = Optim()
    regularize: Regularize = Regularize()

    @model_validator(mode="after")
    def _validation_split_if_needed(self) -> Recipe:
        for name, is_needed in (
            ("patience", self.patience),
            ("schedule", self.schedule == "plateau"),
        ):
            if is_needed and self.select_on == "none":
                raise DataError(
                    f"{name} is {getattr(self, name)!r} and select_on is 'none'",
                    "early stopping and the plateau schedule need a validation split",
                    "Set select_on = 'inner', or use a fixed schedule (patience = 0)",
                )
        if self.optim.head_only_epochs >= self.epochs:
            raise DataError(
                f"head_only_epochs is {self.optim.head_only_epochs}, epochs is {self.epochs}",
                "the whole network must be trained for at least one epoch",
                "Set fewer head-only epochs, or more epochs",
            )
        return self

    @model_validator(mode="after")
    def _one_imbalance_correction(self) -> Recipe:
        if self.sampling != "none" and self.class_weights != "none":
            raise DataError(
                f"sampling is {self.sampling!r} and class_weights is {self.class_weights!r}",
                "class imbalance is corrected by one of the two only",
                "Set one of them to 'none' for this member",
            )
        return self

    @model_validator(mode="after")
    def _enough_epochs_for_snapshots(self) -> Recipe:
        if self.schedule == "cyclic" and self.snapshots < 2:
            raise DataError(
                f"schedule is 'cyclic' and snapshots is {self.snapshots}",
                "a cyclic schedule has one cycle per snapshot, and needs at least two",
                "Set snapshots, or schedule = 'cosine'",
            )
        if self.snapshots > self.epochs:
            raise DataError(
                f"snapshots is {self.snapshots} and epochs is {self.epochs}",
                "each snapshot needs at least one epoch",
                "Set fewer snapshots, or more epochs",
            )
        if self.snapshots > 1 and self.select_on != "none":
            raise DataError(
                f"snapshots is {self.snapshots} and select_on is {self.select_on!r}",
                "snapshots are taken after fixed epochs; select_on would choose one epoch",
                "Set select_on = 'none' and patience = 0 for this member, or snapshots = 0",
            )
        return self

    @property
    def snapshot_epochs(self) -> tuple[int, ...]:
        """Number of finished epochs at each snapshot.

        Examples
        --------
        >>> Recipe(epochs=10, snapshots=3).snapshot_epochs
        (8, 9, 10)
        >>> Recipe(epochs=10, snapshots=3, schedule="cyclic").snapshot_epochs
        (3, 6, 10)
        """
        n, epochs = self.snapshots, self.epochs
        if self.schedule == "cyclic":
            return tuple(epochs * (k + 1) // n for k in range(n))
        return tuple(range(epochs - n + 1, epochs + 1))

    @property
    def extra_checkpoints(self) -> tuple[str, ...]:
        """Names of the checkpoints stored beside the selected one; each is a separate member."""
        average = "ema" if self.regularize.ema_decay else "swa"
        beside = (average,) if self.regularize.average_beside else ()
        return (*(f"snap{k}" for k in range(1, self.snapshots)), *beside)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Recipe:
        """A named recipe with some values changed; a nested table changes only its own keys.

        Raises
        ------
        UsageError
            The name is unknown.
        """
        given_values = {
            key: value.model_dump(exclude_unset=True) if isinstance(value, Settings) else value
            for key, value in changes.items()
        }
        return cls(**merged(preset_values(name), given_values))


def preset_values(name: str) -> dict[str, Any]:
    """The keys that a named recipe sets, as in `recipes.toml`."""
    presets = read_toml(Path(__file__).with_name("recipes.toml"))
    if name not in presets:
        raise UsageError(
            f"Unknown recipe '{name}'",
            f"the recipes are {', '.join(presets)}",
            did_you_mean(name, presets),
        )
    return dict(presets[name])
