"""A proxy: a cheaper form of the trials with fewer epochs, smaller images, or fewer patients."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial
from scipy.stats import spearmanr

from ensemble_kit.errors import UsageError
from ensemble_kit.folds import Folds
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.member import Member
from ensemble_kit.seeding import generator
from ensemble_kit.tune.trials import DEFAULT, ORIGIN, VALUES, finished

PROXY = "proxy"
# Trials that are trained in full, beside the default: the best ones, and others over all ranks.
N_BEST, N_OTHERS = 2, 2


@dataclasses.dataclass(frozen=True)
class Proxy:
    """The settings of a proxy; None leaves a setting unchanged.

    Parameters
    ----------
    epochs : int, optional
    image_size : int, optional
        Side of the square input in pixels.
    images : float, optional
        Share of the patients of each fold, between 0 and 1.

    Examples
    --------
    >>> str(Proxy(epochs=3, images=0.5))
    'epochs=3, images=0.5'
    """

    epochs: int | None = None
    image_size: int | None = None
    images: float | None = None

    def __post_init__(self) -> None:
        given = dataclasses.asdict(self)
        if all(value is None for value in given.values()):
            raise UsageError(
                "The proxy has no setting",
                f"it needs one of {', '.join(given)}",
                "Use e.g. --proxy epochs=3,image_size=64",
            )
        right = {
            "epochs": self.epochs is None or self.epochs >= 1,
            "image_size": self.image_size is None or self.image_size >= 8,
            "images": self.images is None or 0 < self.images < 1,
        }
        for name, is_right in right.items():
            if not is_right:
                raise UsageError(
                    f"Invalid proxy: {name}={given[name]}",
                    "a proxy has 1 epoch or more, image_size 8 or more, and images between 0 and 1",
                    "Change that value",
                )

    def __str__(self) -> str:
        given = dataclasses.asdict(self)
        return ", ".join(f"{name}={value:g}" for name, value in given.items() if value is not None)

    def member(self, member: Member) -> Member:
        """The member with the proxy's epochs and image size."""
        recipe = member.recipe
        if self.epochs is not None:
            recipe = recipe.model_copy(update={"epochs": self.epochs})
        size = {} if self.image_size is None else {"image_size": self.image_size}
        return member.model_copy(update={"recipe": recipe, **size})

    def part(self, train: Manifest, folds: Folds, seed: int) -> tuple[Manifest, Folds]:
        """A share of the patients of each fold and class, at least one of each."""
        if self.images is None:
            return train, folds
        fold, chosen = folds.of(train), set[str]()
        rng = generator(seed, "proxy")
        for k in range(folds.n_splits):
            for label in range(train.n_classes):
                groups = np.unique(train.groups[(fold == k) & (train.labels == label)])
                n_chosen = math.ceil(self.images * len(groups))
                chosen |= set(rng.permutation(groups)[:n_chosen].tolist())
        rows = np.isin(train.groups, sorted(chosen))
        return train.take(rows), Folds(train.sample_ids[rows], fold[rows], folds.split_by)


@dataclasses.dataclass(frozen=True)
class ProxyTrial:
    """A trial of the proxy that is trained in full; `loss` is that of the proxy."""

    origin: str
    values: dict[str, Any]
    loss: float


def trials_to_check(trials: Sequence[FrozenTrial]) -> list[ProxyTrial]:
    """Of the trials with all folds: the default, the best ones, and others spread over all ranks."""
    done = sorted(finished(trials), key=lambda t: (t.value, t.number))
    default = [t for t in done if t.user_attrs.get(ORIGIN) == DEFAULT]
    rest = [t for t in done if t.user_attrs.get(ORIGIN) != DEFAULT]
    best, others = rest[:N_BEST], rest[N_BEST:]
    ends = np.linspace(0, len(others) - 1, N_OTHERS) if others else np.empty(0)
    chosen = [*default, *best, *(others[i] for i in np.unique(ends.round().astype(int)).tolist())]
    return [
        ProxyTrial(
            DEFAULT if t in default else f"proxy trial {t.number}",
            dict(t.user_attrs[VALUES]),
            float(t.value or 0.0),
        )
        for t in chosen
    ]


def proxy_record(trials: Sequence[FrozenTrial], proxy: Proxy) -> dict[str, Any]:
    """The stored record of a proxy: its settings, and its rank correlation with full training."""
    pairs = [(t.user_attrs[PROXY], t.value) for t in finished(trials) if PROXY in t.user_attrs]
    correlation = None
    if len(pairs) > 2:
        found = float(spearmanr(*zip(*pairs, strict=True)).statistic)
        correlation = found if math.isfinite(found) else None
    return {**dataclasses.asdict(proxy), "n_trials": len(pairs), "rank_correlation": correlation}
