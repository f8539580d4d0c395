"""Predictions of every method for every part: in-sample, cross-fitted, nested and test.

Everything is fitted to out-of-fold predictions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from ensemble_kit.combiners.base import Combiner
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fit
from ensemble_kit.evaluation.cross_validation.fallback import fall_back, fallback_candidates
from ensemble_kit.evaluation.cross_validation.nested import nested_predictions
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.predictions.nested import NestedFold
from ensemble_kit.predictions.table import Predictions


@dataclasses.dataclass(frozen=True, eq=False)
class AllParts:
    """Fitted methods and their predictions.

    Parameters
    ----------
    combiners : mapping of name to Combiner
        Unfitted, with the baselines and the oracle.
    fitted : mapping of name to Combiner
        Fitted to all out-of-fold rows; a replaced method is the fitted mean.
    fell_back : collection of str
        The methods that were replaced by the mean.
    predictions : mapping of part to mapping of name to MethodPredictions
        `in_sample` and `cross_fitted`; `nested` and `test` if there are such rows.
    tables : mapping of part to Predictions
        The rows of each part.
    """

    combiners: Mapping[str, Combiner]
    fitted: Mapping[str, Combiner]
    fell_back: Collection[str]
    predictions: Mapping[str, Mapping[str, MethodPredictions]]
    tables: Mapping[str, Predictions]

    @property
    def crossed(self) -> Mapping[str, MethodPredictions]:
        """The cross-fitted predictions."""
        return self.predictions["cross_fitted"]


def predict_all_parts(
    combiners: Mapping[str, Combiner],
    oof: Predictions,
    test: Predictions | None,
    nested: Sequence[NestedFold] | None,
    protocol: Protocol,
) -> AllParts:
    """Fit and cross-fit every method, and predict every part; the test part is predicted last.

    Parameters
    ----------
    combiners : mapping of name to Combiner
        With the baselines and the oracle. Copies are fitted.
    """

    def decided(one: Combiner, made: MethodPredictions) -> MethodPredictions:
        """Apply the decision rule of the protocol, except to the oracle."""
        return made if one.needs_labels else protocol.decided(made, oof.class_names)

    fitted = {name: one.fit_to(oof) for name, one in combiners.items()}
    alone = {name: decided(one, cross_fit(one, oof)) for name, one in combiners.items()}
    fell_back, crossed = fall_back(combiners, alone, oof, protocol)
    fitted |= dict.fromkeys(fell_back, fitted["mean"])
    inside = {
        name: decided(one, one.apply(oof))
        if one.is_fitted_to_labels
        else crossed["mean" if name in fell_back else name]
        for name, one in fitted.items()
    }
    parts = {"in_sample": inside, "cross_fitted": crossed}
    if nested is not None:
        parts["nested"] = nested_predictions(
            combiners,
            nested,
            oof,
            fallback_candidates=fallback_candidates(combiners, protocol),
            metric=protocol.verdict_metric(oof.class_names),
            decide=lambda made: protocol.decided(made, oof.class_names),
        )
    tables = dict.fromkeys(parts, oof)
    if test is not None:
        parts["test"] = {name: decided(one, one.apply(test)) for name, one in fitted.items()}
        tables["test"] = test
    return AllParts(combiners, fitted, fell_back, parts, tables)
