"""`ensemble-kit status`: which jobs are done, running, failed, damaged or waiting."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import default_run, json_option
from ensemble_kit.cli.output.text import columns, duration, printable
from ensemble_kit.errors import UsageError, counted

if TYPE_CHECKING:
    from ensemble_kit.members.jobs.status import JobStatus
    from ensemble_kit.run import Run


@click.command("status")
@click.argument("run_path", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--run", "named", type=click.Path(path_type=Path), metavar="RUN", help="The same as RUN."
)
@click.option("--watch", is_flag=True, help="Update every few seconds until no job runs or waits.")
@json_option
def status(run_path: Path | None, named: Path | None, watch: bool, as_json: bool) -> None:
    """Show which jobs (member, fold) are done, running, failed, damaged or waiting.

    RUN is a run folder [default: from the settings file, else the latest in checkpoints/].
    Unfinished runs can be combined too: ensemble-kit stack --quorum K.
    """
    from ensemble_kit.members.jobs.status import run_status
    from ensemble_kit.run import Run

    if run_path and named and run_path != named:
        raise UsageError(
            f"Two runs were given, '{run_path}' and '{named}'",
            "status shows one run",
            "Leave one of them out",
        )
    run = Run(run_path or named or default_run())
    while True:
        jobs = run_status(run)
        if watch and not as_json:
            click.clear()
        if as_json:
            click.echo(json.dumps([dataclasses.asdict(job) for job in jobs], allow_nan=False))
        else:
            click.echo(printable(_page(run, jobs)))
        if not watch or all(job.state in {"done", "failed", "damaged"} for job in jobs):
            return
        try:
            time.sleep(2)
        except KeyboardInterrupt:  # only --watch ends
            return


def _page(run: Run, jobs: list[JobStatus]) -> str:
    if run.is_imported:
        n_members, n_images = len(run.members()), len(run.manifest())
        return printable(
            f"{run.path.as_posix()}: imported predictions of {counted(n_members, 'member')} "
            f"over {n_images} images. There is nothing to train."
        )
    done = sum(job.state == "done" for job in jobs)
    rows = [("member", "fold", "state", "epoch", "time", "time left", "")]
    for job in jobs:
        epoch = (
            "" if job.epoch is None else f"{job.epoch}" + (f"/{job.epochs}" if job.epochs else "")
        )
        rows.append(
            (
                job.member,
                str(job.fold),
                job.state,
                epoch,
                "" if job.seconds is None else duration(job.seconds),
                "" if job.seconds_left is None else duration(job.seconds_left),
                job.reason or (f"{job.holder}, since {job.since}" if job.holder else ""),
            )
        )
    # Columns without a value are left out.
    filled = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    return f"{run.path.as_posix()}: {done} of {len(jobs)} jobs are done\n" + columns(
        [[row[i] for i in filled] for row in rows],
        right=[at for at, i in enumerate(filled) if i in (1, 3, 4, 5)],
    )
