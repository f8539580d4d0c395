"""`ensemble-kit stack`: combine a run's stored predictions, and say whether the ensemble pays.

Parses and prints; the work is `evaluation.stack.stack_run`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from ensemble_kit.cli.limits import Limits
from ensemble_kit.cli.method_options import combiners_of, positive_class
from ensemble_kit.cli.options import (
    json_option,
    metric_option,
    resamples_option,
    run_option,
    seed_option,
)
from ensemble_kit.cli.text import columns, printable

if TYPE_CHECKING:
    from ensemble_kit.evaluation.stack import Stacked
    from ensemble_kit.predictions.table import Predictions
    from ensemble_kit.run import Run

DEFAULT = click.core.ParameterSource.DEFAULT
DEFAULT_METHODS = ("vote", "mean", "mlp")


@click.command("stack")
@run_option
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="vote, mean, mlp, ...; repeatable, or all. [default: vote, mean, mlp]",
)
@metric_option
@click.option(
    "--ties",
    type=click.Choice(["proba", "severity", "abstain", "lowest"]),
    help="Who wins a tied vote: the highest mean probability, the most severe class, nobody, or the lowest class. [default: proba]",
)
@click.option(
    "--positive",
    metavar="CLASS",
    help="The class that wins a tied vote wherever it is among the level ones: --ties severity.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="METHOD.NAME=VALUE",
    help="A method's own parameter; repeatable. E.g. greedy.n_bags=20 (bags of whole groups), greedy.n_first=3 (start from the best), dirichlet.combiner=logistic (calibrate members, then stack).",
)
@resamples_option
@seed_option
@click.option(
    "--fallback/--no-fallback",
    default=True,
    help="Use the plain mean where a fitted combiner does not beat it cross-fitted. [default: fallback]",
)
@click.option(
    "--quorum",
    type=int,
    metavar="K",
    help="Accept members that lack folds where at least K have predicted each image; stamped.",
)
@click.option(
    "--max-members",
    type=click.IntRange(1),
    metavar="N",
    help="Greedy selection (and --pareto) keeps at most N.",
)
@click.option(
    "--budget-params",
    type=float,
    metavar="N",
    help="Greedy selection keeps members of at most N parameters together, e.g. 20e6.",
)
@click.option(
    "--budget-ms",
    type=float,
    metavar="MS",
    help="Likewise, ms an image, as train-members measured them (member.json).",
)
@click.option(
    "--pareto",
    is_flag=True,
    help="Weigh quality against cost: the cheapest set of members not shown to be worse than the best.",
)
@click.option(
    "--nested",
    is_flag=True,
    help="Add the strict figures, blind to each fold judged; after train-members --nested.",
)
@click.option(
    "--interval",
    type=click.Choice(["percentile", "bca"]),
    default="percentile",
    show_default=True,
    help="Kind of bootstrap interval of the figures.",
)
@click.option(
    "--costs",
    "costs_path",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="What errors cost, CSV or TOML with class names on both axes: adds the expected cost.",
)
@click.option(
    "--decide-by-cost",
    is_flag=True,
    help="Decide for the class of least expected cost, not for the likeliest; with --costs.",
)
@click.option(
    "--pool",
    type=click.Choice(["mean", "vote", "max", "fitted"]),
    default="mean",
    show_default=True,
    help="How a patient's images become one answer; fitted: learnt from patients of other folds.",
)
@click.option(
    "--null-check",
    "null_draws",
    type=click.IntRange(1),
    is_flag=False,
    flag_value=19,
    metavar="[R]",
    help="Cross-fit each method R times on labels dealt anew to whole groups, and R times on members of noise: all must come out at chance. [R: 19]",
)
@click.option(
    "--per-class",
    is_flag=True,
    help="Show each class of the best ensemble against the rest: sensitivity, specificity, precision, ...",
)
@json_option
def stack(
    run: Run,
    methods: tuple[str, ...],
    metric: str,
    ties: str | None,
    positive: str | None,
    settings: tuple[str, ...],
    resamples: int,
    seed: int,
    fallback: bool,
    quorum: int | None,
    max_members: int | None,
    budget_params: float | None,
    budget_ms: float | None,
    pareto: bool,
    nested: bool,
    interval: str,
    costs_path: str | None,
    decide_by_cost: bool,
    pool: str,
    null_draws: int | None,
    per_class: bool,
    as_json: bool,
) -> None:
    """Combine the stored predictions and judge the ensemble.

    In-sample, cross-fitted and test figures stand beside the best member, the mean and the oracle.
    Writes ensembles/<method>/ in the run folder.
    """
    from ensemble_kit.evaluation.protocol import Protocol
    from ensemble_kit.evaluation.stack import all_methods, stack_run
    from ensemble_kit.metrics.costs import read_costs

    limits = Limits(max_members, budget_params, budget_ms)
    asked = methods or (*DEFAULT_METHODS, *(("greedy",) if limits.any else ()))
    features = "all" in asked and not nested and quorum is None and run.keeps_features
    everything = all_methods(features=features) if "all" in asked else []
    names = [n for m in asked for n in (everything if m == "all" else [m])]
    protocol = Protocol(
        metric=metric,
        n_resamples=resamples,
        seed=seed,
        fallback=fallback,
        interval=interval,
        costs=None if costs_path is None else read_costs(costs_path),
        decide_by_cost=decide_by_cost,
        pool=pool,
    )
    is_given = click.get_current_context().get_parameter_source("metric") is not DEFAULT
    class_names = run.manifest().class_names
    combiners = combiners_of(
        names,
        settings,
        seed=seed,
        ties="severity" if positive else ties,
        positive=positive_class(positive, ties, class_names),
        metric=metric if is_given else None,
        error_costs=protocol.error_costs(class_names),
    )
    limits.apply(combiners, run)
    costs, unit, why_not = limits.weighed(run, pareto)
    if why_not:
        click.echo(printable(why_not), err=True)
    done = stack_run(
        run,
        combiners,
        protocol=protocol,
        quorum=quorum,
        costs=costs,
        cost_unit=unit,
        budget=limits.budget,
        max_members=max_members,
        nested=nested,
        null_draws=null_draws or 0,
    )
    if as_json:
        click.echo(json.dumps(as_values(done, run), indent=2, allow_nan=False))
    else:
        print_stacked(done, run, per_class=per_class)


def as_values(done: Stacked, run: Run) -> dict[str, Any]:
    """Everything that was found, as JSON values."""
    from ensemble_kit.evaluation.ensembles import metrics_json
    from ensemble_kit.evaluation.null_table import null_json

    return {
        "run": run.path.as_posix(),
        "methods": {name: metrics_json(one, done.oof) for name, one in done.evaluations.items()},
        "verdict": done.verdict,
        "nested_verdict": done.nested_verdict,
        "tests": done.tests_sentence,
        "notes": done.notes,
        "null_check": None if done.null is None else null_json(done.null),
        "pareto": None
        if done.pareto is None
        else json.loads(done.pareto.to_json(orient="records")),
    }


def print_stacked(done: Stacked, run: Run, *, per_class: bool = False) -> None:
    """The leaderboard, what belongs beside it, and the verdict."""
    from ensemble_kit.evaluation import leaderboard as board
    from ensemble_kit.evaluation.compare import chosen
    from ensemble_kit.evaluation.costs import cheapest_sentence, pareto_rows
    from ensemble_kit.evaluation.grades_table import grades_note, grades_table
    from ensemble_kit.evaluation.null_table import null_note, null_rows
    from ensemble_kit.evaluation.optimism import optimism_note

    judged, protocol, unit = done.evaluations, done.protocol, done.oof.group_kind
    click.echo(printable(_sizes(done)))
    click.echo(printable(board.headline(judged, protocol)))
    print_table(board.leaderboard(judged, protocol))
    click.echo(board.columns_note(judged, protocol, unit))
    click.echo(board.ties_note(judged))
    if best := chosen(judged, protocol):
        click.echo(printable(optimism_note(best, protocol.metric)))
    if graded := grades_table(judged, protocol, ordinal=done.oof.ordinal):
        click.echo()
        print_table(graded, n_text=0)
        click.echo(printable(grades_note(done.oof.class_names)))
    if pooled := board.per_group_table(judged, protocol, unit):
        click.echo()
        print_table(pooled, n_text=0)
        click.echo(board.per_group_note(pooled, unit, protocol.pool))
    if per_class:
        print_classes(done)
    if done.pareto is not None:
        click.echo()
        print_table(pareto_rows(done.pareto), n_text=1)
        click.echo(printable(cheapest_sentence(done.pareto)))
    if done.null is not None:
        click.echo()
        print_table(null_rows(done.null), n_text=1)
        click.echo(null_note(done.null))
        click.echo(printable(f"Null check: {done.null.sentence}"))
    for note in done.notes:
        click.echo(printable(f"Note: {note}"))
    click.echo(
        printable(
            f"Verdict: {done.verdict}"
            if done.verdict
            else "Verdict: none, since only baselines were asked for."
        )
    )
    if done.nested_verdict:
        click.echo(printable(f"Nested: {done.nested_verdict}"))
    if done.tests_sentence:
        click.echo(printable(f"Tests: {done.tests_sentence}"))
    click.echo(printable(f"Written: {run.path.as_posix()}/ensembles/"))


def print_classes(done: Stacked) -> None:
    """Each class against the rest, of the ensemble that the verdict is about."""
    from ensemble_kit.evaluation.class_table import class_note, class_tables

    found = class_tables(done.evaluations, done.protocol, done.oof.class_names)
    for title, rows in found.items():
        click.echo()
        click.echo(printable(f"{title}:"))
        print_table(rows, n_text=0)
    click.echo(class_note())


def _sizes(done: Stacked) -> str:
    def size(name: str, table: Predictions) -> str:
        units = "" if table.group_kind == "image" else f" of {table.n_groups} {table.group_kind}s"
        return f"{name} {len(table)} images{units}"

    parts = [size("out-of-fold", done.oof)] + ([size("test", done.test)] if done.test else [])
    stamp = " | SPLIT BY IMAGE" if done.oof.split_by == "image" else ""
    return f"{done.oof.n_members} members ({', '.join(done.oof.member_names)}); {'; '.join(parts)}{stamp}"


def print_table(rows: list[tuple[str, ...]], n_text: int = 2) -> None:
    """Rows with a header: drawn by rich on a terminal, as aligned text elsewhere.

    The last `n_text` columns are words, flush left.
    """
    if not sys.stdout.isatty():
        click.echo(columns(rows, right=range(1, len(rows[0]) - n_text)))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*rows[0], header_style="bold")
    for row in rows[1:]:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)
