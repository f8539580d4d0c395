"""Values of one imported file as logits: probabilities, percent or scores before the softmax.

Each row is checked, with a tolerance for rounding. Notes describe what was changed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array
from ensemble_kit.errors import DataError, counted, first_few

SMALLEST_PROBA = 1e-7
# Sums that differ from 1 by less are float32 rounding, which is not reported.
FLOAT_NOISE = 1e-5
SLACK = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Values:
    """The values of one file.

    Parameters
    ----------
    where : str
        Name of the file in messages.
    numbers : array of float64, shape (n_rows, n_classes)
    ids : sequence of str, shape (n_rows,)
        Name of each row in messages.
    decimals : int
        The largest number of decimals in the file; 0 if it is not known.
    """

    where: str
    numbers: Array
    ids: Sequence[str]
    decimals: int = 0

    def slack(self, whole: float) -> float:
        """Tolerance of the sum of a row around `whole`, from the rounding of each number."""
        rounding = 0.5 * 10.0**-self.decimals if self.decimals or whole > 1 else 0.0
        return max(SLACK * whole, self.numbers.shape[1] * rounding * (1 + 1e-9))

    def sums_to(self, whole: float) -> npt.NDArray[np.bool_]:
        """The rows whose numbers are at least 0 and sum to `whole`, shape (n_rows,)."""
        with np.errstate(invalid="ignore", over="ignore"):
            sums = self.numbers.sum(axis=1)
            return (self.numbers >= 0).all(axis=1) & (np.abs(sums - whole) <= self.slack(whole))


def logits_of(values: Values, kind: str) -> tuple[Array, list[str], list[str]]:
    """Logits, shape (n_rows, n_classes), notes on how they were computed, and caveats.

    Raises
    ------
    DataError
        A row has invalid numbers, or is not probabilities although `kind` is "proba".
    """
    _refuse_no_numbers(values, kind)
    if kind == "logits":
        return values.numbers, [], _caveats(values)
    for whole, name in ((1.0, ""), (100.0, "percent")):
        if values.sums_to(whole).all():
            return _log(values.numbers), _scale_notes(values, whole, name), []
    raise _no_proba(values)


def looks_like_proba(values: Values) -> bool:
    """Whether all rows are probabilities, or all are percent."""
    return any(bool(values.sums_to(whole).all()) for whole in (1.0, 100.0))


def _log(numbers: Array) -> Array:
    proba = numbers / numbers.sum(axis=1, keepdims=True)
    return np.asarray(np.log(np.maximum(proba, SMALLEST_PROBA)))


def _scale_notes(values: Values, whole: float, name: str) -> list[str]:
    notes = [f"{values.where} is in percent: its values were divided by 100."] if name else []
    sums = values.numbers.sum(axis=1) / whole
    if np.abs(sums - 1).max() > FLOAT_NOISE:
        n = values.decimals
        written = f", as numbers of {counted(n, 'decimal')} do" if n else ""
        notes.append(
            f"Rows of {values.where} sum to {whole * sums.min():.6g} to {whole * sums.max():.6g}"
            f"{written}: each row was divided by its sum."
        )
    return notes


def _refuse_no_numbers(values: Values, kind: str) -> None:
    numbers = values.numbers
    with np.errstate(over="ignore"):
        stored = numbers.astype(np.float32)
    # -inf is a valid logit (probability 0), but not for all classes of a row.
    bad = np.isnan(stored) | (np.isposinf(stored) if kind == "logits" else np.isinf(stored))
    rows = np.flatnonzero(bad.any(axis=1) | np.isneginf(stored).all(axis=1)).tolist()
    if not rows:
        return
    n, row = len(rows), values.numbers[rows[0]].tolist()
    raise DataError(
        f"{n} row{'s' * (n != 1)} of {values.where} {'has' if n == 1 else 'have'} a value that is "
        f"empty, NaN, infinite or too large: {first_few(values.ids[i] for i in rows)}",
        f"row '{values.ids[rows[0]]}' is {first_few(row)}",
        "Predict those images again, or remove the rows and import with --partial",
    )


def _no_proba(values: Values) -> DataError:
    wrong = ~(values.sums_to(1.0) if values.sums_to(1.0).sum() else values.sums_to(100.0))
    row = int(np.flatnonzero(wrong)[0])
    sums, is_negative = values.numbers.sum(axis=1), bool((values.numbers < 0).any())
    found = f"has the values {first_few(f'{v:.6g}' for v in values.numbers[row])}"
    if not is_negative:
        found = f"sums to {sums[row]:.6g}"
    if is_negative or values.numbers.max() > 1:
        advice = "If they are scores before the softmax, import with --kind logits"
    else:
        advice = (
            "Add the columns of missing classes. If each column is an independent probability "
            "(sigmoid), divide each row by its sum first"
        )
    return DataError(
        f"{int(wrong.sum())} of {len(wrong)} rows of {values.where} are not probabilities: "
        f"row '{values.ids[row]}' {found}",
        "probabilities are at least 0 and sum to 1 in each row (or to 100, as percent)",
        advice,
    )


def _caveats(values: Values) -> list[str]:
    if not looks_like_proba(values):
        return []
    return [
        "imported as logits, although all rows are at least 0 and sum to 1 (or 100), like "
        "probabilities: if they are probabilities, import them with --kind proba"
    ]
