"""`ensemble-kit compare`: runs against each other, paired on the samples that they share.

Parses and prints; the work is `evaluation.across_runs` and, over repeated folds, `evaluation.repeats`.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import json_option, metric_option, resamples_option
from ensemble_kit.cli.output.text import columns, printable
from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.evaluation.runs.compare_runs import AcrossRuns
    from ensemble_kit.evaluation.runs.repeated_cv import Repeats


@click.command("compare")
@click.argument("run_paths", nargs=-1, required=True, metavar="RUN RUN...")
@click.option(
    "--method",
    default="mean",
    show_default=True,
    help="Whose stored answers stand for each run: a stacked method's, or a member's.",
)
@click.option("--split", type=click.Choice(["oof", "test"]), default="oof", show_default=True)
@click.option(
    "--repeats",
    is_flag=True,
    help="The RUNs are those of train-members --repeats: judge --method against best member and mean over all folds, by the corrected t of Nadeau & Bengio.",
)
@metric_option
@resamples_option
@json_option
def compare(
    run_paths: tuple[str, ...],
    method: str,
    split: str,
    repeats: bool,
    metric: str,
    resamples: int,
    as_json: bool,
) -> None:
    """Compare stacked RUNs with the first one, on the images that all of them have.

    With --repeats, compare within the RUNs instead: does --method gain on its floors, whatever the
    folds were?
    """
    from ensemble_kit.evaluation.protocol import Protocol
    from ensemble_kit.evaluation.runs.compare_runs import compare_runs
    from ensemble_kit.evaluation.runs.repeated_cv import compare_repeats
    from ensemble_kit.run import Run

    protocol = Protocol(metric=metric, n_resamples=resamples)
    runs = [Run(p) for p in run_paths]
    if not repeats:
        across = compare_runs(runs, method=method, split=split, protocol=protocol)
        if as_json:
            click.echo(json.dumps(_across_json(across), indent=2, allow_nan=False))
        else:
            print_across(across, metric)
        return
    if split == "test":
        raise UsageError(
            "Repeats are judged on their folds, since they share one test part",
            "got --repeats with --split test",
            "Leave out --split",
        )
    found = compare_repeats(runs, method=method, protocol=protocol)
    if as_json:
        click.echo(json.dumps(_repeats_json(found), indent=2, allow_nan=False))
    else:
        print_repeats(found)


def print_across(found: AcrossRuns, metric: str) -> None:
    """A row for each run, and what belongs beside it."""

    has_abstained = any(one.n_abstained for one in found.figures.values())
    names = list(dict.fromkeys([metric, "accuracy", "auroc", "log_loss"]))
    names += ["coverage"] if has_abstained else []
    rows = [("run", "images", "left out", *(name.replace("_", " ") for name in names))]
    rows += [
        (path, str(one.n), str(found.n_left_out[path]), *(str(one[name]) for name in names))
        for path, one in found.figures.items()
    ]
    click.echo(columns(rows, right=range(1, len(rows[0]))))
    for note in found.notes:
        click.echo(printable(f"Caveat: {note}"))
    for one in found.verdicts:
        click.echo(printable(f"Verdict: {one.sentence}"))


def print_repeats(found: Repeats) -> None:
    """Each repeat's mean over its folds, and what the method gains over all of them."""
    from ensemble_kit.evaluation.uncertainty.interval import Interval

    units = "" if found.group_kind == "image" else f" of {found.n_groups} {found.group_kind}s"
    click.echo(
        f"{found.n_repeats} repeats x {found.n_splits} folds of {found.n} images{units}; "
        f"{found.metric.replace('_', ' ')}, mean over the folds:"
    )
    rows: list[tuple[str, ...]] = [("run", *found.methods)]
    for run, part in found.folds.groupby("run", sort=False):
        means = part[found.methods].mean()
        cells = (str(Interval(None if m != m else float(m))) for m in means)  # NaN
        rows.append((str(run), *cells))
    click.echo(columns(rows, right=range(1, len(rows[0]))))
    click.echo(
        f"Intervals and p: t over {len(found.folds)} folds, whose variance counts 1/{len(found.folds)} + "
        f"1/{found.n_splits - 1} times, since their training rows overlap (Nadeau & Bengio 2003, "
        "Machine Learning 52)."
    )
    for note in found.notes:
        click.echo(printable(f"Caveat: {note}"))
    for one in found.gains:
        click.echo(printable(f"Verdict: {one.sentence}"))


def _across_json(found: AcrossRuns) -> dict[str, object]:
    return {
        "figures": {name: dataclasses.asdict(one) for name, one in found.figures.items()},
        "verdicts": [dataclasses.asdict(v) for v in found.verdicts],
        "n_left_out": found.n_left_out,
        "notes": list(found.notes),
    }


def _repeats_json(found: Repeats) -> dict[str, object]:
    return {
        "metric": found.metric,
        "n_repeats": found.n_repeats,
        "n_splits": found.n_splits,
        "gains": [dataclasses.asdict(one) for one in found.gains],
        "folds": json.loads(found.folds.to_json(orient="records", double_precision=15)),
        "notes": list(found.notes),
    }
