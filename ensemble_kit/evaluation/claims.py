"""Whether a published accuracy can be: is it a count out of n, and what interval goes with it.

Arithmetic only.
"""

from __future__ import annotations

import dataclasses
import math
from decimal import Decimal, InvalidOperation

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.significance import wilson_interval


@dataclasses.dataclass(frozen=True)
class Claim:
    """An accuracy claimed over n samples.

    Parameters
    ----------
    possible : bool
        Whether some count, rounded to the claim's digits, gives it.
    n_right : int
        The count nearest to it.
    nearest : float
        The accuracy of that count.
    fewest, most : int
        All counts that give it lie in this range; where none does, both are `n_right`.
    low, high : float
        Wilson's interval, from the low end of the fewest to the high end of the most.
    sentence : str
    """

    accuracy: float
    n: int
    possible: bool
    n_right: int
    nearest: float
    fewest: int
    most: int
    low: float
    high: float
    sentence: str


def verify_claim(accuracy: str | float, n: int, level: float = 0.95) -> Claim:
    """Judge an accuracy claimed over `n` samples, to the digits it was given with.

    Parameters
    ----------
    accuracy : str or float
        As printed, e.g. "0.9962", "99.62%" or "9.962e-1"; the digits say how it was rounded.
    n : int
        Number of test samples.
    level : float
        Of the interval, in (0, 1).

    Raises
    ------
    DataError
        No number, one outside [0, 1], or no sample.
    UsageError
        A level outside (0, 1).

    Examples
    --------
    >>> verify_claim("0.9962", 1182).possible, verify_claim("0.9958", 1182).n_right
    (False, 1177)
    >>> claim = verify_claim("0.99", 1000)
    >>> claim.fewest, claim.most
    (985, 995)
    """
    if not 0 < level < 1:
        raise UsageError("A level lies in (0, 1)", f"got {level:g}", "Use e.g. --level 0.95")
    text = str(accuracy).strip()
    value, half = _read(text)
    if n < 1 or not 0 <= value <= 1:
        raise DataError(
            "An accuracy lies in [0, 1] and is over at least one sample",
            f"got {text} over {n}",
            "Write per cent with its sign: 99.62%",
        )
    fewest, most = max(math.ceil(n * (value - half)), 0), min(math.floor(n * (value + half)), n)
    possible = fewest <= most
    n_right = min(max(round(value * n), 0), n)
    if not possible:
        fewest = most = n_right
    low, high = wilson_interval(fewest, n, level)[0], wilson_interval(most, n, level)[1]
    found = Claim(
        float(value), n, possible, n_right, n_right / n, fewest, most, low, high, sentence=""
    )
    return dataclasses.replace(found, sentence=_sentence(text, found, level))


def _read(text: str) -> tuple[Decimal, Decimal]:
    """The accuracy, and half a unit of its last digit; exact, however it is written."""
    percent = text.endswith("%")
    try:
        number = Decimal(text.rstrip("% "))
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise DataError("An accuracy is a number", f"got '{text}'", "Use e.g. 0.9962 or 99.62%")
    exponent = min(int(number.as_tuple().exponent), 0) - (2 if percent else 0)
    return number.scaleb(-2 if percent else 0), Decimal(5).scaleb(exponent - 1)


def _sentence(text: str, claim: Claim, level: float) -> str:
    n, right = claim.n, claim.n_right
    one = f"{right} right, {n - right} wrong"
    of = f"Wilson {level * 100:g} % interval {claim.low:.4f} to {claim.high:.4f}"
    interval = f"{of}, if the {n} samples are independent."
    if not claim.possible:
        return (
            f"{text} over {n} is impossible: no count out of {n} gives it. The nearest is "
            f"{claim.nearest:.5f} ({one}). {interval}"
        )
    if claim.fewest == claim.most:
        return f"{text} over {n} is possible: {one}. {interval}"
    return (
        f"{text} over {n} is possible: one of {claim.most - claim.fewest + 1} counts, from "
        f"{claim.fewest} to {claim.most} right, which round to it. Over all of them: {interval}"
    )
