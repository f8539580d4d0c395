"""The baselines (best member, mean) and the upper bound (oracle) that are in every table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.baselines import BestMember, Oracle
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.errors import UsageError
from ensemble_kit.evaluation.protocol import Protocol

MEAN = "mean"
REFERENCE_METHODS = {"best-member": BestMember, MEAN: MeanProba, "oracle": Oracle}
BASELINES = ("best-member", MEAN)


def with_best_and_mean(
    combiners: Mapping[str, Combiner], protocol: Protocol, class_names: Sequence[str]
) -> dict[str, Combiner]:
    """Best member and mean, then `combiners`; the best member is chosen by the protocol's metric.

    Examples
    --------
    >>> with_best_and_mean({"oracle": Oracle()}, Protocol(metric="log_loss"), ["a", "b"])
    {'best-member': BestMember(metric='log_loss'), 'mean': MeanProba(), 'oracle': Oracle()}
    """
    out: dict[str, Combiner] = {name: REFERENCE_METHODS[name]() for name in BASELINES}
    costs = protocol.error_costs(class_names)
    return {
        name: one.ranked_by(protocol.metric, costs, protocol.decide_by_cost)
        for name, one in (out | {**combiners}).items()
    }


def with_baselines(
    combiners: Mapping[str, Combiner], protocol: Protocol, class_names: Sequence[str]
) -> dict[str, Combiner]:
    """The baselines, `combiners`, and the oracle last.

    Raises
    ------
    UsageError
        `combiners` is empty.
    """
    if not combiners:
        raise UsageError(
            "No combiner was given",
            "at least one is needed",
            "Pass e.g. {'vote': MajorityVote()}",
        )
    out = with_best_and_mean(combiners, protocol, class_names)
    return out | ({} if "oracle" in out else {"oracle": Oracle()})
