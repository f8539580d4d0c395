"""The search space: the tuned settings of a member and their ranges. Does not import Optuna."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol

from pydantic import Field, model_validator

from ensemble_kit.members.member import Member
from ensemble_kit.settings import Settings, SettingsError, merged

Kind = Literal["float", "log", "log2", "int", "choice"]
Range = bool | tuple[float, float]
IntRange = bool | tuple[int, int]

# Setting -> (its path in a member, scale of its axis, default range or choices).
PLACES: dict[str, tuple[tuple[str, ...], Kind, tuple[Any, ...]]] = {
    "learning_rate": (("recipe", "learning_rate"), "log", (1e-5, 1e-1)),
    "batch_size": (("recipe", "batch_size"), "log2", (8, 256)),
    "weight_decay": (("recipe", "weight_decay"), "log", (1e-4, 0.5)),
    "head_rate": (("recipe", "optim", "head_rate"), "log", (1.0, 10.0)),
    "layer_decay": (("recipe", "optim", "layer_decay"), "float", (0.6, 1.0)),
    "drop_rate": (("drop_rate",), "float", (0.0, 0.6)),
    "drop_path": (("recipe", "regularize", "drop_path"), "float", (0.0, 0.3)),
    "label_smoothing": (("recipe", "label_smoothing"), "float", (0.0, 0.2)),
    "mixup": (("recipe", "regularize", "mixup"), "float", (0.0, 1.0)),
    "ema_decay": (("recipe", "regularize", "ema_decay"), "choice", (0.0, 0.99, 0.998)),
    "epochs": (("recipe", "epochs"), "int", (5, 30)),
    "image_size": (("image_size",), "choice", (64, 128, 224)),
    "augmentation": (("recipe", "augmentation"), "choice", ("light", "strong-affine", "trivial")),
    "imbalance": (("recipe", "imbalance"), "choice", ("none", "balanced", "oversample")),
}
IMBALANCE = {
    "none": {"class_weights": "none", "sampling": "none"},
    "balanced": {"class_weights": "balanced", "sampling": "none"},
    "effective": {"class_weights": "effective", "sampling": "none"},
    "oversample": {"class_weights": "none", "sampling": "oversample"},
    "undersample": {"class_weights": "none", "sampling": "undersample"},
}
# Ranges of the learning rate for pretrained networks, which need lower rates than random weights.
PRETRAINED_RATES, ATTENTION_RATES = (1e-5, 1e-2), (1e-6, 3e-3)
ATTENTION = ("vit", "deit", "swin", "beit", "eva", "cait", "coat", "maxvit", "xcit", "volo")


class Space(Settings):
    """The tuned settings: true for the default range, a range, a list of choices, or false.

    Parameters
    ----------
    learning_rate : bool or [low, high]
        On a logarithmic scale. The default range depends on the network and its initial weights.
    batch_size : bool or [low, high]
        Powers of two. The default range ends at a quarter of the training images of a fold.
    weight_decay, head_rate : bool or [low, high]
        On a logarithmic scale. `head_rate` is the head's learning rate as a multiple of the backbone's.
    layer_decay, drop_rate, drop_path, label_smoothing, mixup : bool or [low, high]
    epochs : bool or [low, high]
    image_size, ema_decay, augmentation, imbalance : bool or list of choices
        `image_size` is the side of the square input in pixels. `imbalance` is one of none, balanced,
        effective (class weights), oversample and undersample.

    Examples
    --------
    >>> Space(weight_decay=True).searched
    ('learning_rate', 'batch_size', 'weight_decay')
    """

    learning_rate: Range = True
    batch_size: IntRange = True
    weight_decay: Range = False
    head_rate: Range = False
    layer_decay: Range = False
    drop_rate: Range = False
    drop_path: Range = False
    label_smoothing: Range = False
    mixup: Range = False
    epochs: IntRange = False
    image_size: bool | tuple[int, ...] = False
    ema_decay: bool | tuple[float, ...] = False
    augmentation: bool | tuple[str, ...] = False
    imbalance: bool | tuple[Literal["none", "balanced", "effective", "oversample", "undersample"], ...] = Field(False)  # fmt: skip

    @model_validator(mode="after")
    def _ranges_rise(self) -> Space:
        for name in self.searched:
            given, kind = getattr(self, name), PLACES[name][1]
            if given is True:
                continue
            if kind == "choice":
                right, rule = len(set(given)) >= 2, "two or more different choices"
            else:
                low = 2 if kind == "log2" else 1 if kind == "int" else 0
                right = low <= given[0] < given[1] and (kind != "log" or given[0] > 0)
                rule = f"[low, high] with {'0 < ' if kind == 'log' else f'{low} <= '}low < high"
            if not right:
                raise SettingsError(
                    f"Invalid value {list(given)} for '{{key}}'",
                    f"it needs {rule}",
                    "Change that value",
                    key=name,
                )
        if not self.searched:
            raise SettingsError(
                "No setting is tuned: {key} is empty",
                "at least one setting must be tuned",
                "Set one of them to true, e.g. learning_rate = true",
                key="space",
            )
        return self

    @property
    def searched(self) -> tuple[str, ...]:
        """Names of the settings that are tuned."""
        return tuple(name for name in PLACES if getattr(self, name) is not False)


class TuneSettings(Settings):
    """The `[tune]` table of a settings file."""

    space: Space = Space()


class Suggests(Protocol):
    """The methods of an Optuna trial that a dimension needs."""

    def suggest_categorical(self, name: str, choices: Any) -> Any: ...

    def suggest_int(self, name: str, low: int, high: int) -> int: ...

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float: ...


@dataclasses.dataclass(frozen=True)
class Dimension:
    """One axis of a member's space: a range, or choices, that include the member's own value.

    Parameters
    ----------
    low, high : float
        Limits of the range; for `log2` the exponents. Unused for choices.
    """

    name: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    choices: tuple[Any, ...] = ()

    @property
    def parameter(self) -> str:
        """Its name in the study."""
        return f"{self.name}_log2" if self.kind == "log2" else self.name

    def coordinate(self, value: Any) -> Any:
        """The coordinate of a setting's value in the study: the nearest point of the axis.

        Examples
        --------
        >>> Dimension("batch_size", "log2", 3, 6).coordinate(24)
        5
        """
        if self.kind == "choice":  # a custom augmentation is not among the choices
            return value if value in self.choices else self.choices[0]
        at = math.log2(value) if self.kind == "log2" else value
        at = min(max(at, self.low), self.high)
        return round(at) if self.kind in {"log2", "int"} else float(at)

    def value(self, coordinate: Any) -> Any:
        """The setting's value at a coordinate of the study."""
        return 2 ** int(coordinate) if self.kind == "log2" else coordinate

    def suggested(self, trial: Suggests) -> Any:
        """The setting's value that a trial of Optuna suggests."""
        if self.kind == "choice":
            return trial.suggest_categorical(self.parameter, self.choices)
        if self.kind in {"log2", "int"}:
            return self.value(trial.suggest_int(self.parameter, int(self.low), int(self.high)))
        return trial.suggest_float(self.parameter, self.low, self.high, log=self.kind == "log")

    def holds(self, value: Any) -> bool:
        """Whether a setting's value lies on the axis."""
        return self.kind == "choice" or math.isclose(self.value(self.coordinate(value)), value)


