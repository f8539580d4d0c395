"""Reads histories, recipes and costs of a run's trainings. Every file is checked by its digest."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ensemble_kit.checked import check_file, read_checked
from ensemble_kit.errors import IntegrityError
from ensemble_kit.files import read_csv
from ensemble_kit.run import Run

HISTORY = "history.csv"
TRAIN_AGAIN = (
    "Delete the folder '{}' and run the same train-members command: only that fold is trained again"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Training:
    """The finished folds of one member.

    Parameters
    ----------
    records : mapping of fold to dict
        The content of each `fold.json`.
    histories : mapping of fold to DataFrame
        `epoch, train_loss, val_log_loss, val_on, ...`, epochs from 0.
    """

    records: Mapping[int, dict[str, Any]]
    histories: Mapping[int, pd.DataFrame]

    @property
    def about(self) -> dict[str, Any]:
        """The settings of the member, from its first fold."""
        first = next(iter(self.records.values()))
        return first["made_of"].get("member", {})


def read_trainings(run: Run, members: tuple[str, ...]) -> dict[str, Training]:
    """The trainings by member; imported members are left out.

    Raises
    ------
    IntegrityError
        A record or a history is damaged or was changed.
    """
    found = {}
    for member in members:
        records, histories = {}, {}
        for fold, folder in _folds_of(run, member).items():
            records[fold] = _fold_record(folder)
            histories[fold] = _history(folder, records[fold])
        if records:
            found[member] = Training(records, histories)
    return found


def recipe_rows(trainings: Mapping[str, Training]) -> pd.DataFrame:
    """One row per member: network, input, start, then its recipe as text."""
    rows = []
    for member, one in trainings.items():
        about, record = one.about, next(iter(one.records.values()))
        start = "timm's weights" if about.get("pretrained") else "random"
        if about.get("weights"):
            start = f"checkpoint {about['weights'][:12]}"
        rows.append(
            {
                "member": member,
                "network": about.get("network", ""),
                "input": f"{about.get('image_size', '?')} px",
                "start": start,
                **{k: _plain(v) for k, v in _flat(about.get("recipe", {})).items()},
                "device": f"{record['device']}, {record['precision']}",
            }
        )
    return pd.DataFrame(rows)


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without its sub-tables: `optim.name` is one setting."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{name}": one for name, one in value.items()}
        else:
            found[key] = value
    return found


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _folds_of(run: Run, member: str) -> dict[int, Path]:
    """Folders of the finished folds, without those of pairs of folds."""
    found = [p.parent for p in run.member_dir(member).glob("fold-*/fold.json")]
    numbered = {p.name.removeprefix("fold-"): p for p in found}
    return {int(k): numbered[k] for k in sorted(filter(str.isdecimal, numbered), key=int)}


def _history(folder: Path, record: Mapping[str, Any]) -> pd.DataFrame:
    """A finished fold's `history.csv`, checked; all columns but `val_on` are numbers."""
    path, advice = folder / HISTORY, TRAIN_AGAIN.format(folder)
    check_file(path, record["files"][HISTORY], advice=advice)
    table = read_csv(path)
    numbers = [c for c in table.columns if c != "val_on"]
    table[numbers] = table[numbers].astype(float)
    return table


def _fold_record(folder: Path) -> dict[str, Any]:
    record = read_checked(folder / "fold.json", advice=TRAIN_AGAIN.format(folder))
    if {"made_of", "files"} <= record.keys():
        return record
    raise IntegrityError(
        f"'{folder / 'fold.json'}' is damaged",
        "stored files must be unchanged",
        TRAIN_AGAIN.format(folder),
    )
