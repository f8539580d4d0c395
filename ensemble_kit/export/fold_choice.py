"""The choice of fold networks for a bundle: all, the best one of each member, or their mean weights.

The change of the metric is measured on the test part. Out-of-fold images cannot be used: they were
training images of the networks of other folds.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ensemble_kit.arrays import log_softmax
from ensemble_kit.errors import DataError, counted
from ensemble_kit.export.paired_change import (
    PairedChange,
    change_words,
    network_seconds,
    paired_change,
)
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.fold_networks import FoldNetwork, MemberNetworks
from ensemble_kit.inference.sources import Source
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.predictions.table import Predictions

FITTED_BEFORE = (
    "The combiner, thresholds and prediction sets were fitted to the predictions of the original networks. "
    "They were not fitted again, so the coverage of prediction sets is unknown for this choice."
)
ALL, BEST, SOUP = "all", "best", "soup"
TIME = "Time of the networks"
CHOICES = (ALL, BEST, SOUP)
NO_TEST = (
    "The change of the metric is unknown: the run has no test part, and every image of its folds was a "
    "training image of some of these networks."
)


@dataclasses.dataclass(frozen=True)
class FoldChoice:
    """Comparison of a choice of folds with all fold networks.

    Parameters
    ----------
    folds : {"all", "best", "soup"}
    n_networks, n_before : int
        Networks in the bundle and in the run.
    metric : str
    all_folds, chosen : float or None
        The metric on the test part. None without a test part.
    gain : tuple of (value, low, high)
        Chosen minus all, positive if better. None if undefined.
    verdict : str
        `better`, `worse`, `not shown`, or "" without a test part.
    n_images, n_groups : int
        Size of the test part.
    seconds_all, seconds_chosen : float or None
        Time per image, networks only, on this machine.
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
    """The members with the networks that `folds` selects."""
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
    """One network with the mean weights of all folds.

    References
    ----------
    Wortsman, M., et al. (2022). Model soups. ICML. (There, all networks start from the same pretrained
    weights.)
    """
    networks = list(member.by_fold.values())
    first = networks[0]
    if any(not np.array_equal(one.by_name, first.by_name) for one in networks):
        raise DataError(
            f"The fold networks of '{member.name}' have their classes in different orders",
            "mean weights need the same order",
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
    """Measure the change by a choice of folds on the test part.

    Parameters
    ----------
    before, chosen : Ensemble
        The ensembles with all fold networks, and with the chosen networks.
    test : Predictions, optional
        The members' stored logits of the test part, in the order of the method.
    sources : sequence of Source
        The images of `test`, in the same order.
    metric : str
        The run's primary metric.
    """
    plain = FoldChoice(folds, n_networks(chosen), n_networks(before))
    if folds == ALL:
        return plain
    if test is None or not len(test):
        return dataclasses.replace(plain, note=NO_TEST)
    original = MethodPredictions.of(before.stored.combine(test.logits), test)
    change = paired_change(original, chosen.predict_sources(sources).combined, metric=metric)
    seconds = network_seconds({"all": before, "chosen": chosen}, sources)
    return dataclasses.replace(
        plain,
        metric=change.metric,
        all_folds=change.before,
        chosen=change.after,
        gain=change.gain,
        verdict=change.verdict,
        n_images=change.n_images,
        n_groups=change.n_groups,
        seconds_all=seconds["all"],
        seconds_chosen=seconds["chosen"],
    )


def n_networks(ensemble: Ensemble) -> int:
    """The number of networks that predict each image."""
    return sum(len(one.by_fold) for one in ensemble.members)


def choice_json(choice: FoldChoice) -> dict[str, Any]:
    """The choice as a bundle stores it."""
    return {**dataclasses.asdict(choice), "gain": list(choice.gain)}


def choice_words(choice: FoldChoice) -> list[str]:
    """The choice and its measured changes, in sentences."""
    if choice.folds == ALL:
        return []
    what = {BEST: "the best fold network of each member", SOUP: "the mean weights of the folds"}
    sentences = [
        f"This bundle has {what[choice.folds]}: {counted(choice.n_networks, 'network')} instead of {choice.n_before}.",
        FITTED_BEFORE,
    ]
    if choice.note:
        return [*sentences, choice.note]
    change = PairedChange(
        "test", choice.metric, choice.all_folds, choice.chosen, choice.gain, choice.verdict,
        choice.n_images, choice.n_groups,
    )  # fmt: skip
    sentences.append(change_words(change, ("", "with all fold networks"), "the choice"))
    if choice.seconds_all and choice.seconds_chosen:
        sentences.append(
            f"{TIME}: {1000 * choice.seconds_chosen:.3g} ms per image, with all fold networks "
            f"{1000 * choice.seconds_all:.3g} ms ({choice.seconds_all / choice.seconds_chosen:.1f} times as long)."
        )
    return sentences
