"""Whether a published accuracy can be: is it a count out of n, and what interval goes with it.

Arithmetic only.
"""

from __future__ import annotations

import dataclasses

from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.significance import wilson_interval


@dataclasses.dataclass(frozen=True)
class Claim:
    """An accuracy claimed over n samples.

    Parameters
    ----------
    possible : bool
        Whether some count, rounded to the claim's digits, gives it.
    n_right : int
        That count, else the nearest.
    nearest : float
        The accuracy of that count.
    low, high : float
        Wilson interval of that count.
    sentence : str
    """

    accuracy: float
    n: int
    possible: bool
    n_right: int
    nearest: float
    low: float
    high: float
    sentence: str


def verify_claim(accuracy: str | float, n: int, level: float = 0.95) -> Claim:
    """Judge an accuracy claimed over `n` samples, to the digits it was given with.

    Parameters
    ----------
    accuracy : str or float
        As printed, e.g. "0.9962" or "99.62%"; the digits say how it was rounded.
    n : int
        Number of test samples.

    Examples
    --------
    >>> verify_claim("0.9962", 1182).possible, verify_claim("0.9958", 1182).n_right
    (False, 1177)
    """
    text = str(accuracy).strip()
    percent = text.endswith("%")
    try:
        value = float(text.rstrip("% ")) / (100 if percent else 1)
    except ValueError:
        raise DataError(
            "An accuracy is a number", f"got '{text}'", "Use e.g. 0.9962 or 99.62%"
        ) from None
    if n < 1 or not 0 <= value <= 1:
        raise DataError(
            "An accuracy lies in [0, 1] and is over at least one sample",
            f"got {text} over {n}",
            "Write per cent with its sign: 99.62%",
        )
    digits = len(text.rstrip("% ").partition(".")[2]) + (2 if percent else 0)
    half = 0.5 * 10.0**-digits + 1e-12
    n_right = min(max(round(value * n), 0), n)
    nearest = n_right / n
    possible = abs(nearest - value) <= half
    low, high = wilson_interval(n_right, n, level)
    return Claim(
        value,
        n,
        possible,
        n_right,
        nearest,
        low,
        high,
        _sentence(text, n, possible, n_right, nearest, (low, high), level),
    )


def _sentence(
    text: str,
    n: int,
    possible: bool,
    n_right: int,
    nearest: float,
    ends: tuple[float, float],
    level: float,
) -> str:
    interval = f"Wilson {level * 100:.0f} % interval {ends[0]:.4f} to {ends[1]:.4f}, if the {n} samples are independent"
    count = f"{n_right} right, {n - n_right} wrong"
    if possible:
        return f"{text} over {n} is possible: {count}. {interval}."
    return f"{text} over {n} is impossible: no count out of {n} gives it. The nearest is {nearest:.5f} ({count}). {interval}."
