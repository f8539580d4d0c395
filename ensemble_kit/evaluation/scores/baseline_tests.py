"""Image-level tests of every method against the baselines, used only if no groups are known.

If patients are known, these tests are not computed: images of one patient are not independent, and
the verdict has a p value over patients. P values are adjusted for the number of methods (Holm).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ensemble_kit.arrays import Ints
from ensemble_kit.evaluation.uncertainty.hypothesis_tests import (
    Test,
    delong,
    holm,
    mcnemar_exact,
)
from ensemble_kit.predictions.method_predictions import Combined


@dataclasses.dataclass(frozen=True)
class BaselineTest:
    """One test of one method against one baseline.

    Parameters
    ----------
    against, part : str
    test : {"mcnemar", "delong"}
        Both treat images as independent.
    estimate : float
        Gain in accuracy, or in AUROC.
    p_value : float or None
        Two-sided and unadjusted; None if the variance of the gain cannot be estimated.
    p_adjusted : float or None
        Holm-adjusted over the methods of the table that have a p value.
    n_methods : int
    """

    against: str
    part: str
    test: str
    estimate: float
    p_value: float | None
    p_adjusted: float | None
    n_methods: int


def baseline_tests(
    predictions: Mapping[str, Combined],
    labels: Ints,
    *,
    baselines: Sequence[str],
    part: str,
) -> dict[str, tuple[BaselineTest, ...]]:
    """Tests of every method against every baseline.

    Parameters
    ----------
    predictions : mapping of method to Combined
        Predictions, including the baselines.
    labels : array of int, shape (n_samples,)
    baselines : sequence of str
    part : str
        Name of the part, e.g. "test".

    Returns
    -------
    dict of method to tuple of BaselineTest
        P values are Holm-adjusted over the methods, separately for each baseline and test.

    References
    ----------
    Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal
    of Statistics 6(2), 65-70.
    """
    methods = [name for name in predictions if name not in baselines]
    out: dict[str, list[BaselineTest]] = {name: [] for name in methods}
    for against in baselines:
        alone = {name: _tests(predictions[name], predictions[against], labels) for name in methods}
        for kind in alone[methods[0]] if methods else ():
            found = [alone[name][kind] for name in methods]
            adjusted = holm([one.p_value for one in found])
            for name, one, p in zip(methods, found, adjusted, strict=True):
                alone_p, adjusted_p = _reported(one.p_value), _reported(float(p))
                out[name].append(
                    BaselineTest(
                        against, part, kind, one.estimate, alone_p, adjusted_p, len(methods)
                    )
                )
    return {name: tuple(tests) for name, tests in out.items()}


def _reported(p_value: float) -> float | None:
    return None if np.isnan(p_value) else p_value


def _tests(ours: Combined, theirs: Combined, labels: Ints) -> dict[str, Test]:
    right = ours.predicted == labels, theirs.predicted == labels
    found = {"mcnemar": mcnemar_exact(*right)}
    n_positive = int((labels == 1).sum())
    if ours.proba.shape[1] == 2 and 2 <= n_positive <= len(labels) - 2:
        found["delong"] = delong(labels == 1, ours.proba[:, 1], theirs.proba[:, 1])
    return found


def sentence_of_tests(tests: Sequence[BaselineTest], part: str) -> str:
    """The tests of one method on one part, in one line; empty without tests.

    Examples
    --------
    >>> one = BaselineTest("mean", "test", "mcnemar", 0.1, 0.02, 0.04, 2)
    >>> sentence_of_tests([one], "test")
    'against mean McNemar p = 0.040. Holm-adjusted over 2 methods; images treated as independent.'
    """
    some = [one for one in tests if one.part == part]
    if not some:
        return ""
    names = {"mcnemar": "McNemar", "delong": "DeLong"}
    sentences = []
    for against in dict.fromkeys(one.against for one in some):
        parts = [
            f"{names[one.test]} {_p(one.p_adjusted)}"
            for one in some
            if one.against == against and one.test in names
        ]
        sentences.append(f"against {against} {', '.join(parts)}")
    n_methods = some[0].n_methods
    over = (
        f"Holm-adjusted over {n_methods} methods" if n_methods > 1 else "One method, not adjusted"
    )
    return f"{'; '.join(sentences)}. {over}; images treated as independent."


def _p(value: float | None) -> str:
    if value is None:
        return "p n/a"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
