"""A table of the report as plain text cells, for the page and for three file formats."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

TITLES = {
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "log_loss": "log loss",
    "ece": "calibration error",
    "ece_equal_mass": "calibration error (bins of equal count)",
    "calibration_error_debiased": "calibration error (debiased)",
    "brier": "Brier score",
    "aurc": "AURC",
    "mcc": "MCC",
    "macro_f1": "macro F1",
    "quadratic_weighted_kappa": "quadratic weighted kappa",
    "mean_absolute_error": "mean absolute error (classes)",
    "recognition_rate": "recognition rate",
    "average_precision": "average precision",
    "f1": "F1",
}

# Longer cells are sentences.
LONG = 30


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell.

    Parameters
    ----------
    text : str
    small : str
        Smaller text below it, e.g. an interval in brackets.
    link : str
        The anchor on the page that the cell links to; "" without a link.
    """

    text: str
    small: str = ""
    link: str = ""

    def __str__(self) -> str:
        beside = self.small if self.small.startswith("[") or not self.small else f"({self.small})"
        return f"{self.text} {beside}".rstrip()


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table whose first column names its rows.

    Parameters
    ----------
    name : str
        Stem of its files.
    caption : str
    columns : tuple of (str, str)
        Group of columns and name of the column; the columns of a group share a heading.
    rows : tuple of tuple of Cell
    note : str
        A legend.
    muted : frozenset of str
        Rows in grey, e.g. baselines.
    shown : frozenset of str, optional
        The rows on the page; all by default. The files have all rows.
    """

    name: str
    caption: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    muted: frozenset[str] = frozenset()
    shown: frozenset[str] | None = None

    @property
    def is_text(self) -> bool:
        """Whether its cells hold sentences, which are flush left."""
        return any(len(cell.text) > LONG for row in self.rows for cell in row[1:])

    @property
    def shown_rows(self) -> list[tuple[Cell, ...]]:
        if self.shown is None:
            return list(self.rows)
        return [row for row in self.rows if row[0].text in self.shown]

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Headings above the columns, with the number of columns of each; empty without groups."""
        found: list[tuple[str, int]] = []
        for group, _ in self.columns:
            if found and found[-1][0] == group:
                found[-1] = (group, found[-1][1] + 1)
            else:
                found.append((group, 1))
        return found if any(group for group, _ in found) else []

    @property
    def heads(self) -> list[str]:
        """One heading per column, with its group."""
        return [f"{group}, {name}" if group else name for group, name in self.columns]

    def only(self, names: Collection[str]) -> Sheet:
        """The same table with these rows on the page."""
        return dataclasses.replace(self, shown=frozenset(names))


def text_sheet(
    name: str, caption: str, rows: Sequence[Sequence[str]], note: str = "", **options: Any
) -> Sheet:
    """A table of plain text; the first of the rows has the names of the columns."""
    head, *body = rows
    columns = tuple(("", one) for one in head)
    return Sheet(
        name, caption, columns, tuple(tuple(map(Cell, row)) for row in body), note, **options
    )


def values_sheet(
    name: str,
    caption: str,
    values: pd.DataFrame,
    *,
    rows: Sequence[str],
    columns: Sequence[tuple[str, str]],
    head: str,
    part_names: Mapping[str, str] | None = None,
    note: str = "",
    muted: Collection[str] = (),
    smalls: Mapping[str, str] | None = None,
) -> Sheet:
    """A table of values with their intervals.

    Parameters
    ----------
    values : DataFrame
        `row, metric, part, value, low, high`.
    rows : sequence of str
    columns : sequence of (metric, part)
        The headings name the part only if there are several.
    head : str
        Heading of the row names, e.g. "method".
    part_names : mapping of part to str, optional
    smalls : mapping of row to str, optional
        Smaller text below the name of the row.
    """
    named, beside = part_names or {}, smalls or {}
    known = {(r["row"], r["metric"], r["part"]): r for r in values.to_dict("records")}
    body = [
        (Cell(row, beside.get(row, "")), *(value_cell(known.get((row, *c))) for c in columns))
        for row in rows
    ]
    heads = [(TITLES.get(m, m.replace("_", " ")), named.get(p, p)) for m, p in columns]
    if len({part for _, part in heads}) == 1:
        heads = [("", metric) for metric, _ in heads]
    return Sheet(name, caption, (("", head), *heads), tuple(body), note, frozenset(muted))


def value_cell(values: Mapping[str, Any] | None) -> Cell:
    """A value with its interval below it; "n/a" where undefined."""
    if values is None or pd.isna(values["value"]):
        return Cell("n/a")
    low, high = values["low"], values["high"]
    small = "" if pd.isna(low) or pd.isna(high) else f"[{low:.3f}, {high:.3f}]"
    return Cell(f"{values['value']:.3f}", small)
