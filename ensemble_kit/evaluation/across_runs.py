"""Runs against each other, paired on the samples that they share.

Each run is represented by one method's stored predictions. Fits nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ensemble_kit.combiners.base import ABSTAINED, Combined
from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.evaluation.ensembles import read_ensemble_predictions
from ensemble_kit.evaluation.figures import Figures, judge
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.verdict import Verdict, verdicts
from ensemble_kit.metrics import DEFAULT_METRICS
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class AcrossRuns:
    """Figures of each run on the shared samples, and a verdict of each against the first."""

    figures: dict[str, Figures]
    verdicts: tuple[Verdict, ...]
    n_left_out: dict[str, int]


def compare_runs(
    runs: Sequence[Run],
    *,
    method: str = "mean",
    split: str = "oof",
    protocol: Protocol | None = None,
) -> AcrossRuns:
    """Compare the stored predictions of one method across runs, paired by sample id.

    Parameters
    ----------
    runs : sequence of Run
        At least two; each stacked by `method`.
    method : str
    split : {"oof", "test"}

    Raises
    ------
    DataError
        No shared samples, other classes, another label of a sample, or runs split by group and by
        image: those are never ranked against each other.
    """
    protocol = protocol or Protocol()
    if len(runs) < 2:
        raise UsageError(
            "A comparison takes at least two runs", f"got {len(runs)}", "Name another run"
        )
    kinds = {run.record["folds"]["split_by"] for run in runs}
    if len(kinds) > 1:
        raise DataError(
            "Runs split by image are not ranked against runs split by group",
            f"got {first_few(sorted(kinds))}",
            "Compare runs of one kind of split",
        )
    tables = {run.path.as_posix(): _table(run, method, split) for run in runs}
    names = list(tables)
    shared = set.intersection(*(set(t.index) for t in tables.values()))
    if not shared:
        raise DataError(
            "Runs are compared on shared samples",
            "they have none",
            f"Compare runs over the same data, or another split than {split}",
        )
    ids = sorted(shared)
    classes = [c for c in tables[names[0]].columns if c.startswith("p_")]
    first = tables[names[0]].loc[ids]
    for name, table in tables.items():
        if set(classes) != {c for c in table.columns if c.startswith("p_")}:
            raise DataError(
                "Runs share their class names",
                f"'{name}' has others",
                "Compare runs over the same classes",
            )
        if (table.loc[ids, ["label", "group"]] != first[["label", "group"]]).to_numpy().any():
            raise DataError(
                "A sample has one label and group in all runs",
                f"'{name}' differs",
                "Compare runs over the same data",
            )
    combined = {name: _combined(table.loc[ids], classes) for name, table in tables.items()}
    class_names = [c[2:] for c in classes]
    labels = np.array([class_names.index(label) for label in first["label"]], dtype=np.int64)
    judged = judge(
        combined, labels, first["group"].to_numpy(dtype=np.str_), len(classes),
        metrics=list(dict.fromkeys([*(protocol.metrics or DEFAULT_METRICS), protocol.metric])),
        n_resamples=protocol.n_resamples, level=protocol.level, seed=protocol.seed,
    )  # fmt: skip
    part = "test" if split == "test" else "cross_fitted"
    said = verdicts(
        {name: judged[name] for name in names[1:]},
        names[0],
        judged[names[0]],
        metric_name=protocol.metric,
        part=part,
        level=protocol.level,
    )
    left_out = {name: len(table) - len(ids) for name, table in tables.items()}
    return AcrossRuns(
        {name: one.figures for name, one in judged.items()}, tuple(said.values()), left_out
    )


def _table(run: Run, method: str, split: str) -> pd.DataFrame:
    folder = run.ensemble_dir(method)
    if not (folder / "predictions.csv").is_file():
        raise DataError(
            "Runs are compared by stacked predictions",
            f"'{run.path}' has none of '{method}'",
            f"Run ensemble-kit stack --method {method} --run {run.path}",
        )
    table = read_ensemble_predictions(folder)
    return table[table["split"] == split].set_index("sample_id")


def _combined(table: pd.DataFrame, columns: list[str]) -> Combined:
    names = [c[2:] for c in columns]
    predicted = [names.index(p) if p in names else ABSTAINED for p in table["predicted"]]
    return Combined(
        table[columns].to_numpy(),
        np.array(predicted, dtype=np.int64),
        np.zeros(len(table), dtype=bool),
    )
