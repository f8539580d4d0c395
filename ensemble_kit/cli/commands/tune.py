"""`ensemble-kit tune`: tune each member, test whether it helped, and store the best values.

`tune status`, `tune best` and `tune report` read what is stored.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ensemble_kit.cli.options.experiment import experiment_options
from ensemble_kit.cli.options.panels import TUNING, PanelGroup
from ensemble_kit.cli.options.shared import given_flags, json_option, run_option
from ensemble_kit.cli.options.tuning import storage_option, tuning_options
from ensemble_kit.cli.output.text import columns, print_text, printable
from ensemble_kit.errors import UsageError, command, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ensemble_kit.experiment import Experiment
    from ensemble_kit.members.member import Member
    from ensemble_kit.run import Run
    from ensemble_kit.tune.kept_trials import Pick
    from ensemble_kit.tune.space import Space

# Flags that train-members does not have, or that would override the tuned values.
OWN = ("only", "trials", "time_limit", "space_file", "objective", "workers", "keep_trials", "combiner", "nested", "proxy", "storage", "learning_rate", "batch_size", "use_tuned")  # fmt: skip
OPTIMISTIC = (
    "The best values were chosen on these folds, so out-of-fold metrics of tuned members are "
    "optimistic. The gains above do not have this bias."
)

OPTIMISTIC_COMBINER = (
    "The best settings were chosen on these folds, so cross-fitted metrics with these settings are "
    "optimistic. The gain above does not have this bias."
)


@click.group("tune", cls=PanelGroup, panels=TUNING, invoke_without_command=True)
@tuning_options
@experiment_options
@click.pass_context
def tune(
    ctx: click.Context,
    experiment: Experiment,
    only: tuple[str, ...] | None,
    trials: int,
    time_limit: float | None,
    space_file: Path | None,
    objective: str,
    workers: int,
    keep_trials: bool,
    combiner: str | None,
    nested: bool,
    proxy: dict[str, Any] | None,
    storage: str | None,
) -> None:
    """Tune each member with Optuna, and show whether it helped.

    A trial is scored by log loss on held-out patients of the training part. The test part is not
    read. Stop at any time: the same command continues. The next train-members uses the best values.
    """
    if ctx.invoked_subcommand:
        return
    if combiner:
        _tune_combiner(experiment, combiner, trials)
        return
    from ensemble_kit.cli.output.tuning import (
        TuningPrinter,
        next_training,
        proxy_sentence,
        tuning_result,
    )
    from ensemble_kit.experiment import config_of
    from ensemble_kit.experiment_data import prepare
    from ensemble_kit.launch.tuning import TuningWorkers
    from ensemble_kit.run import Run
    from ensemble_kit.tune.proxy import Proxy
    from ensemble_kit.tune.stored import best_records
    from ensemble_kit.tune.tune_members import tune_members

    members = _members(experiment, only)
    space = _space(space_file) if space_file else experiment.tune.space
    manifest, folds = prepare(experiment)
    run = Run(experiment.run_path)
    names = ", ".join(m.name for m in members)
    click.echo(f"Tuning {printable(names)} in {printable(run.path.as_posix())}")
    with TuningPrinter() as printer:
        result = tune_members(
            members, manifest, folds, run, n_trials=trials, time_limit=time_limit, space=space,
            objective=objective, keep_trials=keep_trials, storage=storage, device=experiment.device,
            precision=experiment.precision, seed=experiment.seed, config=config_of(experiment), listener=printer,
            worker_pool=TuningWorkers(workers) if workers > 1 else None, nested=nested,
            proxy=Proxy(**proxy) if proxy else None,
        )  # fmt: skip
    print_text(tuning_result(result, trials))
    if proxy:
        print_text(f"\n{proxy_sentence(best_records(run))}")
    for note in (*result.notes, OPTIMISTIC):
        print_text(f"Caveat: {note}")
    print_text()
    flags, use_tuned = given_flags(ctx, but=OWN), experiment.use_tuned
    for line in next_training(result, run.members(), flags, use_tuned=use_tuned):
        print_text(line)
    _print_picks(ctx, experiment, result.picks)


def _print_picks(ctx: click.Context, experiment: Experiment, picks: Sequence[Pick]) -> None:
    """Print the training of the picked trials if there are any."""
    if picks:
        picked = ",".join(_short_form(experiment, pick) for pick in picks)
        again = given_flags(ctx, but=(*OWN, "members"))
        click.echo(
            f"Or: {command('train-members', *again, '--members', picked)} "
            "(the picked trials; they are trained, only their predictions are computed)"
        )


def _tune_combiner(experiment: Experiment, method: str, trials: int) -> None:
    from ensemble_kit.cli.output.tuning import combiner_result
    from ensemble_kit.run import Run
    from ensemble_kit.tune.combiner_study import tune_combiner

    run = Run(experiment.run_path)
    found = tune_combiner(method, run, n_trials=trials, seed=experiment.seed)
    print_text(combiner_result(found))
    print_text(f"Caveat: {OPTIMISTIC_COMBINER}")
    settings = [w for n, v in found.best.values.items() for w in ("--set", f"{method}.{n}={v:.4g}")]
    words = "stack", "--run", run.path.as_posix(), "--method", method
    if found.gain.comparison.verdict == "better" or found.best.origin == "default":
        click.echo(f"Next: {command(*words, *settings)}")
        return
    click.echo(f"Recommended, because the gain is not shown: {command(*words)}")
    click.echo(f"With the best settings: {command(*words, *settings)}")


def _members(experiment: Experiment, only: tuple[str, ...] | None) -> list[Member]:
    """The members with their default values."""
    members = experiment.model_copy(update={"use_tuned": False}).resolved_members()
    by_name = {member.name: member for member in members}
    for name in only or ():
        if name not in by_name:
            raise UsageError(
                f"Unknown member '{name}'",
                "only the members in --members can be tuned",
                did_you_mean(name, by_name),
            )
    return [by_name[name] for name in only] if only else members


def _short_form(experiment: Experiment, pick: Pick) -> str:
    """A picked trial as `--members` takes it."""
    from ensemble_kit.members.registry import expand
    from ensemble_kit.members.spec_string import read_short_form

    text = next(t for t in expand(experiment.members) if read_short_form(t).name == pick.member)
    return text if pick.name == pick.member else f"{text}:name={pick.name}"


def _space(path: Path) -> Space:
    from ensemble_kit.files import read_toml
    from ensemble_kit.tune.space import Space

    table = read_toml(path)
    return Space(**table.get("tune", {}).get("space", table))


@tune.command("status")
@run_option
@storage_option
@json_option
def status(run: Run, storage: str | None, as_json: bool) -> None:
    """Show the trials of each member of a run."""
    from ensemble_kit.cli.output.tuning import HEAD, status_row
    from ensemble_kit.tune.stored import stored_results

    found = stored_results(run, storage)
    if as_json:
        click.echo(json.dumps({name: [vars(t) for t in trials] for name, trials in found.items()}))
        return
    rows = [HEAD, *(status_row(name, trials, None) for name, trials in found.items())]
    click.echo(columns(rows, right=range(1, len(HEAD))))
    click.echo(
        "Log loss on held-out patients. The gain of the best trial is optimistic: it was chosen."
    )


@tune.command("best")
@run_option
@json_option
def best(run: Run, as_json: bool) -> None:
    """Show the best values of each tuned member."""
    from ensemble_kit.cli.output.tuning import settings_text
    from ensemble_kit.tune.stored import best_records

    found = best_records(run)
    if as_json:
        click.echo(json.dumps(found))
        return
    rows = [("member", "best values", "loss", "default", "trial")]
    for name, record in found.items():
        values = settings_text(record["values"]) or "the default"
        default = record.get("default")
        shown = "" if default is None else f"{default:.4f}"
        trial = f"{record['trial']} of {record['n_trials']}"
        rows.append((name, values, f"{record['value']:.4f}", shown, trial))
    click.echo(columns(rows, right=[2, 3]))


@tune.command("report")
@run_option
@storage_option
def report(run: Run, storage: str | None) -> None:
    """Draw each study with the plots of Optuna."""
    from ensemble_kit.tune.plots import draw_studies

    paths = draw_studies(run, storage)
    for path in paths:
        click.echo(printable(path.as_posix()))
