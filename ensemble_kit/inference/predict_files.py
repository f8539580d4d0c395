"""Many images into one table of predictions, and one more per patient; continued after a kill.

The function behind `ensemble-kit predict`. Prints nothing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ensemble_kit.errors import DataError, counted, first_few
from ensemble_kit.files import csv_text, digest_json, write_csv
from ensemble_kit.formulas import unguarded
from ensemble_kit.images.digests import refuse_faults
from ensemble_kit.inference.backends import TORCH
from ensemble_kit.inference.ensemble import BlockPredictions, Ensemble
from ensemble_kit.inference.image_caveats import SEPARATOR
from ensemble_kit.inference.pooling import Pooling
from ensemble_kit.inference.prediction_file import PredictionFile, opened
from ensemble_kit.inference.sources import Source
from ensemble_kit.inference.stored_decisions import StoredDecision
from ensemble_kit.metrics.costs import least_cost
from ensemble_kit.predictions.method_predictions import ABSTAINED, Combined

SKIP, FAIL = "skip", "fail"


@dataclasses.dataclass(frozen=True)
class Written:
    """What became of a prediction.

    Parameters
    ----------
    path : path
        The table, one row an image.
    per_group : path or None
        The table with one row a patient.
    n_images, n_bad, n_before : int
        All images; those that cannot be read; those that an earlier start had predicted.
    bad : tuple of (name, reason)
        The first unreadable images.
    caveats : mapping of str to int
        What must be said of some images, and of how many.
    n_by_class : mapping of str to int
        Images by predicted class, in the order of the classes; "" where the method abstained.
    n_disputed : int
        Images on which not all members vote for the same class.
    n_by_decision : mapping of str to int, optional
        Images by decision, where the method has decisions.
    """

    path: Path
    per_group: Path | None
    n_images: int
    n_bad: int
    n_before: int
    bad: tuple[tuple[str, str], ...]
    caveats: Mapping[str, int]
    n_by_class: Mapping[str, int]
    n_disputed: int
    n_by_decision: Mapping[str, int] | None


def predict_files(
    ensemble: Ensemble,
    sources: Sequence[Source],
    path: Path,
    *,
    on_bad_image: str = SKIP,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Predict images and write `path`; where patients are known, also `STEM-per-group.csv`.

    A second call with the same images and ensemble continues where the first was stopped, and ends
    with the same bytes.

    Parameters
    ----------
    sources : sequence of Source
    on_bad_image : {"skip", "fail"}
        `skip` keeps a row with the reason in the column `error`; `fail` stops.
    progress : callable, optional
        Called with (images done, images in all).

    Raises
    ------
    DataError
        An unreadable image under `fail`, or no readable image at all; a table of another plan.
    RunLockedError
        Another process writes the same table.
    """
    with opened(path, _plan(ensemble, sources)) as table:
        before = table.n_done
        if progress:
            progress(before, len(sources))
        for block in ensemble.predict_blocks(sources, before):
            if on_bad_image == FAIL:
                refuse_faults(dict(block.faults), len(block.sources))
            text = csv_text(block_frame(block), header=table.n_done == 0)
            table.append(text, len(block.sources))
            if progress:
                progress(table.n_done, len(sources))
        bad, caveats, counts = _bad(table), _caveats(table), _counts(ensemble, table)
        per_group = _write_groups(ensemble, table, path) if sources[0].group else None
        table.finish()
    if len(bad) == len(sources):
        raise DataError(
            f"None of {counted(len(sources), 'image')} can be read",
            first_few((reason for _, reason in bad), 3),
            f"Check the files; '{path}' lists every reason",
        )
    return Written(
        path, per_group, len(sources), len(bad), before, tuple(bad[:20]), caveats, **counts
    )


def block_frame(block: BlockPredictions) -> pd.DataFrame:
    """The rows of a block, in the order of its images; an unreadable one has its reason in `error`."""
    everything = np.arange(len(block.sources))
    frame = block.predictions.frame().set_index(block.good).reindex(everything)
    frame["image"] = [source.name for source in block.sources]
    if any(source.group for source in block.sources):
        frame.insert(1, "group", [source.group for source in block.sources])
    frame["error"] = [_reason(block, i) for i in range(len(block.sources))]
    return frame


def _reason(block: BlockPredictions, i: int) -> str:
    error = block.faults.get(i)
    return "" if error is None else " ".join(f"{error.problem}; {error.allowed}".split())


