"""A value with its interval."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval; None if undefined, or without an interval.

    As text, every value has three decimals and a leading zero.

    Examples
    --------
    >>> str(Interval(0.9, 0.85, 1.0)), str(Interval(1.383)), str(Interval(None))
    ('0.900 [0.850, 1.000]', '1.383', 'n/a')
    """

    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.value is None:
            return "n/a"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"