def dimensions(space: Space, member: Member, n_learning: int) -> tuple[Dimension, ...]:
    """The axes of a member's space; each one is widened to include the member's own value.

    Parameters
    ----------
    n_learning : int
        Training images of a fold; the default range of batch sizes ends at a quarter of them.
    """
    own = own_values(member)
    return tuple(_dimension(name, space, member, own[name], n_learning) for name in space.searched)


def _dimension(name: str, space: Space, member: Member, own: Any, n_learning: int) -> Dimension:
    _, kind, default = PLACES[name]
    given = getattr(space, name)
    if kind == "choice":
        choices = default if given is True else given
        known = own in choices or not isinstance(own, (str, float, int))
        return Dimension(name, kind, choices=tuple(choices) if known else (*choices, own))
    low, high = _default_range(name, member, n_learning, default) if given is True else given
    low, high = (min(low, own), max(high, own)) if kind != "log" or own > 0 else (low, high)
    if kind == "log2":
        return Dimension(
            name, kind, math.floor(math.log2(low)), max(math.floor(math.log2(high)), 1)
        )
    return Dimension(name, kind, low, high)


def _default_range(
    name: str, member: Member, n_learning: int, default: tuple[float, float]
) -> tuple[float, float]:
    if name == "batch_size":
        high = min(default[1], max(n_learning // 4, 2))
        return min(default[0], high), high
    if name == "learning_rate" and (member.starts_published or member.weights):
        is_attention = member.network.rpartition("/")[2].startswith(ATTENTION)
        return ATTENTION_RATES if is_attention else PRETRAINED_RATES
    return default


def own_values(member: Member) -> dict[str, Any]:
    """The member's own value of every setting that can be tuned."""
    recipe = member.recipe
    values: dict[str, Any] = {}
    for name, (path, *_) in PLACES.items():
        if name == "imbalance":
            values[name] = recipe.class_weights if recipe.sampling == "none" else recipe.sampling
            continue
        if name == "image_size":
            values[name] = member.input_size
            continue
        value: Any = member
        for key in path:
            value = getattr(value, key)
        values[name] = value
    return values


def placed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Tuned values as nested settings of a member.

    Examples
    --------
    >>> placed({"learning_rate": 0.001, "head_rate": 10.0, "drop_rate": 0.2})
    {'recipe': {'learning_rate': 0.001, 'optim': {'head_rate': 10.0}}, 'drop_rate': 0.2}
    """
    out: dict[str, Any] = {}
    for name, value in values.items():
        path: tuple[str, ...] = PLACES[name][0]
        nested: Any = {path[-1]: value} if name != "imbalance" else dict(IMBALANCE[value])
        for key in reversed(path[:-1]):
            nested = {key: nested}
        out = merged(out, nested)
    return out


def with_values(member: Member, values: Mapping[str, Any]) -> Member:
    """The member with these settings instead of its own."""
    nested = placed(values)
    given_values = nested.pop("recipe", {})
    recipe = member.recipe.model_copy(
        update={
            key: getattr(member.recipe, key).model_copy(update=value)
            if isinstance(value, Mapping)
            else value
            for key, value in given_values.items()
        }
    )
    return member.model_copy(update={**nested, "recipe": recipe})
