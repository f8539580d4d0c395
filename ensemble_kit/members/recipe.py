"""What a member is and how it is trained: two frozen tables.

Knows no torch: a recipe can be read, printed and compared without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ensemble_kit.errors import DataError
from ensemble_kit.files import digest_file, digest_json
from ensemble_kit.settings import Settings


class Recipe(Settings):
    """How a member is trained.

    Parameters
    ----------
    epochs : int
    batch_size : int
        Images per optimizer step.
    learning_rate : float
        Peak rate of AdamW (Loshchilov & Hutter 2019, "Decoupled weight decay regularization").
    weight_decay : float
        On weights; never on biases and normalisation layers.
    warmup_epochs : float
        Linear rise of the rate from 0; may be a fraction.
    schedule : {"cosine", "constant"}
        After the warm-up, per step (Loshchilov & Hutter 2017, "SGDR").
    label_smoothing : float
    class_weights : {"none", "balanced"}
        `balanced` weighs the loss by n_samples / (n_classes * count), counted on the training part.
    augmentation : str
        A preset's name; see `ensemble_kit.images.augment.PRESETS`.
    sampling : {"none", "oversample", "undersample", "balanced"}
        On the training part only; validation and test keep their prior.
    select_on : {"none", "inner", "kept-fold"}
        What chooses the weights: `none` keeps those of the last epoch; `inner` keeps the best
        epoch on a group-safe slice of the training folds; `kept-fold` chooses on the very fold
        whose logits are kept, which is optimistic, and stamped so everywhere.
    patience : int
        Stop after so many epochs without improvement; 0 never stops early. Needs `select_on`.

    Examples
    --------
    >>> Recipe(epochs=30).batch_size
    32
    """

    epochs: int = Field(15, ge=1)
    batch_size: int = Field(32, ge=2)
    learning_rate: float = Field(5e-4, gt=0, le=10)
    weight_decay: float = Field(0.02, ge=0)
    warmup_epochs: float = Field(1.0, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    augmentation: str = "light"
    sampling: Literal["none", "oversample", "undersample", "balanced"] = "none"
    select_on: Literal["none", "inner", "kept-fold"] = "none"
    patience: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _patience_watches_something(self) -> Recipe:
        if self.patience and self.select_on == "none":
            raise DataError(
                "Early stopping watches a slice of the data",
                f"patience is {self.patience} and select_on is 'none'",
                "Set select_on = 'inner', or patience = 0 for a fixed schedule",
            )
        return self


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
    seed : int
        Members that differ only in their seed are different members.
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
    seed: int = 0
    tuned: bool = False
    recipe: Recipe = Recipe()

    def __init__(self, network: str, **values: Any) -> None:
        super().__init__(network=network, **{"name": network.replace("/", "_"), **values})

    def facts(self, image_size: int) -> dict[str, Any]:
        """Everything that decides this member's logits, as plain JSON values."""
        facts: dict[str, Any] = self.model_dump(mode="json", exclude={"name", "weights"})
        facts["image_size"] = image_size
        facts["weights"] = digest_file(self.weights) if self.weights else None
        if self.weights:
            facts["pretrained"] = False
        return facts

    def digest(self, image_size: int) -> str:
        """SHA-256 of `facts`."""
        return digest_json(self.facts(image_size))
