"""What an augmentation may do, and the named ones: a table each in presets.toml.

Does not know how they are done (augment does).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ensemble_kit.errors import DataError, UsageError, did_you_mean
from ensemble_kit.files import read_toml


class Augmentation(BaseModel):
    """Ranges to draw from, for each sample on its own; zero is off.

    Parameters
    ----------
    flip_horizontal, flip_vertical : bool
        Mirror half of the images.
    quarter_turns : bool
        Turn by 90 degrees; with both flips, all eight poses are equally likely.
    rotation : float
        Degrees, both ways.
    shift : float
        Share of the image's height, both ways, on each axis.
    zoom : float
        Scale between 1 - zoom and 1 + zoom.
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

    model_config = ConfigDict(frozen=True, extra="forbid")

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


def read_presets(path: str | Path) -> dict[str, Augmentation]:
    """The augmentations of a TOML file: one table each.

    Raises
    ------
    DataError
        No TOML, an unknown key, or a value outside its range.
    """
    made = {}
    for name, table in read_toml(path).items():
        try:
            made[name] = Augmentation.model_validate(table)
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(map(str, fault["loc"])) or name
            raise DataError(
                f"Augmentation [{name}] has known keys and values in range",
                f"{key}: {fault['msg']} (got {fault['input']!r})",
                did_you_mean(key, Augmentation.model_fields),
            ) from error
    return made


def preset(name: str) -> Augmentation:
    """The augmentation called `name`.

    Raises
    ------
    UsageError
        There is none.

    Examples
    --------
    >>> preset("none").is_identity
    True
    """
    if name not in PRESETS:
        raise UsageError(
            "The augmentation must be a named one", f"got '{name}'", did_you_mean(name, PRESETS)
        )
    return PRESETS[name]


PRESETS = read_presets(Path(__file__).with_name("presets.toml"))