def _plan(ensemble: Ensemble, sources: Sequence[Source]) -> dict[str, str]:
    """Digests of all that decides the rows."""
    stored = ensemble.stored
    decided = [
        None
        if stored.sets is None
        else [stored.sets.rule.score, stored.sets.rule.thresholds.tolist()],
        _rule(stored.decision),
        None if stored.costs is None else stored.costs.tolist(),
        stored.pooling.as_mapping(),
    ]
    return {
        "images": digest_json(
            [[s.name, s.path, s.pair_path, s.group, s.file_state] for s in sources]
        ),
        "method": stored.name,
        "members": digest_json(dict(stored.made_of)),
        "decisions": digest_json(repr(decided)),
        # The backends differ in the last digits.
        **({} if ensemble.backend == TORCH else {"backend": ensemble.backend}),
    }


def _rule(decision: StoredDecision | None) -> dict[str, Any] | None:
    """A decision rule without its notes, whose words decide no row."""
    if decision is None:
        return None
    return {k: v for k, v in dataclasses.asdict(decision).items() if k != "notes"}


def _columns(table: PredictionFile, wanted: Sequence[str]) -> pd.DataFrame:
    """Some columns of the table, as text."""
    frame = pd.read_csv(
        table.part, usecols=list(wanted), dtype=str, keep_default_na=False, encoding="utf-8"
    )
    return frame[list(wanted)]


def _bad(table: PredictionFile) -> list[tuple[str, str]]:
    rows = _columns(table, ["image", "error"])
    rows = rows[rows["error"] != ""]
    return [(unguarded(i), unguarded(e)) for i, e in zip(rows["image"], rows["error"], strict=True)]


def _caveats(table: PredictionFile) -> dict[str, int]:
    column = _columns(table, ["caveat"])["caveat"]
    return dict(Counter(one for text in column[column != ""] for one in text.split(SEPARATOR)))


def _counts(ensemble: Ensemble, table: PredictionFile) -> dict[str, Any]:
    """Images by class and by decision, and those on which the votes differ."""
    has_decisions = ensemble.stored.decision is not None
    votes = [f"vote_{name}" for name in ensemble.member_names]
    rows = _columns(table, ["predicted", *votes, *["decision"] * has_decisions, "error"])
    rows = rows[rows["error"] == ""].map(unguarded)
    by_class = Counter(rows["predicted"])
    return {
        "n_by_class": {
            name: by_class[name] for name in (*ensemble.class_names, "") if by_class[name]
        },
        "n_disputed": int((rows[votes].nunique(axis=1) > 1).sum()),
        "n_by_decision": dict(sorted(Counter(rows["decision"]).items())) if has_decisions else None,
    }


def _write_groups(ensemble: Ensemble, table: PredictionFile, path: Path) -> Path:
    target = path.with_name(f"{path.stem}-per-group.csv")
    names = [f"p_{name}" for name in ensemble.class_names]
    rows = _columns(table, ["group", "predicted", *names, "error"])
    rows["group"] = rows["group"].map(unguarded)
    write_csv(target, group_frame(ensemble, rows, rows[names]))
    return target


def group_frame(ensemble: Ensemble, rows: pd.DataFrame, proba: pd.DataFrame) -> pd.DataFrame:
    """One row a patient, pooled and decided as `stack` evaluates patients.

    Parameters
    ----------
    rows : DataFrame
        `group`, `predicted` and `error` of every image.
    proba : DataFrame
        The probabilities as text, empty for unreadable images.
    """
    good = (rows["error"] == "").to_numpy()
    values = proba[good].astype(np.float64).to_numpy()
    names, stored = np.array(ensemble.class_names), ensemble.stored
    place = {name: c for c, name in enumerate(names)} | {"": ABSTAINED}
    voted = np.array([place[one] for one in rows["predicted"][good]], dtype=np.int64)
    images = Combined(values, voted, np.zeros(len(values), dtype=np.bool_))
    of_images = rows["group"][good].to_numpy(dtype=np.str_)
    combined, groups = stored.pooling.apply(images, of_images)
    if stored.costs is not None:
        combined = least_cost(combined, stored.costs)
    columns: dict[str, Any] = {"group": groups, "predicted": names[combined.predicted]}
    columns |= {f"p_{name}": combined.proba[:, c] for c, name in enumerate(names)}
    decision, unit = stored.decision, stored.group_kind
    if decision is not None and unit in decision.points:
        # The threshold was chosen on means.
        mean, _ = Pooling().apply(images, of_images)
        columns["decision"] = decision.decide(mean, ensemble.class_names, unit)
    frame = pd.DataFrame(columns).set_index("group")
    counts = rows.groupby("group", sort=True)["error"].agg(
        images="size", unreadable=lambda errors: int((errors != "").sum())
    )
    # A patient of whom no image can be read keeps a row without a prediction.
    return counts.join(frame).reset_index()
