"""What an augmentation may do, and the named ones: a table each in presets.toml.

Does not know how they are done (augment does), nor where a user writes one of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer

from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.files import read_toml
from ensemble_kit.settings import Settings


class Augmentation(Settings):
    """Ranges to draw from, for each sample on its own; zero is off.

    Parameters
    ----------
    flip_horizontal, flip_vertical : bool
        Mirror half of the images.
    quarter_turns : bool
        Turn by 0, 90, 180 or 270 degrees; with either flip, all eight poses are equally likely.
    rotation : float
        Degrees, both ways.
    shift : float
        Share of the image's height, both ways, on each axis.
    zoom : float
        The frame spans 1 - zoom to 1 + zoom of the image's height: below 1 magnifies.
    zoom_together : bool
        Whether both axes zoom alike.
    shear : float
        Slant as a share of the height, both ways.
    fill : {"reflect", "border", "white"}
        What comes in from outside.
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
        """Whether it leaves images alone."""
        flips = self.flip_horizontal or self.flip_vertical or self.quarter_turns
        return not (
            flips or self.has_affine or self.has_color or self.stain or self.policy != "none"
        )


def _as_table(value: Any) -> Any:
    if isinstance(value, Mapping):
        return Augmentation(**value)
    if not isinstance(value, (str, Augmentation)):
        raise ValueError("it is the name of an augmentation, or a table of its keys")
    return value


def _as_written(value: str | Augmentation) -> str | dict[str, Any]:
    return value if isinstance(value, str) else value.model_dump(exclude_defaults=True)


# A setting: one of `PRESETS` by its name, or an augmentation itself, kept as the keys that are on.
NameOrAugmentation = Annotated[
    str | Augmentation, BeforeValidator(_as_table), PlainSerializer(_as_written)
]


def preset(name: str | Augmentation, own: Mapping[str, Augmentation] | None = None) -> Augmentation:
    """The augmentation called `name`, of one's own or of `PRESETS`; one that is given is itself.

    Raises
    ------
    UsageError
        There is none.

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
            "The augmentation must be a named one", f"got '{name}'", did_you_mean(name, known)
        )
    return known[name]


PRESETS = {
    name: Augmentation(**table)
    for name, table in read_toml(Path(__file__).with_name("presets.toml")).items()
}
