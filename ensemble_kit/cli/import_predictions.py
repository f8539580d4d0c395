"""`ensemble-kit import-predictions`: make a run of other people's predictions."""

from __future__ import annotations

from pathlib import Path

import click

from ensemble_kit.errors import UsageError


@click.command("import-predictions")
@click.argument("members", nargs=-1, required=True, metavar="NAME=FILE...")
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="CSV sample_id,label[,group][,fold][,split].",
)
@click.option("--run", "run_path", metavar="DIR", required=True, help="Run folder to make.")
@click.option(
    "--kind",
    type=click.Choice(["proba", "logits"]),
    default="proba",
    show_default=True,
    help="What the files hold.",
)
@click.option("--seed", default=0, show_default=True)
def import_predictions_command(
    members: tuple[str, ...], labels: Path, run_path: str, kind: str, seed: int
) -> None:
    """Make a run of predictions in FILEs: CSV sample_id,<class>,... or .npy (n_samples, n_classes)."""
    from ensemble_kit.evaluation.imported import import_predictions
    from ensemble_kit.run import Run

    pairs = [member.partition("=") for member in members]
    unnamed = [name for name, sign, path in pairs if not (name and sign and path)]
    if unnamed:
        raise UsageError(
            "Members are given as NAME=FILE", f"got '{unnamed[0]}'", "Use e.g. resnet=resnet.csv"
        )
    run = import_predictions(
        Run(run_path), labels, {n: p for n, _, p in pairs}, kind=kind, seed=seed
    )
    click.echo(
        f"{len(pairs)} members in {run.path.as_posix()}. Next: ensemble-kit stack --method all --run {run.path.as_posix()}"
    )
