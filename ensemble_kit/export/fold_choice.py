"""Which fold networks a bundle has: all, the best one of each member, or their mean weights.

Measures on the test part what a choice costs. The out-of-fold metric is not used for it: each fold's
network was trained on the images of the other folds.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_kit.arrays import log_softmax
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.scores.per_image import judge
from ensemble_kit.evaluation.scores.verdict import verdict
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.fold_networks import FoldNetwork, MemberNetworks
from ensemble_kit.inference.sources import Source
from ensemble_kit.inference.tile_blocks import in_blocks
from ensemble_kit.metrics import METRICS
from ensemble_kit.metrics import metric as metric_of
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.predictions.table import Predictions

FITTED_BEFORE = (
    "The combiner, thresholds and prediction sets were fitted to the predictions of the original networks, "
    "and are not fitted again: the coverage of prediction sets is not known for this choice."
)
ALL, BEST, SOUP = "all", "best", "soup"
TIME = "Time of the networks"
CHOICES = (ALL, BEST, SOUP)
NO_TEST = (
    "The change of the metric is not measured: the run has no test part, and every image of its folds "
    "was a training image of some of these networks."
)


@dataclasses.dataclass(frozen=True)
class FoldChoice:
    """What a choice of folds changes, compared with all fold networks.

    Parameters
    ----------
    folds : {"all", "best", "soup"}
    n_networks, n_before : int
        Networks in the bundle and in the run.
    metric : str
    all_folds, chosen : float or None
        The metric on the test part; None without one.
    gain : tuple of (value, low, high)
        Chosen minus all, in the direction in which positive is better; None where undefined.
    verdict : str
        `better`, `worse`, `not shown`, or empty where nothing was measured.
    n_images, n_groups : int
        Of the test part.
    seconds_all, seconds_chosen : float or None
        Per image, networks only, on this machine.
    note : str
    """

    folds: str
    n_networks: int
    n_before: int
    metric: str = ""
    all_folds: float | None = None
    chosen: float | None = None
    gain: tuple[float | None, float | None, float | None] = (None, None, None)
    verdict: str = ""
    n_images: int = 0
    n_groups: int = 0
    seconds_all: float | None = None
    seconds_chosen: float | None = None
    note: str = ""


def chosen_networks(
    members: Sequence[MemberNetworks], folds: str, oof: Predictions
) -> list[MemberNetworks]:
    """The members with the networks that `folds` asks for."""
    if folds == ALL:
        return list(members)
    return [_best(one, oof) if folds == BEST else _soup(one) for one in members]


def _best(member: MemberNetworks, oof: Predictions) -> MemberNetworks:
    """The fold network with the lowest log loss on its own held-out fold."""
    m = oof.member_names.index(member.name)
    losses = {}
    for fold in member.by_fold:
        rows = np.flatnonzero((oof.fold == fold) & oof.available[:, m])
        of_truth = log_softmax(oof.logits[rows, m])[np.arange(len(rows)), oof.labels[rows]]
        losses[fold] = -float(of_truth.mean()) if len(rows) else np.inf
    fold = min(losses, key=lambda k: (losses[k], k))
    return MemberNetworks(member.name, {fold: member.by_fold[fold]})


def _soup(member: MemberNetworks) -> MemberNetworks:
    """One network whose weights are the mean of all folds' weights.

    References
    ----------
    Wortsman, M., et al. (2022). Model soups. ICML. The means there are over networks that started
    from the same pretrained weights.
    """
    networks = list(member.by_fold.values())
    first = networks[0]
    if any(not np.array_equal(one.by_name, first.by_name) for one in networks):
        raise DataError(
            f"The fold networks of '{member.name}' have their classes in different orders",
            "their weights have no mean",
            "Use --folds all or --folds best",
        )
    states = [one.model.state_dict() for one in networks]
    mean = {name: _mean([state[name] for state in states]) for name in states[0]}
    model = copy.deepcopy(first.model)
    model.load_state_dict(mean)
    soup: FoldNetwork = dataclasses.replace(first, model=model.eval())
    return MemberNetworks(member.name, {0: soup})


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    if not tensors[0].is_floating_point():
        return tensors[0]
    return torch.stack([one.double() for one in tensors]).mean(dim=0).to(tensors[0].dtype)


def measured(
    folds: str,
    before: Ensemble,
    chosen: Ensemble,
    test: Predictions | None,
    sources: Sequence[Source],
    metric: str,
) -> FoldChoice:
    """What the choice changes on the test part.

    Parameters
    ----------
    before, chosen : Ensemble
        With all fold networks, and with the chosen ones.
    test : Predictions, optional
        The members' stored logits of the test part, in the order of the method.
    sources : sequence of Source
        The images of `test`, in its order.
    metric : str
        The run's primary metric.
    """
    plain = FoldChoice(folds, n_networks(chosen), n_networks(before))
    if folds == ALL:
        return plain
    if test is None or not len(test):
        return dataclasses.replace(plain, note=NO_TEST)
    name = metric if metric in METRICS else "balanced_accuracy"
    wanted = metric_of(name)
    predictions = {
        "chosen": _predicted(chosen, sources),
        "all": before.stored.combine(test.logits),
    }
    scored = judge(predictions, test.labels, test.groups, len(test.class_names), metrics=[wanted])
    said = verdict(
        "chosen", scored["chosen"], "all", scored["all"], metric_name=wanted, part="test"
    )
    seconds = _seconds({"all": before, "chosen": chosen}, sources)
    return dataclasses.replace(
        plain,
        metric=name,
        all_folds=scored["all"].figures.metrics[name].value,
        chosen=scored["chosen"].figures.metrics[name].value,
        gain=(said.effect.value, said.effect.low, said.effect.high),
        verdict=said.word,
        n_images=len(test),
        n_groups=scored["all"].figures.n_groups,
        seconds_all=seconds["all"],
        seconds_chosen=seconds["chosen"],
    )


def n_networks(ensemble: Ensemble) -> int:
    """How many networks predict each image."""
    return sum(len(one.by_fold) for one in ensemble.members)


def _predicted(ensemble: Ensemble, sources: Sequence[Source]) -> Combined:
    return ensemble.predict_sources(sources).combined


def _seconds(ensembles: dict[str, Ensemble], sources: Sequence[Source]) -> dict[str, float]:
    """Seconds per image of the networks, tiles not included: the medians of three turns."""
    block = next(iter(in_blocks(sources)))
    tiles = {name: one.tiles_of(block) for name, one in ensembles.items()}
    taken: dict[str, list[float]] = {name: [] for name in ensembles}
    for _ in range(3):
        for name, one in ensembles.items():
            began = time.perf_counter()
            one.member_logits(tiles[name])
            taken[name].append((time.perf_counter() - began) / len(block))
    return {name: float(np.median(values)) for name, values in taken.items()}


def choice_json(choice: FoldChoice) -> dict[str, Any]:
    """The choice as a bundle stores it."""
    return {**dataclasses.asdict(choice), "gain": list(choice.gain)}


def choice_words(choice: FoldChoice) -> list[str]:
    """The choice in sentences: what it changes, and what it saves."""
    if choice.folds == ALL:
        return []
    what = {BEST: "the best fold network of each member", SOUP: "the mean weights of the folds"}
    said = [
        f"This bundle has {what[choice.folds]}: {choice.n_networks} networks instead of {choice.n_before}.",
        FITTED_BEFORE,
    ]
    if choice.note:
        return [*said, choice.note]
    if choice.all_folds is None or choice.chosen is None:
        return [*said, f"The {choice.metric.replace('_', ' ')} is undefined on the test part."]
    value, low, high = choice.gain
    interval = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
    said.append(
        f"{choice.metric.replace('_', ' ').capitalize()} on the test part ({choice.n_images} images, "
        f"{choice.n_groups} groups): {choice.chosen:.3f}, with all fold networks {choice.all_folds:.3f}. "
        + (f"Gain {value:+.3f}{interval}: {_word(choice.verdict)}." if value is not None else "")
    )
    if choice.seconds_all and choice.seconds_chosen:
        said.append(
            f"{TIME}: {1000 * choice.seconds_chosen:.3g} ms an image, with all fold networks "
            f"{1000 * choice.seconds_all:.3g} ms ({choice.seconds_all / choice.seconds_chosen:.1f} times as long)."
        )
    return said


def _word(word: str) -> str:
    return "a difference is not shown" if word == "not shown" else f"the choice is {word}"
