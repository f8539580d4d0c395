"""What a member is and how it is trained: frozen tables of plain values.

Knows no torch: a recipe can be read, printed and compared without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ensemble_kit.errors import DataError, UsageError, did_you_mean
from ensemble_kit.files import digest_file, digest_json, read_toml
from ensemble_kit.members.catalogue import native_size, timm_name
from ensemble_kit.settings import Settings


class Optim(Settings):
    """How steps are taken, beyond rate and decay.

    Parameters
    ----------
    name : str
        Any optimizer of timm's factory: `adamw`, `sgd`, `lamb`, `lion`, ...
    head_rate : float
        The new head's learning rate, as a multiple of the recipe's.
    layer_decay : float
        Each block nearer to the input learns at this multiple of the next one's rate (Clark et al.
        2020, "ELECTRA"; Bao et al. 2022, "BEiT"); 1 is off.
    head_only_epochs : int
        First epochs in which only the head learns.
    freeze_batch_norm : bool
        Keep the statistics and weights of batch normalisation as they came.
    clip_norm : float
        Largest norm of a step's gradient; 0 is off.
    micro_batches : int
        Parts that a batch is computed in; the step still sees the whole batch.
    step_epochs, step_factor : int, float
        For `schedule = "step"`: multiply the rate by `step_factor` every `step_epochs` epochs.
    plateau_epochs : int
        For `schedule = "plateau"`: multiply by `step_factor` after so many epochs without improvement.
    """

    name: str = "adamw"
    head_rate: float = Field(1.0, gt=0)
    layer_decay: float = Field(1.0, gt=0, le=1)
    head_only_epochs: int = Field(0, ge=0)
    freeze_batch_norm: bool = False
    clip_norm: float = Field(0.0, ge=0)
    micro_batches: int = Field(1, ge=1)
    step_epochs: int = Field(10, ge=1)
    step_factor: float = Field(0.1, gt=0, lt=1)
    plateau_epochs: int = Field(3, ge=1)


class Regularize(Settings):
    """What keeps a network from learning its training rows by heart, and how weights are averaged.

    Parameters
    ----------
    drop_path : float
        Stochastic depth (Huang et al. 2016), where the network has it.
    focal_gamma : float
        Focal loss (Lin et al. 2017); 0 is plain cross-entropy.
    ema_decay : float
        Exponential moving average of the weights per step (Polyak & Juditsky 1992); 0 is off.
    average_last : int
        Equal average of the weights after each of the last so many epochs (Izmailov et al. 2018,
        "Averaging weights leads to wider optima"); 0 is off.
    tta : {"none", "flips", "dihedral"}
        Test-time augmentation: logits averaged over 4 mirror images, or all 8 poses.
    eval_size : int, optional
        Input size in pixels when predicting, where it differs from training (Touvron et al. 2019).
    select_metric : {"log_loss", "accuracy", "balanced_accuracy"}
        What `select_on` and `patience` watch.
    """

    drop_path: float = Field(0.0, ge=0, lt=1)
    focal_gamma: float = Field(0.0, ge=0)
    ema_decay: float = Field(0.0, ge=0, lt=1)
    average_last: int = Field(0, ge=0)
    tta: Literal["none", "flips", "dihedral"] = "none"
    eval_size: int | None = Field(None, ge=8, le=2048)
    select_metric: Literal["log_loss", "accuracy", "balanced_accuracy"] = "log_loss"

    @model_validator(mode="after")
    def _one_average(self) -> Regularize:
        if self.ema_decay and self.average_last:
            raise DataError(
                "Weights are averaged in one way",
                "got both ema_decay and average_last",
                "Set one of them to 0",
            )
        return self


class Recipe(Settings):
    """How a member is trained.

    Parameters
    ----------
    epochs : int
    batch_size : int
        Images per optimizer step.
    learning_rate : float
        Peak rate.
    weight_decay : float
        On weights; never on biases and normalisation layers.
    warmup_epochs : float
        Linear rise of the rate from 0; may be a fraction.
    schedule : {"cosine", "constant", "step", "plateau", "one-cycle"}
        After the warm-up (Loshchilov & Hutter 2017, "SGDR"; Smith & Topin 2019 for one-cycle).
        `plateau` watches a slice of the data, so it needs `select_on`.
    label_smoothing : float
    class_weights : {"none", "balanced", "effective"}
        `balanced` weighs the loss by n_samples / (n_classes * count), `effective` by the effective
        number of samples (Cui et al. 2019); counted on the training part.
    augmentation : str
        A preset's name; see `ensemble_kit.images.presets.PRESETS`.
    sampling : {"none", "oversample", "undersample", "balanced"}
        On the training part only; validation and test keep their prior.
    select_on : {"none", "inner", "kept-fold"}
        What chooses the weights: `none` keeps those of the last epoch; `inner` keeps the best
        epoch on a group-safe slice of the training folds; `kept-fold` chooses on the very fold
        whose logits are kept, which is optimistic, and stamped so everywhere.
    patience : int
        Stop after so many epochs without improvement; 0 never stops early. Needs `select_on`.
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
    schedule: Literal["cosine", "constant", "step", "plateau", "one-cycle"] = "cosine"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced", "effective"] = "none"
    augmentation: str = "light"
    sampling: Literal["none", "oversample", "undersample", "balanced"] = "none"
    select_on: Literal["none", "inner", "kept-fold"] = "none"
    patience: int = Field(0, ge=0)
    optim: Optim = Optim()
    regularize: Regularize = Regularize()

    @model_validator(mode="after")
    def _watching_needs_a_slice(self) -> Recipe:
        for name, watches in (
            ("patience", self.patience),
            ("schedule", self.schedule == "plateau"),
        ):
            if watches and self.select_on == "none":
                raise DataError(
                    "Early stopping and plateaus watch a slice of the data",
                    f"{name} is {getattr(self, name)!r} and select_on is 'none'",
                    "Set select_on = 'inner', or use a fixed schedule (patience = 0)",
                )
        if self.optim.head_only_epochs >= self.epochs:
            raise DataError(
                "The whole network learns in some epochs",
                f"head_only_epochs is {self.optim.head_only_epochs} of {self.epochs}",
                "Set fewer head-only epochs, or more epochs",
            )
        return self

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Recipe:
        """A named recipe, with changes.

        Raises
        ------
        UsageError
            There is none of that name.
        """
        return cls(**{**preset_values(name), **changes})


