"""`ensemble-kit compare`: runs against each other, paired on the samples that they share."""

from __future__ import annotations

import dataclasses
import json

import click

from ensemble_kit.cli.options import json_option, metric_option, resamples_option
from ensemble_kit.cli.text import columns, printable


@click.command("compare")
@click.argument("run_paths", nargs=-1, required=True, metavar="RUN RUN...")
@click.option(
    "--method",
    default="mean",
    show_default=True,
    help="Whose stored predictions stand for each run.",
)
@click.option("--split", type=click.Choice(["oof", "test"]), default="oof", show_default=True)
@metric_option
@resamples_option
@json_option
def compare(
    run_paths: tuple[str, ...], method: str, split: str, metric: str, resamples: int, as_json: bool
) -> None:
    """Compare stacked RUNs with the first one, on the images that all of them have."""
    from ensemble_kit.evaluation.across_runs import compare_runs
    from ensemble_kit.evaluation.leaderboard import text
    from ensemble_kit.evaluation.protocol import Protocol
    from ensemble_kit.run import Run

    protocol = Protocol(metric=metric, n_resamples=resamples)
    found = compare_runs([Run(p) for p in run_paths], method=method, split=split, protocol=protocol)
    if as_json:
        values = {
            "figures": {name: dataclasses.asdict(one) for name, one in found.figures.items()},
            "verdicts": [dataclasses.asdict(v) for v in found.verdicts],
            "n_left_out": found.n_left_out,
        }
        click.echo(json.dumps(values, indent=2, allow_nan=False))
        return
    names = list(dict.fromkeys([metric, "accuracy", "auroc", "log_loss"]))
    rows = [("run", "images", "left out", *(name.replace("_", " ") for name in names))]
    rows += [
        (path, str(one.n), str(found.n_left_out[path]), *(text(one[name]) for name in names))
        for path, one in found.figures.items()
    ]
    click.echo(columns(rows, right=range(1, len(rows[0]))))
    for one in found.verdicts:
        click.echo(printable(f"Verdict: {one.sentence}"))
