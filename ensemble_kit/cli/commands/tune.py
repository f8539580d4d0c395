"""`ensemble-kit tune`: find a member's learning rate and batch size, and keep them for the next training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.experiment import experiment_options
from ensemble_kit.cli.options.panels import TUNING, PanelCommand
from ensemble_kit.cli.options.shared import given_flags
from ensemble_kit.cli.output.text import columns, printable
from ensemble_kit.errors import command

if TYPE_CHECKING:
    from ensemble_kit.experiment import Experiment
    from ensemble_kit.tune.study import TrialResult


# What the next training knows by itself, has been told by this one, or would put its values aside.
OWN = ("member_name", "trials", "learning_rate", "batch_size")


@click.command("tune", cls=PanelCommand, panels=TUNING)
@click.option("--member", "member_name", help="Member to tune. [default: the first one]")
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="Total number of finished trials, including those of earlier calls.",
)
@experiment_options
def tune(experiment: Experiment, member_name: str | None, trials: int) -> None:
    """Tune the learning rate and batch size of one member with Optuna.

    Trials are judged by log loss on whole held-out groups of the training rows, predicted as the
    member predicts (eval_size, tta); the test part is never read. Stop at any time: the same command goes on. The next train-members uses the best
    values, and says so beside every figure.
    """
    from ensemble_kit.experiment import config_of, prepare
    from ensemble_kit.members.registry import expand
    from ensemble_kit.run import Run
    from ensemble_kit.tune.study import METRIC, tune_member

    manifest, folds = prepare(experiment)
    member = experiment.resolved_member(member_name or expand(experiment.members)[0])
    run = Run(experiment.run_path)
    click.echo(f"Tuning {member.name} in {printable(run.path.as_posix())}: {METRIC}")
    with run.locked():
        run.begin(manifest, folds, config_of(experiment))
        result = tune_member(
            member, manifest.part("train"), run, n_trials=trials, device=experiment.device,
            precision=experiment.precision, seed=experiment.seed, split_by=folds.split_by, after_trial=_say,
        )  # fmt: skip
    rows = [("trial", "learning rate", "batch", "log loss", "")]
    for trial in sorted(result.trials, key=lambda t: (t.value is None, t.value)):
        rows.append((*_cells(trial), "best" if trial.number == result.best else ""))
    click.echo(columns(rows, right=[0, 1, 2, 3]))
    for note in result.notes:
        click.echo(f"Caveat: {printable(note)}")
    best, again = result.best_trial, given_flags(click.get_current_context(), but=OWN)
    click.echo(
        f"Kept for {member.name}: learning_rate {best.learning_rate:.3g}, batch_size {best.batch_size}. "
        f"Next: {command('train-members', *again)} (trains {member.name} with them)"
    )


def _cells(trial: TrialResult) -> tuple[str, str, str, str]:
    loss = trial.state if trial.value is None else f"{trial.value:.4f}"
    return str(trial.number), f"{trial.learning_rate:.3g}", str(trial.batch_size), loss


def _say(trial: TrialResult) -> None:
    number, rate, batch, loss = _cells(trial)
    click.echo(f"trial {number}: learning rate {rate}, batch {batch}: {loss}")
