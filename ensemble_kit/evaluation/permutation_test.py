"""Permutation test: a method that is above chance on permuted labels indicates leakage.

Every method is cross-fitted again on labels permuted between whole groups, and on members that are
noise. No method is replaced by the mean here, since that would hide a leak.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from threadpoolctl import threadpool_limits

from ensemble_kit.arrays import Array, Ints, group_numbers
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import UsageError, first_few
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fit
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.scores.per_image import score_methods
from ensemble_kit.parallel import in_processes
from ensemble_kit.predictions.features import PooledFeatures
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.seeding import generator

# The fewest draws that can give p = 0.05.
N_DRAWS = 19
# A standard error needs at least two draws.
FEWEST_TESTED = 2
ALARM = 0.05


@dataclasses.dataclass(frozen=True, eq=False)
class PermutedMetrics:
    """One method's metric on the real table, on permuted labels and on noise members.

    Parameters
    ----------
    value : float
        Cross-fitted, on the real table.
    permuted, noise : array, shape (n_draws,)
        Cross-fitted on permuted labels, and on noise members.
    permuted_gain, noise_gain : array, shape (n_draws,)
        Gain of these over a constant prediction of the class shares.
    """

    value: float
    permuted: Array
    noise: Array
    permuted_gain: Array
    noise_gain: Array
    higher_is_better: bool

    @property
    def p_value(self) -> float:
        """Share of labellings, the real one included, on which the metric is at least as good.

        References
        ----------
        Phipson, B., & Smyth, G. K. (2010). Permutation p-values should never be zero. Statistical
        Applications in Genetics and Molecular Biology 9(1), 39.
        """
        sign = 1.0 if self.higher_is_better else -1.0
        as_good = int((sign * self.permuted >= sign * self.value - 1e-12).sum())
        return (1 + as_good) / (1 + len(self.permuted))


@dataclasses.dataclass(frozen=True, eq=False)
class PermutationTest:
    """The result of the permutation test for every method.

    Parameters
    ----------
    methods : mapping of name to PermutedMetrics
    metric : str
    n_draws : int
    permutation : str
        How the labels were permuted, in words.
    """

    methods: Mapping[str, PermutedMetrics]
    metric: str
    n_draws: int
    permutation: str

    @property
    def above_chance(self) -> dict[str, list[str]]:
        """Methods above chance, and on which data: permuted labels or noise members.

        One-sided t test of the gain over a constant prediction, at 5 % over all methods and both
        kinds of data (Bonferroni).
        """
        out: dict[str, list[str]] = {}
        for name, one in self.methods.items():
            gains = {"labels permuted": one.permuted_gain, "members of noise": one.noise_gain}
            found = [k for k, v in gains.items() if _is_above(v, 2 * len(self.methods))]
            if found:
                out[name] = found
        return out

    @property
    def untested(self) -> list[str]:
        """Methods with too few draws, or too few defined values, for the t test."""
        return [
            name
            for name, one in self.methods.items()
            if min(_n_known(one.permuted_gain), _n_known(one.noise_gain)) < FEWEST_TESTED
        ]

    @property
    def sentence(self) -> str:
        """One sentence: whether all methods are at chance."""
        above, untested = self.above_chance, self.untested
        if not above and untested:
            return (
                f"{first_few(untested)} cannot be tested: fewer than {FEWEST_TESTED} draws have a "
                f"value. Use {N_DRAWS} draws."
            )
        if not above:
            some = f"all {len(self.methods)} methods are" if len(self.methods) > 1 else "it is"
            return f"{some} at chance on permuted labels and on noise members ({self.permutation})."
        listed = first_few(f"{name} ({', '.join(how)})" for name, how in above.items())
        return (
            f"{len(above)} of {len(self.methods)} methods are above chance although labels or "
            f"members carry no information: {listed}. This indicates leakage: do not trust the "
            "metrics of these methods."
        )


def permutation_test(
    combiners: Mapping[str, Combiner],
    oof: Predictions,
    *,
    protocol: Protocol | None = None,
    n_draws: int = N_DRAWS,
) -> PermutationTest:
    """Permutation test: cross-fit every method on permuted labels, and on noise members.

    If each group has one label, the labels of the groups are permuted. Otherwise the blocks of
    labels of the groups are put in another order. A noise member has the logits of the member,
    with its rows in random order; pooled features are replaced by normal noise.

    Parameters
    ----------
    combiners : mapping of name to Combiner
        Copies are fitted. Combiners that use the labels of the predicted rows (the oracle) are
        skipped.
    oof : Predictions
        Out-of-fold predictions.
    protocol : Protocol, optional
        Its metric and seed are used.
    n_draws : int
        Number of permutations. With fewer than 19, p cannot reach 0.05.

    Returns
    -------
    PermutationTest
        `p_value` per method, `above_chance`, and one `sentence`.

    Raises
    ------
    UsageError
        `n_draws` is below 1.

    References
    ----------
    Ojala, M., & Garriga, G. C. (2010). Permutation tests for studying classifier performance. JMLR
    11, 1833-1863.

    Examples
    --------
    >>> from ensemble_kit.combiners.rules.averaging import MeanProba
    >>> labels = np.arange(60) % 2
    >>> table = Predictions.from_arrays({"a": np.eye(2)[labels], "b": np.eye(2)[labels]}, labels)
    >>> found = permutation_test({"mean": MeanProba()}, table)
    >>> found.methods["mean"].p_value, found.above_chance
    (0.05, {})
    """
    protocol = protocol or Protocol()
    if n_draws < 1:
        raise UsageError(
            f"Invalid number of draws for the permutation test: {n_draws}",
            "it must be at least 1",
            f"Use e.g. {N_DRAWS}",
        )
    methods = {name: one for name, one in combiners.items() if not one.needs_labels}
    real = _metric_values(methods, oof, protocol)
    one_draw = functools.partial(_draw, methods=methods, oof=oof, protocol=protocol)
    draws = in_processes(one_draw, range(n_draws))
    higher = protocol.verdict_metric(oof.class_names).higher_is_better

    def values(kind: int, name: str) -> Array:
        return np.array([draw[kind][name] for draw in draws])

    def gain(kind: int, name: str) -> Array:
        better = values(kind, name) - values(kind, CONSTANT)
        return better if higher else -better

    found = {
        name: PermutedMetrics(
            real[name], values(0, name), values(1, name), gain(0, name), gain(1, name), higher
        )
        for name in methods
    }
    return PermutationTest(found, protocol.metric, n_draws, _permuted_units(oof))


def _draw(
    draw: int, methods: Mapping[str, Combiner], oof: Predictions, protocol: Protocol
) -> tuple[dict[str, float], dict[str, float]]:
    """The metric of every method on permuted labels, and on noise members."""
    rng = generator(protocol.seed, f"null-{draw}")
    tables = with_permuted_labels(oof, rng), with_noise_members(oof, rng)
    with threadpool_limits(1):  # the same sums in every process
        on_permuted, on_noise = (_metric_values(methods, table, protocol) for table in tables)
    return on_permuted, on_noise


CONSTANT = "always the class shares"


def _metric_values(
    methods: Mapping[str, Combiner], table: Predictions, protocol: Protocol
) -> dict[str, float]:
    labels = np.asarray(table.labels)
    predictions: dict[str, Combined] = {k: cross_fit(one, table) for k, one in methods.items()}
    shares = np.bincount(labels, minlength=table.n_classes) / len(table)
    predictions[CONSTANT] = decided(np.tile(shares, (len(table), 1)))
    scored = score_methods(
        predictions, labels, table.groups, table.n_classes,
        metrics=[protocol.verdict_metric(table.class_names)], intervals=False,
    )  # fmt: skip
    values = {k: one.values[protocol.metric].value for k, one in scored.items()}
    return {k: np.nan if v is None else v for k, v in values.items()}


def _group_rows(oof: Predictions) -> list[Ints]:
    numbered = group_numbers(oof.groups)
    order = np.argsort(numbered, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(numbered[order])) + 1)


def _has_one_label_each(oof: Predictions) -> bool:
    return all(len(np.unique(oof.labels[rows])) == 1 for rows in _group_rows(oof))


def with_permuted_labels(oof: Predictions, rng: np.random.Generator) -> Predictions:
    """The table with labels permuted between whole groups."""
    rows = _group_rows(oof)
    order = rng.permutation(len(rows))
    labels = np.empty(len(oof), dtype=np.int64)
    if _has_one_label_each(oof):
        for mine, other in zip(rows, order, strict=True):
            labels[mine] = oof.labels[rows[other][0]]
    else:
        labels[np.concatenate(rows)] = oof.labels[np.concatenate([rows[g] for g in order])]
    return dataclasses.replace(oof, labels=labels)


def with_noise_members(oof: Predictions, rng: np.random.Generator) -> Predictions:
    """The table with each member's rows in random order; features are normal noise.

    Missing predictions of a member stay in their rows, so that every row still meets the quorum.
    """
    logits = oof.logits.copy()
    for m, available in enumerate(oof.available.T):
        rows = np.flatnonzero(available)
        logits[rows, m] = oof.logits[rng.permutation(rows), m]
    real = oof.features
    # Features of different models have different spaces, so rows cannot be exchanged.
    features = real and PooledFeatures(
        tuple(rng.normal(size=one.shape).astype(np.float32) for one in real.values), real.spaces
    )
    return dataclasses.replace(oof, logits=logits, features=features)


def _permuted_units(oof: Predictions) -> str:
    if oof.group_kind == "image":
        return "labels permuted between images"
    if _has_one_label_each(oof):
        return f"labels permuted between whole {oof.group_kind}s"
    return f"blocks of labels permuted, one block per {oof.group_kind}"


def _n_known(gains: Array) -> int:
    return int(np.isfinite(gains).sum())


def _is_above(gains: Array, n_tests: int) -> bool:
    from scipy.stats import t

    gains = gains[np.isfinite(gains)]
    n = len(gains)
    if n < FEWEST_TESTED or gains.mean() <= 0:
        return False
    spread = float(gains.std(ddof=1)) / np.sqrt(n)
    return spread == 0 or float(gains.mean()) / spread > t.ppf(1 - ALARM / n_tests, n - 1)
