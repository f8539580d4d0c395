"""Predicting many images into one table, and patients into a second one. Continues after a kill."""

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
    """The written tables, and counts of their images.

    Parameters
    ----------
    path : path
        The table with one row per image.
    per_group : path or None
        The table with one row per patient.
    n_images, n_bad, n_before : int
        Numbers of all images, of unreadable images, and of images predicted by an earlier start.
    bad : tuple of (name, reason)
        The first unreadable images.
    caveats : mapping of str to int
        Number of images by caveat.
    n_by_class : mapping of str to int
        Number of images by predicted class, in the order of the classes. "": the method abstained.
    n_disputed : int
        Number of images with different votes of the members.
    n_by_decision : mapping of str to int, optional
        Number of images by decision, if the method has decisions.
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
    """Predict images and write `path`. If patients are known, also write `STEM-per-group.csv`.

    If a call was interrupted, a second call with the same images and ensemble continues it. The
    result has the same bytes.

    Parameters
    ----------
    sources : sequence of Source
    on_bad_image : {"skip", "fail"}
        For an unreadable image, `skip` writes the reason to the column `error`; `fail` stops.
    progress : callable, optional
        Called with (images done, all images).

    Raises
    ------
    DataError
        No image can be read, or one cannot be read with `fail`. Or the table was started with
        other images or another ensemble.
    RunLockedError
        Another process is writing the same table.
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
    """The rows of a block, in the order of its images. `error` says why an image is unreadable."""
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
    """Digests of everything that the rows depend on."""
    stored = ensemble.stored
    decisions = [
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
        "decisions": digest_json(repr(decisions)),
        # The backends differ in the last digits.
        **({} if ensemble.backend == TORCH else {"backend": ensemble.backend}),
    }


def _rule(decision: StoredDecision | None) -> dict[str, Any] | None:
    """A decision rule without its notes, because no row depends on them."""
    if decision is None:
        return None
    return {k: v for k, v in dataclasses.asdict(decision).items() if k != "notes"}


def _columns(table: PredictionFile, wanted: Sequence[str]) -> pd.DataFrame:
    """The wanted columns of the table, as text."""
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
    """Numbers of images by class, by decision, and with different votes."""
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
    """One row per patient, pooled and decided in the same way as in `stack`.

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
        # The threshold was chosen on mean probabilities.
        mean, _ = Pooling().apply(images, of_images)
        columns["decision"] = decision.decide(mean, ensemble.class_names, unit)
    frame = pd.DataFrame(columns).set_index("group")
    counts = rows.groupby("group", sort=True)["error"].agg(
        images="size", unreadable=lambda errors: int((errors != "").sum())
    )
    # A patient without a readable image has a row without a prediction.
    return counts.join(frame).reset_index()
