"""`ensemble-kit import-predictions`: make a run from predictions of other programs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.output.text import printable
from ensemble_kit.errors import UsageError, command, counted

if TYPE_CHECKING:
    from ensemble_kit.run import Run

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("import-predictions")
@click.argument("members", nargs=-1, required=True, metavar="NAME=FILE...")
@click.option(
    "--labels",
    type=FILE,
    required=True,
    help="CSV sample_id,label[,patient][,fold][,split]. Other common column names are recognised and printed.",
)
@click.option("--run", "run_path", metavar="DIR", required=True, help="New run folder.")
@click.option(
    "--kind",
    type=click.Choice(["proba", "logits"]),
    default="proba",
    show_default=True,
    help="What the files contain. Probabilities may be rounded, or in percent.",
)
@click.option(
    "--classes",
    metavar="A,B,...",
    help="Class names in order, the most severe last. For .npy files: the order of the columns. "
    "A class may have no image. Put a name with a comma in quotes. [default: sorted by name]",
)
@click.option(
    "--ordinal",
    is_flag=True,
    help="The classes are ordinal. Adds ordinal metrics. Needs --classes.",
)
@click.option(
    "--partial",
    is_flag=True,
    help="Accept members with missing rows. stack --quorum K combines them.",
)
@click.option(
    "--member-costs",
    type=FILE,
    metavar="FILE",
    help="CSV with the column member and any of parameters, gmacs, ms_per_image. Used by budgets and stack --pareto.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Seed of the folds, if the labels have no folds."
)
def import_predictions_command(
    members: tuple[str, ...],
    labels: Path,
    run_path: str,
    kind: str,
    classes: str | None,
    ordinal: bool,
    partial: bool,
    member_costs: Path | None,
    seed: int,
) -> None:
    """Make a run from predictions in FILEs: CSV sample_id,<class>,... or .npy (n_samples, n_classes).

    A CSV is joined by image id and class name; the predictions.csv of stack is such a CSV. Rows and
    columns of a .npy are in the order of the labels and of the classes. All files are checked before
    anything is written.
    """
    from ensemble_kit.evaluation.imports.import_predictions import import_predictions
    from ensemble_kit.run import Run
    from ensemble_kit.tables import names_of

    if ordinal and not classes:
        raise UsageError(
            "--ordinal was given without --classes",
            "ordinal metrics need the order of the classes",
            "Name the classes, the mildest first: --classes 0,1+,2+,3+",
        )
    files = _named(members)
    sentences: list[str] = []
    run = import_predictions(
        Run(run_path),
        labels,
        files,
        kind=kind,
        class_names=names_of(classes) if classes else None,
        ordinal=ordinal,
        partial=partial,
        costs=member_costs,
        seed=seed,
        notify=sentences.append,
    )
    click.echo(printable(_imported_text(run, list(files), sentences, classes is not None)))


def _named(members: tuple[str, ...]) -> dict[str, str]:
    pairs = [member.partition("=") for member in members]
    unnamed = [member for member, pair in zip(members, pairs, strict=True) if not all(pair)]
    if unnamed:
        raise UsageError(
            f"'{unnamed[0]}' has no member name",
            "members are given as NAME=FILE",
            "Use e.g. resnet=resnet.csv",
        )
    counts = Counter(name for name, _, _ in pairs)
    twice = [name for name, n in counts.items() if n > 1]
    if twice:
        raise UsageError(
            f"The member name '{twice[0]}' is given {counts[twice[0]]} times",
            "each member needs its own name",
            "Rename one of them",
        )
    return {name: path for name, _, path in pairs}


def _imported_text(run: Run, members: list[str], sentences: list[str], is_ordered: bool) -> str:
    from ensemble_kit.tables import as_list

    manifest = run.manifest()
    names = ", ".join(as_list([name]) for name in manifest.class_names)
    order = "in the order given" if is_ordered else "sorted by name; another order: --classes A,B"
    caveats = [f"Caveat: {note}" for note in manifest.notes]
    caveats += [
        f"Caveat: {name}: {caveat}."
        for name in members
        for caveat in run.store.read_index(name)["made_of"]["stamps"][1:]
    ]
    lines = [
        f"{counted(len(members), 'member')}, {len(manifest)} images: {run.path.as_posix()}.",
        *sentences,
        f"Classes: {names} ({order}). The last, {as_list(manifest.class_names[-1:])}, is the "
        "positive class (the most severe one).",
        *caveats,
        f"Next: {command('stack', '--method', 'all', '--run', run.path.as_posix())}",
    ]
    return "\n".join(lines)
