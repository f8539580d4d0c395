"""The settings of an augmentation, and the named presets of presets.toml."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.files import read_toml
from ensemble_kit.settings import Settings


class Augmentation(Settings):
    """Ranges of the random changes, drawn for each sample; zero is off.

    Parameters
    ----------
    flip_horizontal, flip_vertical : bool
        Mirror half of the images.
    quarter_turns : bool
        Turn by 0, 90, 180 or 270 degrees; with a flip, all eight symmetries are equally likely.
    rotation : float
        Degrees, both ways.
    shift : float
        Share of the image's height, both ways, on each axis.
    zoom : float
        The frame covers 1 - zoom to 1 + zoom of the image's height: below 1 magnifies.
    zoom_together : bool
        Whether both axes zoom by the same factor.
    shear : float
        Slant as a share of the height, both ways.
    fill : {"reflect", "border", "white"}
        What fills the area outside the image.
    brightness, contrast, saturation : float
        Factors between 1 - x and 1 + x.
    hue : float
        Turn about the grey axis, as a share of a full circle.
    stain : float
        Spread of the factors on haematoxylin, eosin and DAB.
    policy : {"none", "trivial", "rand"}
        TrivialAugment (one operation a sample) or RandAugment (two).

    Examples
    --------
    >>> Augmentation(flip_horizontal=True, rotation=10).has_affine
    True
    """

    flip_horizontal: bool = False
    flip_vertical: bool = False
    quarter_turns: bool = False
    rotation: float = Field(0.0, ge=0, le=180)
    shift: float = Field(0.0, ge=0, lt=1)
    zoom: float = Field(0.0, ge=0, lt=1)
    zoom_together: bool = True
    shear: float = Field(0.0, ge=0, le=1)
    fill: Literal["reflect", "border", "white"] = "reflect"
    brightness: float = Field(0.0, ge=0, lt=1)
    contrast: float = Field(0.0, ge=0, lt=1)
    saturation: float = Field(0.0, ge=0, le=1)
    hue: float = Field(0.0, ge=0, le=0.5)
    stain: float = Field(0.0, ge=0, lt=1)
    policy: Literal["none", "trivial", "rand"] = "none"

    @property
    def has_affine(self) -> bool:
        return any((self.rotation, self.shift, self.zoom, self.shear))

    @property
    def has_color(self) -> bool:
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def is_identity(self) -> bool:
        """Whether images stay unchanged."""
        flips = self.flip_horizontal or self.flip_vertical or self.quarter_turns
        return not (
            flips or self.has_affine or self.has_color or self.stain or self.policy != "none"
        )


def _as_table(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Augmentation(**value)
    if not isinstance(value, (str, Augmentation)):
        raise ValueError("an augmentation is a name, or a table of keys")
    return value


def _as_written(value: str | Augmentation) -> str | dict[str, Any]:
    return value if isinstance(value, str) else value.model_dump(exclude_defaults=True)


# A setting: the name of one of `PRESETS`, or an augmentation, stored as the keys that are on.
NameOrAugmentation = Annotated[
    str | Augmentation, BeforeValidator(_as_table), PlainSerializer(_as_written)
]


def preset(name: str | Augmentation, own: Mapping[str, Augmentation] | None = None) -> Augmentation:
    """The augmentation called `name`, the user's or one of `PRESETS`. An augmentation is returned as it is.

    Raises
    ------
    UsageError
        There is no such augmentation.

    Examples
    --------
    >>> preset("none").is_identity
    True
    """
    if isinstance(name, Augmentation):
        return name
    known = {**PRESETS, **(own or {})}
    if name not in known:
        raise UsageError(
            f"Unknown augmentation '{name}'",
            f"the augmentations are {', '.join(known)}",
            did_you_mean(name, known),
        )
    return known[name]


PRESETS = {
    name: Augmentation(**table)
    for name, table in read_toml(Path(__file__).with_name("presets.toml")).items()
}
