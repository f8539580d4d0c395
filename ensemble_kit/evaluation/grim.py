"""GRIM test: whether a published accuracy can be a count out of n, with its Wilson interval."""

from __future__ import annotations

import dataclasses
from decimal import Decimal, InvalidOperation

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.evaluation.grim_counts import Printed, Way, single_counts, weaker_ways
from ensemble_kit.evaluation.uncertainty.hypothesis_tests import wilson_interval

# Counts times accuracies stay exact in decimal arithmetic.
MOST_DIGITS = 18


@dataclasses.dataclass(frozen=True)
class GrimResult:
    """The GRIM test of an accuracy over n samples.

    Parameters
    ----------
    possible : bool
        Whether a single count, rounded or truncated to the printed digits, gives the accuracy.
    n_right : int
        The nearest count among those that give the accuracy, else among all counts.
    nearest : float
        The accuracy of that count.
    fewest, most : int
        Range of the counts in the first of `counts`; if `counts` is empty, both are `n_right`.
    low, high : float
        Wilson's interval, from the low end of the fewest to the high end of the most.
    counts : tuple of Way
        The single counts that give the accuracy: rounded, then truncated.
    weaker : tuple of Way
        If there is no single count: counts with padded digits, and means of runs or folds.
    not_listed : tuple of str
        Sentences on the means that are not listed, because they can give nearly any value.
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
    counts: tuple[Way, ...]
    weaker: tuple[Way, ...]
    not_listed: tuple[str, ...]
    sentence: str


def verify_claim(accuracy: str | float, n: int, level: float = 0.95) -> GrimResult:
    """Test whether an accuracy over `n` samples is possible to its printed digits (GRIM test).

    Parameters
    ----------
    accuracy : str or float
        As printed, e.g. "0.9962", "99.62%" or "9.962e-1".
    n : int
        Number of test samples.
    level : float
        Confidence level of the interval, in (0, 1).

    Raises
    ------
    DataError
        The accuracy is not a number or is outside [0, 1], or `n` is below 1.
    UsageError
        The level is outside (0, 1).

    Examples
    --------
    >>> verify_claim("0.9962", 1182).possible, verify_claim("0.9958", 1182).n_right
    (False, 1177)
    >>> print(verify_claim("96.66%", 450).counts[0])
    435 of 450, truncated
    >>> print(verify_claim("0.863", 156).weaker[0])
    404 of 468: the mean of 3 runs of 156, rounded or truncated
    >>> result = verify_claim("0.99", 1000)
    >>> result.fewest, result.most
    (985, 995)
    """
    if not 0 < level < 1:
        raise UsageError(
            f"Invalid confidence level {level:g}",
            "it must be above 0 and below 1",
            "Use e.g. --level 0.95",
        )
    text = str(accuracy).strip()
    printed = _read(text)
    if n < 1 or not 0 <= printed.value <= 1:
        raise DataError(
            f"An accuracy of {text} over {n} samples is not possible",
            "an accuracy is between 0 and 1, and needs at least one sample",
            "Write percentages with their sign: 99.62%",
        )
    counts = single_counts(printed, n)
    weaker, not_listed = ((), ()) if counts else weaker_ways(printed, n)
    n_right = min(max(round(printed.value * n), 0), n)
    fewest, most = (counts[0].fewest, counts[0].most) if counts else (n_right, n_right)
    n_right = min(max(n_right, fewest), most)
    found = GrimResult(
        accuracy=float(printed.value),
        n=n,
        possible=bool(counts),
        n_right=n_right,
        nearest=n_right / n,
        fewest=fewest,
        most=most,
        low=wilson_interval(fewest, n, level)[0],
        high=wilson_interval(most, n, level)[1],
        counts=counts,
        weaker=weaker,
        not_listed=not_listed,
        sentence="",
    )
    return dataclasses.replace(found, sentence=_sentence(text, found, printed.value, level))


def _read(text: str) -> Printed:
    """Read the accuracy, the unit of its last digit and its zeros, in any notation."""
    percent = text.endswith("%")
    try:
        number = Decimal(text.rstrip("% "))
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite():
        raise DataError(
            f"'{text}' is not a number",
            "an accuracy is a number or a percentage",
            "Use e.g. 0.9962 or 99.62%",
        )
    _, digits, exponent = number.as_tuple()
    last = min(int(exponent), 0)
    written = "".join(map(str, digits))
    # The zeros of 0.900 or 90.0% may be padding down to 0.9 or 90%.
    zeros = min(len(written) - len(written.rstrip("0")), max(-last - (0 if percent else 1), 0))
    scale = -2 if percent else 0
    if last + scale < -MOST_DIGITS:
        raise DataError(
            f"'{text}' has too many digits",
            f"at most {MOST_DIGITS} decimal places are read",
            "Give the accuracy as it was printed",
        )
    return Printed(number.scaleb(scale), Decimal(1).scaleb(last + scale), zeros)


def _sentence(text: str, result: GrimResult, value: Decimal, level: float) -> str:
    n = result.n
    interval = (
        f"Wilson {level * 100:g} % interval {result.low:.4f} to {result.high:.4f}, if the {n} samples "
        "are independent."
    )
    if result.possible:
        found = "; ".join(map(str, result.counts))
        over = (
            str(result.fewest)
            if result.fewest == result.most
            else f"{result.fewest} to {result.most}"
        )
        return f"{text} over {n} is possible: {found}. For {over} of {n}: {interval}"
    below = min(int(value * n), n - 1)
    near = " and ".join(f"{c} of {n} ({c / n:.5f})" for c in (below, below + 1))
    first = (
        f"{text} over {n} is impossible as a single count: no single count, rounded or truncated, "
        f"gives it. The nearest counts are {near}. For {result.n_right} of {n}: {interval}"
    )
    return "\n".join([first, *_weaker(result), *result.not_listed])


def _weaker(result: GrimResult) -> list[str]:
    if not result.weaker:
        return [
            "Padded digits and means of 2 to 10 runs or folds were tried: no informative one gives it."
        ]
    return [
        "Weaker explanations. The percentage is the share of all values with these digits that the "
        "explanation fits by chance:",
        *(f"- {way} ({100 * way.share:.2g} %)" for way in result.weaker),
    ]
