"""`ensemble-kit train-members`: print the plan, train the unfinished jobs, print the next step."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from ensemble_kit.cli.commands.train_variants import print_image_split_bias, several
from ensemble_kit.cli.options.experiment import experiment_options
from ensemble_kit.cli.options.launch import Launch, launch_options
from ensemble_kit.cli.options.panels import TRAINING, PanelCommand
from ensemble_kit.cli.options.shared import Shard
from ensemble_kit.cli.output.text import columns, duration, print_text, printable
from ensemble_kit.errors import command, counted

if TYPE_CHECKING:
    from ensemble_kit.experiment import Experiment
    from ensemble_kit.folds import Folds
    from ensemble_kit.manifest.table import Manifest
    from ensemble_kit.members.jobs.events import Listener
    from ensemble_kit.members.member import Member

PLAN_HEAD = (
    "member", "input", "parameters", "GMACs", "initial weights", "epochs", "batch", "learning rate",
)  # fmt: skip


@click.command("train-members", cls=PanelCommand, panels=TRAINING)
@experiment_options
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    help="Jobs that run at the same time. [default: one per core, as far as memory allows]",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray", "slurm"]),
    default="local",
    show_default=True,
    help="Where jobs run: processes on this machine, a Ray cluster, or a Slurm array.",
)
@launch_options
@click.option(
    "--shard",
    type=Shard(),
    help="Run shard I of N (I starts at 1). Use it with your own scheduler and a shared run folder.",
)
@click.option(
    "--protocol",
    type=click.Choice(["one", "both"]),
    default="one",
    show_default=True,
    help="both: train with a split by patient and with a split by image, and print the difference.",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Repeat cross-validation N times with new folds and the same test part. Each repeat has its own run folder.",
)
@click.option(
    "--nested",
    is_flag=True,
    help="For stack --nested: also train each member without each pair of folds. Adds K (K - 1) / 2 jobs per member.",
)
@click.option(
    "--keep-features",
    is_flag=True,
    help="For stack --method feature-mlp: also store pooled features. Finished folds are not trained again.",
)
@click.option(
    "--mlflow", is_flag=True, help="Also log the training curves to MLflow (MLFLOW_TRACKING_URI)."
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option(
    "--retrain",
    is_flag=True,
    help="Train members again if their settings changed. Their old folds move to replaced/.",
)
def train_members(
    experiment: Experiment, dry_run: bool, protocol: str, repeats: int, **how: Any
) -> None:
    """Train each member on each fold, and store the logits of all held-out and test images.

    Without --data, the settings file ./ensemble-kit.toml is used. If there is none, an existing run
    (--run DIR) uses its own data and settings, and a new run uses an embedded data set. The same
    command continues after an interruption: finished jobs are skipped. Members with new tuned
    values are trained again, unless --no-tuned is given.
    """
    launch, base = Launch.checked(**how), experiment.run_path.as_posix()
    runs = several(experiment, protocol, repeats)
    for n, one in enumerate(runs):
        is_repeat = protocol == "one" and n > 0  # its plan differs in the folds only
        if is_repeat:
            click.echo(
                f"Repeat {n + 1} of {repeats}: new folds, into {printable(one.run_path.as_posix())}"
            )
        if not (dry_run and is_repeat):
            run_training(one, launch, dry_run=dry_run, has_plan=not is_repeat)
    if dry_run:
        return
    if protocol == "both" and not launch.no_wait:
        print_image_split_bias(*runs)
    for one in runs:
        click.echo(f"Next: {printable(_next_step(one, launch))}")
    if len(runs) > 1 and protocol == "one":
        click.echo(f"Then: {printable(command('compare', base))}-repeat-* --repeats --method vote")


def _next_step(experiment: Experiment, launch: Launch) -> str:
    """The next command: status if jobs run elsewhere, else stack."""
    from ensemble_kit.members.jobs.status import run_status
    from ensemble_kit.run import Run

    folder = experiment.run_path.as_posix()
    if launch.shard or launch.no_wait:
        left = sum(job.state != "done" for job in run_status(Run(folder)))
        whose = " of another shard" if launch.shard else ""
        if left:
            jobs = f"{left} job{whose} is" if left == 1 else f"{left} jobs{whose} are"
            return f"{jobs} not done yet; see {command('status', folder)}"
    nested = ["--nested"] if launch.nested else []
    return command("stack", "--method", "all", *nested, "--run", folder)


def run_training(
    experiment: Experiment,
    launch: Launch | None = None,
    *,
    dry_run: bool = False,
    has_plan: bool = True,
) -> None:
    """Print the plan and train; used by `train-members` and `demo`."""
    from ensemble_kit.experiment_data import prepare
    from ensemble_kit.members.fit_members import refuse_bad_members
    from ensemble_kit.members.preflight import check_members

    launch, began = launch or Launch(), time.perf_counter()
    members = experiment.resolved_members()
    refuse_bad_members(members)
    manifest, folds = prepare(experiment)
    notes = check_members(members, manifest)
    plan, work = plan_of(experiment, members, folds, manifest)
    if has_plan:
        print_text(f"{data_summary(manifest, folds)}\n{plan}")
    rounds = [folds.n_splits]
    if launch.nested:
        rounds.append(print_nested_plan(experiment, members, folds))
    jobs = [member.name for n in rounds for member in members for _ in range(n)]
    if dry_run:
        for text in notes:  # a training prints them itself
            click.echo(f"Note: {text}")
        return
    _train(experiment, launch, members, manifest, folds, jobs=jobs, work=work)
    if launch.no_wait:
        return
    those = (
        f"The jobs of shard {launch.shard[0]} of {launch.shard[1]}"
        if launch.shard
        else f"All {len(jobs)} jobs"
    )
    took = duration(time.perf_counter() - began)
    click.echo(f"{those} are done ({took}): {printable(experiment.run_path.as_posix())}")


def _train(
    experiment: Experiment,
    launch: Launch,
    members: list[Member],
    manifest: Manifest,
    folds: Folds,
    *,
    jobs: list[str],
    work: dict[str, float],
) -> None:
    """Train the members while the progress is printed; `jobs` are the names of their members."""
    from ensemble_kit.cli.output.progress import ProgressPrinter
    from ensemble_kit.experiment import config_of
    from ensemble_kit.members.fit_members import fit_members
    from ensemble_kit.members.jobs.tracking import MLflow, both
    from ensemble_kit.run import Run

    ours = launch.own(jobs)
    engine, is_live = launch.made(len(ours), experiment.device)
    with (
        ProgressPrinter(work, Counter(ours), estimates=is_live) as printer,
        contextlib.ExitStack() as stack,
    ):
        listener: Listener = printer
        if launch.mlflow:
            tracked = MLflow(experiment.run_path.name, listener=printer)
            listener = both(printer, stack.enter_context(tracked))
        fit_members(
            members, manifest, folds, Run(experiment.run_path), device=experiment.device,
            precision=experiment.precision, seed=experiment.seed, config=config_of(experiment),
            retrain=launch.retrain, listener=listener, engine=engine, shard=launch.shard,
            nested=launch.nested, keep_features=launch.keep_features,
        )  # fmt: skip


def print_nested_plan(experiment: Experiment, members: list[Member], folds: Folds) -> int:
    """Print the number of jobs for nested cross-validation; return the number per member."""
    from ensemble_kit.members.jobs.nested_folds import pairs_to_train, seconds_of_pairs
    from ensemble_kit.run import Run

    pairs = pairs_to_train(members, folds.n_splits)
    seconds = seconds_of_pairs(Run(experiment.run_path), members, folds.n_splits)
    estimate = (
        f"; about {duration(seconds)} in total, estimated from finished folds" if seconds else ""
    )
    click.echo(
        f"Nested: also train each member without each pair of folds: {counted(len(pairs), 'more job')} "
        f"per member, {len(pairs) * len(members)} in all{estimate}"
    )
    return len(pairs)


def data_summary(manifest: Manifest, folds: Folds) -> str:
    """Images and groups per class, in the training and in the test part."""
    from ensemble_kit.manifest.names import look_ordinal

    unit = manifest.group_kind
    rows: list[tuple[str, ...]] = [
        (f"images ({unit}s)" if manifest.has_groups else "images", *manifest.class_names, "all")
    ]
    for split in ("train", "test"):
        part = manifest.part(split)
        of = [part.take(part.labels == c) for c in range(part.n_classes)]
        rows.append((split, *(_size(one) for one in (*of, part))))
    by = unit + ": no " + unit + " is in both parts or in two folds"
    if folds.split_by == "image":
        by = (
            "IMAGE: images of one "
            + unit
            + " are on both sides of the split; metrics also reward recognising the "
            + unit
        )
    elif not manifest.has_groups:
        by = "image, because no patients are known"
    notes = "".join(f"\nNote: {note}" for note in (*manifest.notes, *folds.notes))
    table = columns(rows, right=range(1, len(rows[0])))
    order = (
        " < ".join(manifest.class_names) if manifest.ordinal else ", ".join(manifest.class_names)
    )
    kind = "Ordinal classes" if manifest.ordinal else "Classes"
    is_ordinal = not manifest.ordinal and look_ordinal(manifest.class_names)
    hint = " (not ordinal; if they are ordered, add --ordinal)" if is_ordinal else ""
    layout = f"\nRead as: {manifest.layout}." if manifest.layout else ""
    return printable(
        f"{manifest.name}: {counted(len(manifest), 'image')}\n{table}{layout}\n{kind}: {order}{hint}.\nSplit by {by}. {folds.n_splits} folds.{notes}"
    )


def _size(part: Manifest) -> str:
    """Images, and groups if they are known."""
    return f"{len(part)} ({part.n_groups})" if part.has_groups else str(len(part))


def plan_of(
    experiment: Experiment, members: list[Member], folds: Folds, manifest: Manifest
) -> tuple[str, dict[str, float]]:
    """The jobs as text, and the relative cost of a job of each member."""
    from ensemble_kit.images.augmentation.color_space import color_channels
    from ensemble_kit.images.tiles.layout import tile_shape
    from ensemble_kit.members.naming import stored_name
    from ensemble_kit.members.networks.flops import member_cost

    rows: list[tuple[str, ...]] = [PLAN_HEAD]
    work: dict[str, float] = {}
    for member in members:
        size, recipe = member.input_size, member.recipe
        height, width, channels = tile_shape(manifest, member.tile_spec)
        seen = (height, width, color_channels(member.color, channels))
        cost = member_cost(member, manifest.n_classes, seen)
        work[member.name] = cost.work * recipe.epochs
        rate = f"{recipe.learning_rate:.2g}" + (" (tuned)" if member.tuned else "")
        rows.append(
            (member.name, f"{size} px", f"{cost.parameters / 1e6:.2f} M", f"{cost.macs / 1e9:.3f}",
             member.start, str(recipe.epochs), str(recipe.batch_size), rate)
        )  # fmt: skip
    n = len(members) * folds.n_splits
    plan = f"Plan: {counted(len(members), 'member')} x {folds.n_splits} folds = {n} jobs, into {experiment.run_path.as_posix()}"
    blocks = [columns(rows, right=[1, 2, 3, 5, 6]), printable(plan)]
    for member in members:
        extra_names = [stored_name(member.name, w) for w in member.recipe.extra_checkpoints]
        if extra_names:
            extra = counted(len(extra_names), "extra checkpoint")
            blocks.append(f"{member.name} also gives {extra} as members: {', '.join(extra_names)}")
    return "\n".join(blocks), work
