"""Every combiner by its name; the classes are loaded on first use. Does not import torch."""

from __future__ import annotations

import importlib
from typing import Any

from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.predictions.method_predictions import Combined

# Name on the command line -> (module, class), in the order of every table.
COMBINERS = {
    "best-member": ("baselines", "BestMember"),
    "mean": ("rules.averaging", "MeanProba"),
    "vote": ("rules.voting", "MajorityVote"),
    "mean-logits": ("rules.averaging", "MeanLogits"),
    "median": ("rules.averaging", "MedianProba"),
    "trimmed-mean": ("rules.averaging", "TrimmedMeanProba"),
    "max": ("rules.averaging", "MaxProba"),
    "min": ("rules.averaging", "MinProba"),
    "product": ("rules.averaging", "ProductProba"),
    "simplex": ("weights.simplex", "SimplexWeights"),
    "classwise": ("weights.simplex", "ClasswiseWeights"),
    "greedy": ("weights.greedy_selection", "GreedySelection"),
    "knora-u": ("dynamic_selection", "KnoraUnion"),
    "knora-e": ("dynamic_selection", "KnoraEliminate"),
    "ola": ("dynamic_selection", "LocalAccuracy"),
    "lca": ("dynamic_selection", "LocalClassAccuracy"),
    "temperature": ("calibrated", "TemperatureScaled"),
    "calibrated-members": ("calibrated", "CalibratedMembers"),
    "dirichlet": ("calibrated", "DirichletMembers"),
    "logistic": ("stacking.linear", "LogisticStacker"),
    "ridge": ("stacking.linear", "RidgeStacker"),
    "boosting": ("stacking.boosting", "BoostingStacker"),
    "mlp": ("stacking.mlp", "MLPStacker"),
    "feature-mlp": ("stacking.feature_mlp", "FeatureMLP"),
    "pooled-mlp": ("stacking.pooled_mlp", "PooledMLP"),
    "two-layer": ("stacking.super_learner", "TwoLayerStack"),
    "oracle": ("baselines", "Oracle"),
}

# Selections of members image by image; they need a large and varied pool.
DYNAMIC = ("knora-u", "knora-e", "ola", "lca")
# Methods of publications, for comparison.
PUBLISHED = ("pooled-mlp",)

__all__ = [
    "COMBINERS",
    "DYNAMIC",
    "PUBLISHED",
    "Combined",
    "Combiner",
    "combiner_class",
    "make_combiner",
    "name_of",
]


def __getattr__(name: str) -> Any:
    for module, attribute in COMBINERS.values():
        if attribute == name:
            return getattr(importlib.import_module(f"ensemble_kit.combiners.{module}"), name)
    raise AttributeError(f"'{name}' is not a combiner")


def __dir__() -> list[str]:
    return sorted([*__all__, *(attribute for _, attribute in COMBINERS.values())])


def combiner_class(name: str) -> type[Combiner]:
    """The class of the combiner called `name`.

    Raises
    ------
    UsageError
        No combiner has that name.
    """
    if name not in COMBINERS:
        raise UsageError(
            f"Unknown method '{name}'", "a method is a combiner", did_you_mean(name, COMBINERS)
        )
    module, attribute = COMBINERS[name]
    found: type[Combiner] = getattr(
        importlib.import_module(f"ensemble_kit.combiners.{module}"), attribute
    )
    return found


def make_combiner(name: str, **options: Any) -> Combiner:
    """An unfitted combiner by name.

    Parameters
    ----------
    name : str
        A key of `COMBINERS`.
    **options
        Parameters of its class.

    Raises
    ------
    UsageError
        The name is unknown, or the combiner does not have an option.

    Examples
    --------
    >>> make_combiner("vote", ties="severity")
    MajorityVote(ties='severity')
    """
    found = combiner_class(name)
    made = found()
    return made.set_params(**options) if options else made


def name_of(combiner: Combiner) -> str:
    """The name of a combiner in `COMBINERS`, else its class name in lower case."""
    for name, (_, attribute) in COMBINERS.items():
        if attribute == type(combiner).__name__:
            return name
    return type(combiner).__name__.lower()
