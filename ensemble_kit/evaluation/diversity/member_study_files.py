"""Writes the study of members: `members.csv`, `pairs.csv` and `diversity.json`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd

from ensemble_kit.evaluation.diversity.member_study import MemberStudy
from ensemble_kit.files import write_csv, write_json


def study_json(found: MemberStudy) -> dict[str, Any]:
    """Everything in `diversity.json`; undefined values are null."""

    def records(table: pd.DataFrame) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(
            table.to_json(orient="records", double_precision=15)
        )
        return rows

    return {
        "schema_version": 1,
        "metric": found.protocol.metric,
        "n": found.n,
        "n_groups": found.n_groups,
        "group_kind": found.group_kind,
        "mean_of_all": found.whole.value,
        "best_alone": found.best,
        "brier": dict(found.decomposition),
        "members": records(found.members),
        "pairs": records(found.pairs),
        "reading": found.sentence,
        "notes": list(found.notes),
    }


def write_study(folder: str | os.PathLike[str], found: MemberStudy) -> None:
    """Write `members.csv`, `pairs.csv` and `diversity.json`."""
    target = Path(folder)
    for name, table in {"members": found.members, "pairs": found.pairs}.items():
        write_csv(target / f"{name}.csv", table)
    write_json(target / "diversity.json", study_json(found))
