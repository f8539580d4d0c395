"""Writes and reads the sets of members by cost: `pareto.csv`, and its digests in `pareto.json`."""

from __future__ import annotations

import pandas as pd

from ensemble_kit.checked import check_file, read_checked, write_checked
from ensemble_kit.errors import IntegrityError
from ensemble_kit.evaluation.diversity.pareto import PARETO
from ensemble_kit.evaluation.runs.ensemble_folder import made_of
from ensemble_kit.files import digest_file, read_csv, write_csv
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run
from ensemble_kit.run.folder import ENSEMBLES

RECORD = "pareto.json"
AGAIN = "Run ensemble-kit stack --pareto again, or delete pareto.csv and pareto.json"
NUMBERS = ["cost", "value", "low", "high"]


def write_pareto(run: Run, table: pd.DataFrame, oof: Predictions) -> None:
    """Write the table, then the digests of the table and of its predictions."""
    folder = run.path / ENSEMBLES
    write_csv(folder / PARETO, table)
    files = {PARETO: digest_file(folder / PARETO)}
    write_checked(folder / RECORD, {"made_of": made_of(oof, None), "files": files})


def read_pareto(run: Run, oof: Predictions) -> pd.DataFrame | None:
    """The stored table; None if there is none, or if it is of other predictions.

    Raises
    ------
    IntegrityError
        The table is damaged or was changed.
    """
    folder = run.path / ENSEMBLES
    if not (folder / PARETO).is_file():
        return None
    record = {}
    if (folder / RECORD).is_file():
        record = read_checked(folder / RECORD, advice=AGAIN)
        check_file(folder / PARETO, record["files"][PARETO], advice=AGAIN)
    if record and record["made_of"] != made_of(oof, None):
        return None
    try:
        table = read_csv(folder / PARETO)
        table[NUMBERS] = table[NUMBERS].apply(pd.to_numeric)
        return table.assign(on_front=table["on_front"] == "True")
    except (KeyError, ValueError, TypeError) as error:
        raise IntegrityError(
            f"'{folder / PARETO}' is damaged ({error})",
            "stored files must stay as they were written",
            AGAIN,
        ) from error
