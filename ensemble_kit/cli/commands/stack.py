"""`ensemble-kit stack`: combine a run's stored predictions and evaluate the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.methods import combiners_of, positive_class, settle_severity
from ensemble_kit.cli.options.panels import STACKING, PanelCommand
from ensemble_kit.cli.options.shared import (
    Names,
    Shares,
    json_option,
    metric_option,
    resamples_option,
    run_option,
    seed_option,
)
from ensemble_kit.cli.options.stack_settings import read_stack_settings
from ensemble_kit.cli.output.stack import as_values, print_stacked
from ensemble_kit.cli.output.text import print_json, print_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ensemble_kit.combiners.base import Combiner
    from ensemble_kit.evaluation.protocol import Protocol
    from ensemble_kit.manifest.table import Manifest
    from ensemble_kit.run import Run

DEFAULT = click.core.ParameterSource.DEFAULT
DEFAULT_METHODS = ("vote", "mean", "mlp")


@click.command("stack", cls=PanelCommand, panels=STACKING)
@run_option
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAMES",
    help="Comma-separated methods, e.g. vote,mean,mlp, or all. [default: vote,mean,mlp]",
)
@metric_option
@click.option(
    "--ties",
    type=click.Choice(["proba", "severity", "abstain", "lowest"]),
    help="How tied votes are decided. proba: by the mean probability. severity: the most severe class. abstain: no decision. lowest: the first class. [default: proba]",
)
@click.option(
    "--positive",
    metavar="CLASS",
    help="Positive class of average precision and --clinical, e.g. malignant. It wins tied votes unless --ties is given. [default: from the data, or the last ordinal class]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting; can be repeated. Settings: fallback=false, pool=vote, decide_by_cost=true, max_members=3, budget_params=20e6, budget_ms=5, and parameters of methods, e.g. greedy.n_bags=20.",
)
@resamples_option
@seed_option
@click.option(
    "--quorum",
    type=int,
    metavar="K",
    help="Accept members without all folds if at least K members predicted each image. Shown as a caveat.",
)
@click.option(
    "--pareto",
    is_flag=True,
    help="Find the cheapest set of members that is not inferior to the best set (margin 0.02).",
)
@click.option(
    "--nested",
    is_flag=True,
    help="Add nested cross-validation. Needs a run of train-members --nested.",
)
@click.option(
    "--costs",
    "costs_path",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Costs of misclassification: a CSV or TOML table with class names on both axes. Adds the expected cost.",
)
@click.option(
    "--permutation-test",
    "permutation_draws",
    type=click.IntRange(1),
    is_flag=False,
    flag_value=19,
    metavar="[R]",
    help="Permutation test: refit every method R times on labels permuted between patients, and R times on random members. A method above chance there indicates leakage. [R: 19]",
)
@click.option(
    "--verbose",
    is_flag=True,
    help="Show all columns, metrics per patient and per class, and all caveats.",
)
@click.option(
    "--per-class", is_flag=True, help="Show the metrics of each class of the best method."
)
@click.option(
    "--clinical",
    is_flag=True,
    help="Show net benefit, calibration, PPV and NPV of the best method for the positive class.",
)
@click.option(
    "--thresholds",
    type=Shares(),
    metavar="SHARES",
    help="Thresholds of net benefit. Implies --clinical. [default: 0.05,0.1,0.2,0.3,0.5]",
)
@click.option(
    "--prevalence",
    "prevalences",
    type=Shares(),
    metavar="SHARES",
    help="Also show PPV and NPV at this prevalence, e.g. 0.15. Implies --clinical.",
)
@click.option(
    "--by",
    "columns",
    type=Names(),
    metavar="COLUMNS",
    help="Show metrics by subgroup: columns of the manifest, e.g. site,scanner. Implies --clinical.",
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
    quorum: int | None,
    pareto: bool,
    nested: bool,
    costs_path: str | None,
    permutation_draws: int | None,
    verbose: bool,
    per_class: bool,
    clinical: bool,
    thresholds: tuple[float, ...] | None,
    prevalences: tuple[float, ...] | None,
    columns: tuple[str, ...] | None,
    as_json: bool,
) -> None:
    """Combine the members' predictions, and compare the result with the best member and the mean.

    Writes ensembles/<method>/ and ensembles/scores.csv in the run folder.
    """
    from ensemble_kit.evaluation.clinical.block import THRESHOLDS, ClinicalOptions
    from ensemble_kit.evaluation.protocol import Protocol
    from ensemble_kit.evaluation.runs.stack_run import stack_run
    from ensemble_kit.metrics.costs import read_costs

    chosen, of_methods = read_stack_settings(settings)
    limits = chosen.limits
    names = _names(methods, run, is_limited=limits.any, features=not nested and quorum is None)
    protocol = Protocol(
        metric=metric,
        n_resamples=resamples,
        seed=seed,
        fallback=chosen.fallback,
        costs=None if costs_path is None else read_costs(costs_path),
        decide_by_cost=chosen.decide_by_cost,
        pool=chosen.pool,
        positive=positive,
    )
    block = ClinicalOptions(thresholds or THRESHOLDS, prevalences or (), tuple(columns or ()))
    combiners, severe = _combiners(names, of_methods, ties, protocol, run.manifest())
    limits.apply(combiners, run)
    costs, unit, no_costs = limits.pareto_costs(run, pareto)
    if no_costs:
        print_text(no_costs, err=True)
    done = stack_run(
        run, combiners, protocol=protocol, quorum=quorum, costs=costs, cost_unit=unit,
        budget=limits.budget, max_members=chosen.max_members, nested=nested,
        permutation_draws=permutation_draws or 0, clinical=block,
    )  # fmt: skip
    if as_json:
        print_json(as_values(done, run))
        return
    if severe and verbose:
        print_text(f"Tied votes go to the most severe class, '{severe}', if it is tied.")
    shows_clinical = clinical or block != ClinicalOptions()
    print_stacked(done, run, verbose=verbose, per_class=per_class, clinical=shows_clinical)


def _names(methods: Sequence[str], run: Run, *, is_limited: bool, features: bool) -> list[str]:
    """The requested methods: `all` is expanded, and limits on the members add greedy to the default."""
    from ensemble_kit.evaluation.runs.stack_run import all_methods

    named = [name.strip() for given in methods for name in given.split(",") if name.strip()]
    requested = named or (*DEFAULT_METHODS, *(("greedy",) if is_limited else ()))
    if "all" not in requested:
        return list(requested)
    everything = all_methods(len(run.members()), features=features and run.keeps_features)
    return [n for m in requested for n in (everything if m == "all" else [m])]


def _combiners(
    names: Sequence[str],
    settings: Sequence[str],
    ties: str | None,
    protocol: Protocol,
    manifest: Manifest,
) -> tuple[dict[str, Combiner], str]:
    """Unfitted combiners by method, and the class that wins ties by severity ("": none)."""
    is_given = click.get_current_context().get_parameter_source("metric") is not DEFAULT
    combiners = combiners_of(
        names,
        settings,
        seed=protocol.seed,
        ties=ties or ("severity" if protocol.positive is not None else None),
        positive=positive_class(protocol.positive, manifest.class_names),
        metric=protocol.metric if is_given else None,
        error_costs=protocol.error_costs(manifest.class_names),
    )
    return combiners, settle_severity(combiners, manifest)
