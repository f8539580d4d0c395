"""`ensemble-kit run-job`: one planned job, for schedulers that start processes themselves."""

from __future__ import annotations

from pathlib import Path

import click

from ensemble_kit.cli.output.text import printable


@click.command("run-job")
@click.argument("run_path", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("member")
@click.argument("fold")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads. [default: all cores]")
def run_job(run_path: Path, member: str, fold: str, threads: int | None) -> None:
    """Run one job of a run that train-members planned: train MEMBER on FOLD.

    Folds are numbered from 0. With --nested there are pairs of folds too, e.g. 0-2.

    The job continues from its checkpoint, and ends by writing fold.json. A finished job is skipped.
    """
    from ensemble_kit.launch.end_with_parent import end_with_parent

    end_with_parent()
    import torch

    from ensemble_kit.cli.output.progress import ProgressPrinter
    from ensemble_kit.members.jobs.collect import collect
    from ensemble_kit.members.jobs.job_spec import open_job
    from ensemble_kit.members.jobs.run_job import run_job as run_one
    from ensemble_kit.members.jobs.tracking import TensorBoard, both
    from ensemble_kit.run import Run

    if threads:
        torch.set_num_threads(threads)
    job = open_job(Run(run_path), member, fold)
    with (
        ProgressPrinter({member: 1.0}, {member: 1}) as printer,
        TensorBoard(job.run.path / "tensorboard", printer) as curves,
    ):
        run_one(job, both(printer, curves))
    collect(job)
    click.echo(f"Done: {printable(job.folder.as_posix())}")
