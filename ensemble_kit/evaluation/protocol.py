"""How figures are made: the same for every method of a table, and fixed before any is looked at.

Settings only; judges nothing.
"""

from __future__ import annotations

import dataclasses

from ensemble_kit.errors import UsageError
from ensemble_kit.metrics import DEFAULT_METRICS, ORDINAL_METRICS, metric
from ensemble_kit.predictions.table import Predictions


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How figures are made: the same for every method of a table.

    Parameters
    ----------
    metric : str
        The one that verdicts are given on and methods are chosen by.
    metrics : tuple of str
        All that are computed; empty for the default list, with ordinal ones for ordered classes.
    n_resamples : int
        Group resamples; 0 for none.
    level : float
        Of the intervals.
    seed : int
    fallback : bool
        Replace a fitted combiner by the mean where it does not beat it cross-fitted, and say so.
    """

    metric: str = "balanced_accuracy"
    metrics: tuple[str, ...] = ()
    n_resamples: int = 2000
    level: float = 0.95
    seed: int = 0
    fallback: bool = True

    def names(self, table: Predictions, *, abstained: bool = False) -> list[str]:
        """The metrics for this table, each once."""
        if metric(self.metric).aims_at is not None:
            raise UsageError(
                "Verdicts are given on a figure of which more, or less, is better",
                f"got '{self.metric}', which should be near {metric(self.metric).aims_at:g}",
                "Use e.g. log_loss or ece",
            )
        wanted = [*(self.metrics or DEFAULT_METRICS), self.metric]
        if not self.metrics and table.ordinal:
            wanted += ORDINAL_METRICS
        return list(dict.fromkeys([*wanted, *(["coverage"] if abstained else [])]))
