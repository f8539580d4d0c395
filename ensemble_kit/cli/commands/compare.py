"""`ensemble-kit compare`: runs compared with each other on the samples that they share."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import (
    intervals_option,
    json_option,
    method_option,
    metric_option,
)
from ensemble_kit.cli.output.tables import print_table
from ensemble_kit.cli.output.text import print_json, print_text
from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.evaluation.runs.compare_runs import AcrossRuns
    from ensemble_kit.evaluation.runs.repeated_cv import Repeats


@click.command("compare")
@click.argument("run_paths", nargs=-1, required=True, metavar="RUN RUN...")
@method_option
@click.option(
    "--split", type=click.Choice(["oof", "test"]), default="oof", show_default=True,
    help="Predictions to compare: out-of-fold, or of the test part.",
)  # fmt: skip
@click.option(
    "--repeats",
    is_flag=True,
    help="The RUNs come from train-members --repeats. Compares --method with the best member and the mean, by the corrected t test of Nadeau & Bengio.",
)
@metric_option
@intervals_option
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
    """Compare stacked RUNs with the first RUN, on the images that all RUNs share.

    With --repeats, compare --method with the best member and the mean within each RUN. This shows
    whether the gain depends on the folds.
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
            print_json(_across_json(across))
        else:
            print_across(across, metric)
        return
    if split == "test":
        raise UsageError(
            "--repeats was given with --split test",
            "repeats are compared on their folds, because they share one test part",
            "Leave out --split",
        )
    found = compare_repeats(runs, method=method, protocol=protocol)
    if as_json:
        print_json(_repeats_json(found))
    else:
        print_repeats(found)


def print_across(found: AcrossRuns, metric: str) -> None:
    """The verdicts, one row per run, and the caveats."""
    for verdict in found.verdicts:
        print_text(f"Verdict: {verdict.sentence}")
    click.echo()
    has_abstained = any(one.n_abstained for one in found.metrics.values())
    names = list(dict.fromkeys([metric, "accuracy", "auroc"]))
    names += ["coverage"] if has_abstained else []
    some_left_out = any(found.n_left_out.values())
    left_out = ("left out",) if some_left_out else ()
    rows = [("run", "images", *left_out, *(name.replace("_", " ") for name in names))]
    for path, one in found.metrics.items():
        star = "*" if path in found.replaced else ""
        n_left_out = (str(found.n_left_out[path]),) if some_left_out else ()
        cells = (str(one[name]) for name in names)
        rows.append((f"{path}{star}", str(one.n), *n_left_out, *cells))
    print_table(rows)
    legend = ["left out: images that are not in all runs."] if some_left_out else []
    legend += ["coverage: share of the images that are decided."] if has_abstained else []
    legend += ["*: the method was replaced by the mean in this run."] if found.replaced else []
    print_text(" ".join([*legend, "Other metrics: --json."]))
    for note in found.notes:
        print_text(f"Caveat: {note}")


def print_repeats(found: Repeats) -> None:
    """The gain of the method over all folds, and the mean of each repeat over its folds."""
    from ensemble_kit.evaluation.uncertainty.interval import Interval

    for one in found.gains:
        print_text(f"Verdict: {one.sentence}")
    click.echo()
    units = "" if found.group_kind == "image" else f" of {found.n_groups} {found.group_kind}s"
    print_text(
        f"{found.n_repeats} repeats x {found.n_splits} folds of {found.n} images{units}; "
        f"{found.metric.replace('_', ' ')}, mean over the folds:"
    )
    rows: list[tuple[str, ...]] = [("run", *found.methods)]
    for run, part in found.folds.groupby("run", sort=False):
        means = part[found.methods].mean()
        cells = (str(Interval(None if m != m else float(m))) for m in means)  # NaN
        rows.append((str(run), *cells))
    print_table(rows)
    print_text(
        f"Intervals and p values: t test over {len(found.folds)} folds with the variance factor 1/{len(found.folds)} + "
        f"1/{found.n_splits - 1}, because training sets overlap (Nadeau & Bengio 2003, "
        "Machine Learning 52)."
    )
    for note in found.notes:
        print_text(f"Caveat: {note}")


def _across_json(found: AcrossRuns) -> dict[str, object]:
    return {
        "figures": {name: dataclasses.asdict(one) for name, one in found.metrics.items()},
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
