"""A member: a network, its input, and the recipe that trains it. Does not import torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ensemble_kit.files import digest_file, digest_json
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.members.naming import name_of
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.registry import drop_rate_of, native_size, refuse_place, timm_name
from ensemble_kit.settings import Settings

# Settings that a member's default name shows if they differ from these values.
PLAIN = {"seed": 0, "bag": False, "stain": None, "stain_norm": None, "color": "rgb"}
# Later settings: left out of `facts` at their defaults, so that older finished folds stay valid.
LATER = {"stain": None, "stain_norm": None, "color": "rgb"}


class Member(Settings):
    """An architecture, its input, and its recipe.

    Parameters
    ----------
    network : str
        A name of the catalogue (`resnet18`, `efficientnetv2_b0`, ...) or any timm name.
    name : str
        Name of the member in tables and folders. Default: the network's name with the seed, bag,
        stain and colour that differ: `resnet18-s1`, `resnet18-bag2`, `resnet18-hed`.
    image_size : int, optional
        Side of the square input in pixels. Default: the network's native size.
    stain : {"he", "ihc"}, optional
        Use one image of each H&E/IHC pair. Default: the images as the data are read.
    stain_norm : {"none", "macenko", "reinhard"}, optional
        Stain normalisation of H&E. Default: that of the data.
    color : {"rgb", "grayscale", "hed", "lab"}
        Colour space of the network's input: `grayscale` is one channel, `hed` the amounts of
        haematoxylin, eosin and DAB. Images are augmented in RGB and converted afterwards.
    pretrained : bool
        Start from timm's published weights (downloaded on first use).
    weights : path, optional
        Start from this checkpoint instead (`.safetensors`, or `.pt`/`.pth` of tensors only).
    drop_rate : float
        Dropout before the classifier (Srivastava et al. 2014, "Dropout"). Default: 0.5 for
        `basic_cnn`, `basic_cnn_flat` and `cnn4`, whose papers use dropout; 0 for all others.
    head : tuple of int
        Widths of dense layers between pooling and classifier; empty for the network's own head.
    seed : int
        Seed of the training. Members can differ in their seed only.
    bag : bool
        Train on a bootstrap of the training folds' groups (Breiman 1996, "Bagging predictors").
    tuned : bool
        The recipe was tuned on the folds of this run. A caveat says that its out-of-fold metrics
        are optimistic.
    recipe : Recipe

    Examples
    --------
    >>> Member("resnet18", image_size=64).name
    'resnet18'
    >>> Member("resnet18", color="hed", seed=1).name
    'resnet18-hed-s1'
    """

    network: str = Field(min_length=1)
    name: str = Field("", pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$|^$", max_length=80)
    image_size: int | None = Field(None, ge=8, le=2048)
    stain: Literal["he", "ihc"] | None = None
    stain_norm: Literal["none", "macenko", "reinhard"] | None = None
    color: Literal["rgb", "grayscale", "hed", "lab"] = "rgb"
    pretrained: bool = True
    weights: Path | None = None
    drop_rate: float = Field(ge=0, lt=1)  # default: the network's own
    head: tuple[int, ...] = ()
    seed: int = 0
    bag: bool = False
    tuned: bool = False
    recipe: Recipe = Recipe()

    def __init__(self, network: str, **values: Any) -> None:
        given_values = {k: values[k] for k, plain in PLAIN.items() if values.get(k, plain) != plain}
        refuse_place(str(network))
        name = name_of(str(network).replace("/", "_"), given_values)
        own = {"name": name, "drop_rate": drop_rate_of(str(network))}
        super().__init__(network=network, **{**own, **values})

    @property
    def input_size(self) -> int:
        """Side of the square input in pixels."""
        return self.image_size or native_size(self.network)

    @property
    def eval_size(self) -> int:
        """Side of the square input for predictions, in pixels."""
        return self.recipe.regularize.eval_size or self.input_size

    @property
    def tile_spec(self) -> TileSpec:
        """The tiles for training."""
        return TileSpec(self.input_size, self.stain, self.stain_norm)

    @property
    def eval_spec(self) -> TileSpec:
        """The tiles for predictions."""
        return TileSpec(self.eval_size, self.stain, self.stain_norm)

    @property
    def start(self) -> str:
        """A description of its initial weights."""
        if self.weights:
            return f"checkpoint {self.weights.name}"
        return "timm's weights" if self.starts_published else "random"

    @property
    def starts_published(self) -> bool:
        """Whether training starts from the weights that timm publishes."""
        return (
            self.pretrained and not self.weights and not timm_name(self.network).startswith("ek_")
        )

    def facts(self, image_size: int) -> dict[str, Any]:
        """Everything that decides this member's logits, as plain JSON values."""
        facts: dict[str, Any] = self.model_dump(mode="json", exclude={"name", "weights"})
        regularize = facts["recipe"]["regularize"]
        for table, later in (
            (facts, LATER),
            (facts["recipe"], {"snapshots": 0}),
            (facts["recipe"]["optim"], {"cache_features": False}),
            (regularize, {"average_beside": False, "mixup": 0.0, "cutmix": 0.0}),
        ):
            for key in [k for k, unused in later.items() if table[k] == unused]:
                del table[key]
        facts["image_size"] = image_size
        facts["weights"] = digest_file(self.weights) if self.weights else None
        facts["pretrained"] = self.starts_published
        return facts

    def digest(self, image_size: int) -> str:
        """SHA-256 of `facts`."""
        return digest_json(self.facts(image_size))
