"""`ensemble-kit demo`: train, combine and report on an embedded data set."""

from __future__ import annotations

import click

from ensemble_kit.cli.output.text import duration, printable


@click.command("demo")
@click.option(
    "--run",
    "run_path",
    default="checkpoints/demo",
    show_default=True,
    metavar="DIR",
    help="Run folder.",
)
@click.option("--seed", default=0, show_default=True, help="Random seed.")
def demo(run_path: str, seed: int) -> None:
    """Train, combine and report on an embedded data set. Takes a minute or two on two cores."""
    import time

    from ensemble_kit.cli.commands.train_members import run_training
    from ensemble_kit.cli.output.stack import print_stacked
    from ensemble_kit.combiners import make_combiner
    from ensemble_kit.evaluation.runs.stack_run import all_methods, stack_run
    from ensemble_kit.experiment import Experiment, load_experiment
    from ensemble_kit.report.page import write_report
    from ensemble_kit.run import Run

    began = time.perf_counter()
    experiment: Experiment = load_experiment({"run": run_path, "seed": seed}, use_file=False)
    run_training(experiment)
    run = Run(run_path)
    done = stack_run(run, {name: make_combiner(name) for name in all_methods(len(run.members()))})
    click.echo()
    print_stacked(done, run, has_next=False)
    page = write_report(run)
    click.echo(
        f"Report: {printable(page.as_posix())} ({duration(time.perf_counter() - began)} in all)"
    )
    click.echo(
        "Your own images: ensemble-kit data check DIR, then ensemble-kit train-members --data DIR"
    )
