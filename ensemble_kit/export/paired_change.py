"""Paired comparison of two ensembles on the same images: a metric with its interval, and the time.

The interval is over whole groups.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

import numpy as np

from ensemble_kit.errors import counted
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.evaluation.scores.verdict import verdict
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.sources import Source
from ensemble_kit.inference.tile_blocks import in_blocks
from ensemble_kit.metrics import METRICS
from ensemble_kit.metrics import metric as metric_of
from ensemble_kit.predictions.method_predictions import Combined, MethodPredictions

DEFAULT = "balanced_accuracy"


@dataclasses.dataclass(frozen=True)
class PairedChange:
    """A metric of two ensembles on the same images.

    Parameters
    ----------
    part : {"test", "oof"}
    metric : str
    before, after : float or None
        None if the metric is undefined.
    gain : tuple of (value, low, high)
        After minus before, positive if better. None if undefined.
    verdict : str
        `better`, `worse` or `not shown`.
    n_images, n_groups : int
    """

    part: str
    metric: str
    before: float | None
    after: float | None
    gain: tuple[float | None, float | None, float | None]
    verdict: str
    n_images: int
    n_groups: int


def paired_change(before: MethodPredictions, after: Combined, *, metric: str) -> PairedChange:
    """Compare two ensembles on the same rows.

    Parameters
    ----------
    before : MethodPredictions
        The first ensemble's predictions, with labels and groups.
    after : Combined
        The second ensemble's predictions of the same rows.
    metric : str
        If it is not a metric of images, the balanced accuracy is used.
    """
    name = metric if metric in METRICS else DEFAULT
    wanted = metric_of(name)
    scored = score_methods(
        {"after": after, "before": before},
        before.labels,
        before.groups,
        before.n_classes,
        metrics=[wanted],
    )
    outcome = verdict(
        "after", scored["after"], "before", scored["before"], metric_name=wanted,
        part="test" if before.part == "test" else "cross_fitted",
    )  # fmt: skip
    return PairedChange(
        before.part,
        name,
        scored["before"].values.metrics[name].value,
        scored["after"].values.metrics[name].value,
        (outcome.effect.value, outcome.effect.low, outcome.effect.high),
        outcome.word,
        len(before),
        scored["before"].values.n_groups,
    )


def change_words(change: PairedChange, names: tuple[str, str], what: str) -> str:
    """The change as text. `names` are the second and the first ensemble; `what` has the verdict."""
    where = "on the test part" if change.part == "test" else "out-of-fold"
    shown = change.metric.replace("_", " ").capitalize()
    if change.before is None or change.after is None:
        return f"{shown} {where} is undefined."
    value, low, high = change.gain
    interval = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
    word = "a difference is not shown" if change.verdict == "not shown" else f"{what} is {change.verdict}"  # fmt: skip
    after = f"{names[0]} {change.after:.3f}".strip()
    return (
        f"{shown} {where} ({counted(change.n_images, 'image')}, {counted(change.n_groups, 'group')}): "
        f"{after}, {names[1]} {change.before:.3f}. "
        + (f"Gain {value:+.3f}{interval}: {word}." if value is not None else "")
    )


def network_seconds(ensembles: dict[str, Ensemble], sources: Sequence[Source]) -> dict[str, float]:
    """Seconds per image of the networks, without making tiles. Median of three repeats."""
    block = next(iter(in_blocks(sources)))
    tiles = {name: one.tiles_of(block) for name, one in ensembles.items()}
    taken: dict[str, list[float]] = {name: [] for name in ensembles}
    for _ in range(3):
        for name, one in ensembles.items():
            began = time.perf_counter()
            one.member_logits(tiles[name])
            taken[name].append((time.perf_counter() - began) / len(block))
    return {name: float(np.median(values)) for name, values in taken.items()}
