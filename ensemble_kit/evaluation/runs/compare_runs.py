"""Compare runs by one method's stored predictions, paired on the images that they share."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from ensemble_kit.errors import DataError, UsageError, command, first_few
from ensemble_kit.evaluation.caveats import table_notes
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.ensemble_folder import METRICS
from ensemble_kit.evaluation.runs.method_predictions import stored_predictions
from ensemble_kit.evaluation.runs.stored_ensembles import read_metrics
from ensemble_kit.evaluation.scores.per_image import MetricValues, score_methods
from ensemble_kit.evaluation.scores.verdict import Verdict, verdicts
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class AcrossRuns:
    """Metrics of each run on the shared images, and a verdict on each against the first run.

    Parameters
    ----------
    metrics : mapping of run to MetricValues
    verdicts : tuple of Verdict
    n_left_out : mapping of run to int
        Number of images of each run that are not in all runs.
    notes : tuple of str
        Caveats. One that does not apply to all runs begins with the names of its runs.
    replaced : tuple of str
        Runs in which the method was replaced by the mean.
    """

    metrics: dict[str, MetricValues]
    verdicts: tuple[Verdict, ...]
    n_left_out: dict[str, int]
    notes: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()


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
    refuse_repeated(runs, method)
    protocol = (protocol or Protocol()).for_data(runs[0].manifest())
    _refuse_mixed_splits(runs)
    predictions = {run.path.as_posix(): predictions_of_part(run, method, split) for run in runs}
    found = compare_method_predictions(predictions, protocol=protocol)
    notes = shared_notes(
        {run.path.as_posix(): _about_part(notes_of(run, method), split) for run in runs}
    )
    replaced = tuple(run.path.as_posix() for run in runs if _is_replaced(run, method))
    return dataclasses.replace(found, notes=notes, replaced=replaced)


def _about_part(notes: Sequence[str], split: str) -> list[str]:
    """The caveats without those on the other part only."""
    others = {
        "oof": ("(test)", "The test part"),
        "test": ("(cross-fitted)", "The out-of-fold part"),
    }
    return [note for note in notes if not any(words in note for words in others[split])]


def _is_replaced(run: Run, method: str) -> bool:
    stored = (run.ensemble_dir(method) / METRICS).is_file()
    return stored and bool(read_metrics(run, method)["fell_back_to_mean"])


def compare_method_predictions(
    predictions: Mapping[str, MethodPredictions], *, protocol: Protocol
) -> AcrossRuns:
    """Metrics on the images that all have, and a verdict on each against the first.

    Parameters
    ----------
    predictions : mapping of name to MethodPredictions
        Predictions of the same part. With a single entry there is no verdict.
    protocol : Protocol

    Raises
    ------
    DataError
        No shared samples, different classes, or different labels or groups of a sample.
    """
    names = list(predictions)
    ids = _shared(predictions)
    first = predictions[names[0]]
    first = first.aligned(ids, first.class_names)
    aligned = {name: _aligned(name, one, first) for name, one in predictions.items()}
    abstained = any(one.n_abstained for one in aligned.values())
    scored = score_methods(
        aligned, first.labels, first.groups, first.n_classes,
        metrics=protocol.all_metrics(first, abstained=abstained),
        level=protocol.level, intervals=protocol.intervals,
    )  # fmt: skip
    others = {name: scored[name] for name in names[1:]}
    outcomes: dict[str, Verdict] = {}
    if others:
        outcomes = verdicts(
            others, names[0], scored[names[0]], metric_name=protocol.metric,
            part="test" if first.part == "test" else "cross_fitted",
            group_kind=first.group_kind, level=protocol.level,
        )  # fmt: skip
    return AcrossRuns(
        {name: one.values for name, one in scored.items()},
        tuple(outcomes.values()),
        {name: len(one) - len(ids) for name, one in predictions.items()},
    )


def refuse_repeated(runs: Sequence[Run], method: str = "all") -> None:
    """Raise UsageError unless there are at least two runs, each named once."""
    if len(runs) < 2:
        methods = method if "," in method else "all"
        within = command("stack", "--method", methods, *(("--run", runs[0].path) if runs else ()))
        raise UsageError(
            f"{len(runs)} run was given" if runs else "No run was given",
            "a comparison needs at least two runs",
            f"Name another run. To compare methods of one run: {within}",
        )
    places = [run.path.resolve() for run in runs]
    twice = sorted({p.as_posix() for p in places if places.count(p) > 1})
    if twice:
        raise UsageError(
            f"The same run was given more than once: {first_few(twice)}",
            "a comparison needs different runs",
            "Name another run",
        )


def predictions_of_part(run: Run, method: str, split: str) -> MethodPredictions:
    """A method's stored predictions of one part of a run.

    Raises
    ------
    DataError
        The run has no test part.
    """
    stored = stored_predictions(run, method)
    found = stored.test if split == "test" else stored.oof
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


def _shared(predictions: Mapping[str, MethodPredictions]) -> list[str]:
    shared = set.intersection(*(set(one.ids.tolist()) for one in predictions.values()))
    if not shared:
        part = next(iter(predictions.values())).part
        raise DataError(
            f"The runs share no images in the split '{part}'",
            "runs are compared on the images that all of them have",
            "Compare runs over the same data, or choose the other --split",
        )
    return sorted(shared)


def _aligned(name: str, one: MethodPredictions, first: MethodPredictions) -> MethodPredictions:
    """Its predictions of the samples of the first run, with classes in the same order."""
    if set(one.class_names) != set(first.class_names):
        raise DataError(
            f"The runs have different classes: '{name}' has {first_few(one.class_names)}, the first "
            f"run has {first_few(first.class_names)}",
            "all runs need the same class names",
            "Compare runs over the same classes",
        )
    found = one.aligned(first.ids.tolist(), first.class_names)
    if (found.labels != first.labels).any() or (found.groups != first.groups).any():
        raise DataError(
            f"Images in '{name}' have other labels or groups than in the first run",
            "each image needs the same label and group in all runs",
            "Compare runs over the same data",
        )
    return found