def preset_values(name: str) -> dict[str, Any]:
    """The keys that a named recipe sets, as in `recipes.toml`."""
    presets = read_toml(Path(__file__).with_name("recipes.toml"))
    if name not in presets:
        raise UsageError(
            "A recipe preset has a known name", f"got '{name}'", did_you_mean(name, presets)
        )
    return dict(presets[name])


class Member(Settings):
    """An architecture, its input, and its recipe.

    Parameters
    ----------
    network : str
        One of the catalogue's names (`resnet18`, `efficientnetv2_b0`, ...) or any timm name.
    name : str
        What the member is called in tables and folders; the network's name where empty.
    image_size : int, optional
        Side of the square input in pixels; the network's native one where absent.
    pretrained : bool
        Start from timm's published weights (downloaded on first use).
    weights : path, optional
        Start from this checkpoint instead (`.safetensors`, or `.pt`/`.pth` of tensors only).
    drop_rate : float
        Dropout before the classifier.
    head : tuple of int
        Widths of dense layers between pooling and classifier; empty for the network's own head.
    seed : int
        Members that differ only in their seed are different members.
    bag : bool
        Train on a bootstrap of the training folds' groups (Breiman 1996, "Bagging predictors").
    tuned : bool
        The recipe was tuned on the folds of this run: its out-of-fold figures are stamped optimistic.
    recipe : Recipe

    Examples
    --------
    >>> Member("resnet18", image_size=64).name
    'resnet18'
    """

    network: str = Field(min_length=1)
    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$|^$", max_length=80)
    image_size: int | None = Field(None, ge=8, le=2048)
    pretrained: bool = True
    weights: Path | None = None
    drop_rate: float = Field(0.0, ge=0, lt=1)
    head: tuple[int, ...] = ()
    seed: int = 0
    bag: bool = False
    tuned: bool = False
    recipe: Recipe = Recipe()

    def __init__(self, network: str, **values: Any) -> None:
        super().__init__(network=network, **{"name": network.replace("/", "_"), **values})

    @property
    def input_size(self) -> int:
        """Side of the square input in pixels."""
        return self.image_size or native_size(self.network)

    @property
    def eval_size(self) -> int:
        """Side of the square input that predictions are made at, in pixels."""
        return self.recipe.regularize.eval_size or self.input_size

    @property
    def start(self) -> str:
        """What its first weights are, in words."""
        if self.weights:
            return f"checkpoint {self.weights.name}"
        return "timm's weights" if self.starts_published else "random"

    @property
    def starts_published(self) -> bool:
        """Whether its first weights are those that timm publishes."""
        return (
            self.pretrained and not self.weights and not timm_name(self.network).startswith("ek_")
        )

    def facts(self, image_size: int) -> dict[str, Any]:
        """Everything that decides this member's logits, as plain JSON values."""
        facts: dict[str, Any] = self.model_dump(mode="json", exclude={"name", "weights"})
        facts["image_size"] = image_size
        facts["weights"] = digest_file(self.weights) if self.weights else None
        facts["pretrained"] = self.starts_published
        return facts

    def digest(self, image_size: int) -> str:
        """SHA-256 of `facts`."""
        return digest_json(self.facts(image_size))
