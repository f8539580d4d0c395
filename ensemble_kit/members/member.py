"""What a member is: a network, its input, and the recipe that trains it.

Plain values; knows no torch and no run.
"""

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

# What a member's default name says where it differs.
PLAIN = {"seed": 0, "bag": False, "stain": None, "stain_norm": None, "color": "rgb"}
# Settings that are facts where they are used: folds that were finished before them stay finished.
LATER = {"stain": None, "stain_norm": None, "color": "rgb"}


class Member(Settings):
    """An architecture, its input, and its recipe.

    Parameters
    ----------
    network : str
        One of the catalogue's names (`resnet18`, `efficientnetv2_b0`, ...) or any timm name.
    name : str
        What the member is called in tables and folders. Without one it is the network's name, and
        what is said of seed, bag, stain and colour: `resnet18-s1`, `resnet18-bag2`, `resnet18-hed`.
    image_size : int, optional
        Side of the square input in pixels; the network's native one where absent. Not in the
        name, since it mostly is the same for all members.
    stain : {"he", "ihc"}, optional
        One image of each pair of H&E and IHC; all that the data were read with where absent.
    stain_norm : {"none", "macenko", "reinhard"}, optional
        Stain normalisation of H&E; that of the data where absent.
    color : {"rgb", "grayscale", "hed", "lab"}
        The colour space that the network sees: `grayscale` is one channel, `hed` the amounts of
        haematoxylin, eosin and DAB. Augmentation comes before it, in RGB.
    pretrained : bool
        Start from timm's published weights (downloaded on first use).
    weights : path, optional
        Start from this checkpoint instead (`.safetensors`, or `.pt`/`.pth` of tensors only).
    drop_rate : float
        Dropout before the classifier. Without it, 0.5 for `basic_cnn` and `cnn4`, which are
        described with dropout (Srivastava et al. 2014, "Dropout"), and 0 for all others.
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
    drop_rate: float = Field(ge=0, lt=1)  # the network's own where it is not said
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
        """Side of the square input that predictions are made at, in pixels."""
        return self.recipe.regularize.eval_size or self.input_size

    @property
    def tile_spec(self) -> TileSpec:
        """The tiles that it trains on."""
        return TileSpec(self.input_size, self.stain, self.stain_norm)

    @property
    def eval_spec(self) -> TileSpec:
        """The tiles that predictions are made of."""
        return TileSpec(self.eval_size, self.stain, self.stain_norm)

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
