"""Compare runs by one method's stored predictions, paired on the images that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ensemble_kit.errors import DataError, UsageError, first_few
from ensemble_kit.evaluation.caveats import table_notes
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.ensemble_folder import METRICS
from ensemble_kit.evaluation.runs.method_predictions import Answered, answers_of
from ensemble_kit.evaluation.runs.stored_ensembles import read_metrics
from ensemble_kit.evaluation.scores.per_image import MetricValues, judge
from ensemble_kit.evaluation.scores.verdict import Verdict, verdicts
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class AcrossRuns:
    """Metrics of each run on the shared images, and a verdict on each against the first run.

    Parameters
    ----------
    figures : mapping of run to MetricValues
    verdicts : tuple of Verdict
    n_left_out : mapping of run to int
        Number of images of each run that are not in all runs.
    notes : tuple of str
        Caveats. One that does not apply to all runs begins with the names of its runs.
    """

    figures: dict[str, MetricValues]
    verdicts: tuple[Verdict, ...]
    n_left_out: dict[str, int]
    notes: tuple[str, ...] = ()


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
        At least two different runs. `method` is stacked in each, or is a member of each.
    method : str
    split : {"oof", "test"}
    protocol : Protocol, optional

    Returns
    -------
    AcrossRuns

    Raises
    ------
    UsageError
        Fewer than two runs, the same run twice, or a run without that method.
    DataError
        No shared samples, different classes, different labels of a sample, predictions of members
        that were trained again since, or runs split by group and runs split by image.
    """
    refuse_repeated(runs)
    protocol = (protocol or Protocol()).for_data(runs[0].manifest())
    _refuse_mixed_splits(runs)
    answered = {run.path.as_posix(): answered_in(run, method, split) for run in runs}
    found = compare_answers(answered, split=split, protocol=protocol)
    notes = shared_notes({run.path.as_posix(): notes_of(run, method) for run in runs})
    return dataclasses.replace(found, notes=notes)


def compare_answers(
    answered: Mapping[str, Answered], *, split: str, protocol: Protocol
) -> AcrossRuns:
    """Metrics of stored predictions on the images that all have, and a verdict on each against the first.

    Parameters
    ----------
    answered : mapping of name to Answered
        Predictions of one method each; with a single one there is no verdict.
    split : {"oof", "test"}
        Part of the runs that the predictions are of.
    protocol : Protocol

    Raises
    ------
    DataError
        No shared samples, different classes, or different labels of a sample.
    """
    ids = _shared(answered, split)
    names = list(answered)
    first = answered[names[0]].table.take(_places(answered[names[0]], ids))
    combined = {
        name: _aligned(name, one, ids, answered[names[0]]) for name, one in answered.items()
    }
    judged = judge(
        combined, first.labels, first.groups, first.n_classes,
        metrics=protocol.figures(first, abstained=any(c.n_abstained for c in combined.values())),
        level=protocol.level, intervals=protocol.intervals,
    )  # fmt: skip
    others = {name: judged[name] for name in names[1:]}
    said = (
        verdicts(
            others,
            names[0],
            judged[names[0]],
            metric_name=protocol.metric,
            part="test" if split == "test" else "cross_fitted",
            group_kind=first.group_kind,
            level=protocol.level,
        )
        if others
        else {}
    )
    return AcrossRuns(
        {name: one.figures for name, one in judged.items()},
        tuple(said.values()),
        {name: len(one.table) - len(ids) for name, one in answered.items()},
    )


def refuse_repeated(runs: Sequence[Run]) -> None:
    """Raise UsageError unless there are at least two runs, each named once."""
    if len(runs) < 2:
        raise UsageError(
            f"{len(runs)} run was given" if runs else "No run was given",
            "a comparison needs at least two runs",
            "Name another run",
        )
    places = [run.path.resolve() for run in runs]
    twice = sorted({p.as_posix() for p in places if places.count(p) > 1})
    if twice:
        raise UsageError(
            f"The same run was given more than once: {first_few(twice)}",
            "a comparison needs different runs",
            "Name another run",
        )


def answered_in(run: Run, method: str, split: str) -> Answered:
    """A method's stored predictions of one part of a run.

    Raises
    ------
    DataError
        The run has no test part.
    """
    answers = answers_of(run, method)
    found = answers.test if split == "test" else answers.oof
    if found is None:
        raise DataError(
            f"The run '{run.path}' has no test part",
            "a comparison on the test part needs one in each run",
            "Leave out --split test",
        )
    return found


def notes_of(run: Run, method: str) -> tuple[str, ...]:
    """The caveats stored with a stacked method; of a member, the caveats of its run."""
    if (run.ensemble_dir(method) / METRICS).is_file():
        return tuple(read_metrics(run, method)["notes"])
    return table_notes(run.predictions("oof", partial=True), None)


def shared_notes(notes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Each caveat once; one that only some runs have begins with their names.

    Examples
    --------
    >>> shared_notes({"a": ["Few patients."], "b": ["Few patients.", "Imported."]})
    ('Few patients.', 'b: Imported.')
    """
    owners: dict[str, list[str]] = {}
    for name, some in notes.items():
        for note in dict.fromkeys(some):
            owners.setdefault(note, []).append(name)
    return tuple(
        note if len(of) == len(notes) else f"{', '.join(of)}: {note}" for note, of in owners.items()
    )


def _refuse_mixed_splits(runs: Sequence[Run]) -> None:
    kinds = {run.record["folds"]["split_by"] for run in runs}
    if len(kinds) > 1:
        raise DataError(
            f"The runs have different kinds of splits: {first_few(sorted(kinds))}",
            "runs split by image and runs split by group cannot be compared",
            "Compare runs with one kind of split",
        )


def _shared(answered: Mapping[str, Answered], split: str) -> list[str]:
    shared = set.intersection(*(set(one.table.sample_ids.tolist()) for one in answered.values()))
    if not shared:
        raise DataError(
            f"The runs share no images in the split '{split}'",
            "runs are compared on the images that all of them have",
            "Compare runs over the same data, or choose the other --split",
        )
    return sorted(shared)


def _places(answered: Answered, ids: Sequence[str]) -> np.ndarray:
    place = {name: i for i, name in enumerate(answered.table.sample_ids.tolist())}
    return np.array([place[name] for name in ids], dtype=np.int64)


def _aligned(name: str, one: Answered, ids: Sequence[str], first: Answered) -> Combined:
    """Its predictions of these samples, with classes in the order of the first run."""
    ours, theirs = one.table.class_names, first.table.class_names
    if set(ours) != set(theirs):
        raise DataError(
            f"The runs have different classes: '{name}' has {first_few(ours)}, the first run has "
            f"{first_few(theirs)}",
            "all runs need the same class names",
            "Compare runs over the same classes",
        )
    at, at_first = _places(one, ids), _places(first, ids)
    by_name = np.array([ours.index(c) for c in theirs])
    new = np.append(np.argsort(by_name), -1)  # the last stands for an abstention
    if (new[one.table.labels[at]] != first.table.labels[at_first]).any() or (
        one.table.groups[at] != first.table.groups[at_first]
    ).any():
        raise DataError(
            f"Images in '{name}' have other labels or groups than in the first run",
            "each image needs the same label and group in all runs",
            "Compare runs over the same data",
        )
    combined = one.combined
    return Combined(combined.proba[at][:, by_name], new[combined.predicted[at]], combined.tied[at])
