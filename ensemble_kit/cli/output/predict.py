"""Output of `predict`: one image in detail, several as a summary, or JSON."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from ensemble_kit.cli.options.shared import how_chosen
from ensemble_kit.cli.output.text import columns, print_text
from ensemble_kit.errors import command, counted
from ensemble_kit.inference.bundle_files import is_bundle
from ensemble_kit.inference.stored_decisions import IMAGE, REFER

if TYPE_CHECKING:
    from ensemble_kit.errors import EnsembleKitError
    from ensemble_kit.inference.ensemble import Ensemble
    from ensemble_kit.inference.find_images import FoundImages
    from ensemble_kit.inference.image_predictions import ImagePredictions
    from ensemble_kit.inference.predict_files import Written
    from ensemble_kit.run import Run

WIDTH = 30
QUIET_SECONDS = 3.0


def print_one(ensemble: Ensemble, run: Run, found: FoundImages) -> None:
    """Print the prediction of one image."""
    (block,) = ensemble.predict_blocks(found.sources)
    for error in block.faults.values():
        raise error
    one = block.predictions
    for line in [_first_line(ensemble, run), *_details(ensemble, one)]:
        print_text(line)
    for note in (*one.caveats[0], *ensemble.notes):
        print_text(f"Caveat: {note}")
    for line in _decision_commands(ensemble, run):
        print_text(line)


def _first_line(ensemble: Ensemble, run: Run) -> str:
    what = "Bundle" if is_bundle(run.path) else "Run"
    return f"{what}: {run.path.as_posix()}{how_chosen()}. Method: {ensemble.method}."


def _decision_commands(ensemble: Ensemble, run: Run) -> list[str]:
    """Commands that add prediction sets and decisions, if the run has none."""
    stored = ensemble.stored
    if is_bundle(run.path) or stored.decision_notes:
        return []
    options = "--method", ensemble.method, "--run", run.path
    for_sets = f"For prediction sets: {command('conformal', *options)}"
    for_decisions = f"For decisions: {command('operating-point', '--refer', '10%', *options)}"
    return [for_sets] * (stored.sets is None) + [for_decisions] * (stored.decision is None)


def _details(ensemble: Ensemble, one: ImagePredictions) -> list[str]:
    proba = one.proba[0]
    noun = "Shares of the members' votes" if ensemble.gives_vote_shares else "Probabilities"
    lines = [one.names[0], *_headline(ensemble, one), "", f"{noun}:"]
    rows = [
        (f"  {name}", f"{p:.3f}", "#" * round(WIDTH * p))
        for name, p in zip(one.class_names, proba, strict=True)
    ]
    lines += [*columns(rows, right=[1]).splitlines(), ""]
    votes = [(name, str(vote)) for name, vote in zip(one.member_names, one.votes[0], strict=True)]
    lines += ["Votes of the members:", *columns([("  " + n, v) for n, v in votes]).splitlines()]
    lines.append(_uncertainty(one))
    if ensemble.stored.sets is not None:
        share = 100 * (1 - ensemble.stored.sets.alpha)
        lines.append(f"Prediction set ({share:.4g} % coverage): {_set_words(one.set_of(0) or ())}")
    return lines


def _uncertainty(one: ImagePredictions) -> str:
    n_members, entropy = len(one.member_names), float(one.entropy[0])
    text = f"Uncertainty: {100 * entropy / math.log(len(one.class_names)):.0f} % of the maximum"
    if n_members == 1:
        return f"{text} (entropy of the probabilities)."
    share = 100 * float(one.mutual_information[0]) / entropy if entropy > 0 else 0
    n_other = round(float(one.disagreement[0]) * n_members)
    votes = (
        f"{n_other} of {n_members} members vote{'s' * (n_other == 1)} for another class"
        if n_other
        else f"All {n_members} members vote for this class"
    )
    if not str(one.classes[0]):
        votes = "The members' votes are tied"
    return f"{text} (entropy of the members' mean), {share:.0f} % of it because members differ. {votes}."


def _set_words(classes: tuple[str, ...]) -> str:
    if not classes:
        return "empty. The image is unlike every class."
    several = f". {len(classes)} classes are possible: the class is uncertain."
    return ", ".join(classes) + several * (len(classes) > 1)


def _headline(ensemble: Ensemble, one: ImagePredictions) -> list[str]:
    """The predicted class, and the decision if the run has an operating point."""
    predicted = f"Predicted: {str(one.classes[0]) or 'none (the method abstained)'}"
    if one.decisions is None or ensemble.stored.decision is None:
        return [predicted]
    decided, target = one.decisions[0], ensemble.stored.decision.target
    if decided == REFER:
        return [predicted, "Decision: refer (too uncertain by the stored rule)"]
    if target is None:
        return [predicted, f"Decision: {decided} (certain enough by the stored rule)"]
    name, p = one.class_names[target], one.proba[0, target]
    is_called = decided == name
    point = ensemble.stored.decision.points[IMAGE]
    rule = f"{p:.3f} is {'at least' if is_called else 'below'} the threshold {point.threshold:.3f}"
    rule += ", and not near enough to be referred" * (point.refer_below > 0)
    noun = "vote share" if ensemble.gives_vote_shares else "probability"
    if len(one.class_names) == 2:
        return [predicted, f"Decision: {decided} ({noun} of '{name}': {rule})"]
    return [predicted, f"Decision on '{name}': {'called' if is_called else 'not called'} ({rule})"]


def stream_json(ensemble: Ensemble, run: Run, found: FoundImages, *, fail: bool) -> None:
    """All predictions as one JSON object, block by block; unreadable images are under `errors`."""
    from ensemble_kit.images.digests import refuse_faults

    errors: list[tuple[str, EnsembleKitError]] = []
    between = json.dumps(_about(ensemble, run), ensure_ascii=False)[:-1] + ', "images": [\n'
    for block in ensemble.predict_blocks(found.sources):
        if fail:
            refuse_faults(dict(block.faults), len(block.sources))
        errors += [(block.sources[i].name, error) for i, error in block.faults.items()]
        for i, record in zip(block.good, block.predictions.records(), strict=True):
            group = block.sources[i].group
            values = record | ({"group": group} if group else {})
            click.echo(between + json.dumps(values, allow_nan=False, ensure_ascii=False), nl=False)
            between = ",\n"
    if len(errors) == len(found.sources):
        refuse_faults({i: error for i, (_, error) in enumerate(errors)}, len(errors))
    reasons = [
        {"image": name, "error": f"{error.problem}; {error.allowed}"} for name, error in errors
    ]
    click.echo(f'\n], "errors": {json.dumps(reasons, ensure_ascii=False)}}}')


def _about(ensemble: Ensemble, run: Run) -> dict[str, Any]:
    return {
        "run": run.path.as_posix(),
        "method": ensemble.method,
        "class_names": list(ensemble.class_names),
        "member_names": list(ensemble.member_names),
        "gives_vote_shares": ensemble.gives_vote_shares,
        "notes": list(ensemble.notes),
    }


def written_json(ensemble: Ensemble, run: Run, done: Written) -> dict[str, Any]:
    """The summary as JSON values."""
    return {
        **_about(ensemble, run),
        "written": done.path.as_posix(),
        "written_per_group": None if done.per_group is None else done.per_group.as_posix(),
        "n_images": done.n_images,
        "n_unreadable": done.n_bad,
        "n_by_class": dict(done.n_by_class),
        "n_disputed": done.n_disputed,
        "n_by_decision": None if done.n_by_decision is None else dict(done.n_by_decision),
        "errors": [{"image": name, "error": reason} for name, reason in done.bad],
        "caveats": dict(done.caveats),
    }


def print_written(ensemble: Ensemble, run: Run, notes: tuple[str, ...], done: Written) -> None:
    """Print the number of predicted images by class, the unreadable images, and the paths of the tables."""
    classes = *ensemble.class_names, *[""] * ("" in done.n_by_class)
    counts = _counts({name or "no class": done.n_by_class.get(name, 0) for name in classes})
    lines = [
        _first_line(ensemble, run),
        f"{counted(done.n_images - done.n_bad, 'image')} predicted: {counts}.",
    ]
    if len(ensemble.member_names) > 1:
        lines.append(
            f"The members vote for different classes on {done.n_disputed} of these images."
        )
    if done.n_by_decision is not None:
        lines.append(f"Decisions: {_counts(done.n_by_decision)}.")
    if done.n_before:
        lines.append(f"{done.n_before} of {done.n_images} were already in the table.")
    if done.n_bad:
        lines.append(f"{counted(done.n_bad, 'image')} cannot be read (column error):")
        lines += [
            f"  {reason}" if name in reason else f"  {name}: {reason}"
            for name, reason in done.bad[:5]
        ]
        lines += [f"  and {done.n_bad - 5} more"] if done.n_bad > 5 else []
    of_images = [
        f"{n} of {counted(done.n_images, 'image')}: {what}" for what, n in done.caveats.items()
    ]
    lines += [f"Caveat: {note}" for note in (*notes, *of_images, *ensemble.notes)]
    lines.append(f"Written: {done.path.as_posix()}")
    lines += (
        [f"Per {ensemble.stored.group_kind}: {done.per_group.as_posix()}"] if done.per_group else []
    )
    for line in [*lines, *_decision_commands(ensemble, run)]:
        print_text(line)


def _counts(n_by_name: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {n}" for name, n in n_by_name.items())


@contextlib.contextmanager
def bar(*, quiet: bool, done_word: str = "predicted") -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, else a line every few seconds; nothing if `quiet`."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield _lines(quiet, done_word)
        return
    shown = Progress(
        "images", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        console=console, transient=True,
    )  # fmt: skip
    with shown:
        task = shown.add_task("images")
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _lines(quiet: bool, done_word: str) -> Callable[[int, int], None]:
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        if not quiet and time.monotonic() - last > QUIET_SECONDS:
            last = time.monotonic()
            click.echo(f"{done_word} {done} of {counted(total, 'image')}", err=True)

    return line
