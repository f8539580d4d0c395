"""Finds groups and identical files on two sides of a split, in the tables of a run."""

from __future__ import annotations

import pandas as pd

from ensemble_kit.errors import command, counted
from ensemble_kit.report.content import Content


def leakage_sentence(content: Content) -> str:
    """The leakage in the tables, and the command that also checks pixels."""
    table = _sides(content)
    sentences = [_groups(content, table), _files(table)]
    if content.run.is_imported:
        return f"Leakage: {' '.join(sentences)}"
    again = command("data", "check", content.run.path)
    return f"Leakage: {' '.join(sentences)} Near duplicates and colour are checked by `{again}`."


def _sides(content: Content) -> pd.DataFrame:
    """`group, sha256, side` of each image; the side is its fold, or "test"."""
    table, train = content.manifest.table, content.manifest.part("train")
    fold = dict(zip(train.sample_ids, content.folds.of(train), strict=True))
    sides = [str(fold.get(one, "test")) for one in content.manifest.sample_ids]
    digests = table["sha256"].astype(str) if "sha256" in table else ""
    return pd.DataFrame({"group": table["group"], "sha256": digests, "side": sides})


def _on_two_sides(table: pd.DataFrame, column: str) -> int:
    return int((table.groupby(column)["side"].nunique() > 1).sum())


def _groups(content: Content, table: pd.DataFrame) -> str:
    if not content.manifest.has_groups:
        return "patients are not known, so images of one patient may be on two sides of a split."
    n_all, unit = table["group"].nunique(), content.unit
    n = _on_two_sides(table, "group")
    if not n:
        return f"none of {n_all} {unit}s is in two folds, or in training and test."
    return (
        f"{n} of {n_all} {unit}s are in two folds, or in training and test. These metrics also reward "
        f"recognising the {unit}."
    )


def _files(table: pd.DataFrame) -> str:
    known = table[~table["sha256"].isin(["", "nan"])]
    if known.empty:
        return "The run has no digests of its images, so it was not checked for identical files."
    n = _on_two_sides(known, "sha256")
    if not n:
        return f"No two of {len(known)} files on different sides are identical (SHA-256)."
    return f"{counted(n, 'file', 'is')} identical to a file on another side of a split (SHA-256)."
