"""What `predict` prints: one image in detail, several as a summary, both as JSON."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from ensemble_kit.cli.output.text import columns, printable
from ensemble_kit.errors import counted
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


def print_card(ensemble: Ensemble, run: Run, found: FoundImages) -> None:
    """Print the prediction of one image."""
    (block,) = ensemble.predict_blocks(found.sources)
    for error in block.faults.values():
        raise error
    one = block.predictions
    for line in [*_card(ensemble, one), f"Method: {ensemble.method} of {run.path.as_posix()}."]:
        click.echo(printable(line))
    for note in (*one.caveats[0], *ensemble.notes):
        click.echo(printable(f"Caveat: {note}"))


def _card(ensemble: Ensemble, one: ImagePredictions) -> list[str]:
    proba = one.proba[0]
    noun = "Shares of the members' votes" if ensemble.gives_vote_shares else "Probabilities"
    lines = [one.names[0], _headline(ensemble, one), "", f"{noun}:"]
    rows = [
        (f"  {name}", f"{p:.3f}", "#" * round(WIDTH * p))
        for name, p in zip(one.class_names, proba, strict=True)
    ]
    lines += [*columns(rows, right=[1]).splitlines(), ""]
    votes = [(name, str(vote)) for name, vote in zip(one.member_names, one.votes[0], strict=True)]
    lines += ["Votes of the members:", *columns([("  " + n, v) for n, v in votes]).splitlines()]
    n_other = round(float(one.disagreement[0]) * len(votes))
    lines.append(
        f"Uncertainty: {n_other} of {len(votes)} members voted for another class. Entropy of the "
        f"members' mean: {one.entropy[0]:.3f} of at most {math.log(len(one.class_names)):.3f} nats; "
        f"{one.mutual_information[0]:.3f} because they disagree."
    )
    if ensemble.stored.sets is not None:
        classes = ", ".join(one.set_of(0) or ()) or "no class (similar to no class)"
        share = 100 * (1 - ensemble.stored.sets.alpha)
        lines.append(f"Prediction set ({share:.4g} % coverage): {classes}")
    return lines


def _headline(ensemble: Ensemble, one: ImagePredictions) -> str:
    """The decision if the run has an operating point, else the predicted class."""
    likeliest = str(one.classes[0]) or "none (the method abstained)"
    if one.decisions is None or ensemble.stored.decision is None:
        return f"Predicted: {likeliest}"
    decided, target = one.decisions[0], ensemble.stored.decision.target
    if decided == REFER:
        return f"Decision: refer, too uncertain (stored operating point). Most probable class: {likeliest}."
    if target is None:
        return f"Decision: {decided}, certain enough (stored operating point)."
    threshold = ensemble.stored.decision.points[IMAGE].threshold
    said = f"Decision: {decided} ('{one.class_names[target]}' is called if its probability is at least {threshold:.3f})."
    return said if decided == likeliest else f"{said} Most probable class: {likeliest}."


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
        "errors": [{"image": name, "error": reason} for name, reason in done.bad],
        "caveats": dict(done.caveats),
    }


def print_written(ensemble: Ensemble, notes: tuple[str, ...], done: Written) -> None:
    """Print the number of predicted images, the unreadable images, and the paths of the tables."""
    said = [f"{counted(done.n_images - done.n_bad, 'image')} predicted by {ensemble.method}."]
    if done.n_before:
        said[0] += f" {done.n_before} of {done.n_images} were already in the table."
    if done.n_bad:
        said.append(f"{counted(done.n_bad, 'image')} cannot be read (column error):")
        said += [f"  {name}: {reason}" for name, reason in done.bad[:5]]
        said += [f"  and {done.n_bad - 5} more"] if done.n_bad > 5 else []
    of_images = [f"{n} of {done.n_images} images: {what}" for what, n in done.caveats.items()]
    said += [f"Caveat: {note}" for note in (*notes, *of_images, *ensemble.notes)]
    said.append(f"Written: {done.path.as_posix()}")
    said += (
        [f"Per {ensemble.stored.group_kind}: {done.per_group.as_posix()}"] if done.per_group else []
    )
    for line in said:
        click.echo(printable(line))


@contextlib.contextmanager
def bar(*, quiet: bool, done_word: str = "predicted") -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, a line now and then elsewhere, nothing if `quiet`."""
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
            click.echo(f"{done_word} {done} of {total} images", err=True)

    return line
