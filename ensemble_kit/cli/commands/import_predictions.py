"""`ensemble-kit import-predictions`: make a run of other people's predictions.

Parses and prints; the work is `evaluation.imports.import_predictions.import_predictions`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.output.text import printable
from ensemble_kit.errors import UsageError, command

if TYPE_CHECKING:
    from ensemble_kit.run import Run

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("import-predictions")
@click.argument("members", nargs=-1, required=True, metavar="NAME=FILE...")
@click.option(
    "--labels",
    type=FILE,
    required=True,
    help="CSV sample_id,label[,patient][,fold][,split]. Other usual names are found and printed.",
)
@click.option("--run", "run_path", metavar="DIR", required=True, help="Run folder to make.")
@click.option(
    "--kind",
    type=click.Choice(["proba", "logits"]),
    default="proba",
    show_default=True,
    help="What the files hold. Probabilities may be rounded, or percent.",
)
@click.option(
    "--classes",
    metavar="A,B,...",
    help="The classes in their order, the most severe last: the order of an array's columns. A class "
    "may have no image. Quote a name with a comma. [default: sorted by name]",
)
@click.option(
    "--ordinal",
    is_flag=True,
    help="The order of --classes means something: adds metrics of ordinal classes.",
)
@click.option(
    "--partial",
    is_flag=True,
    help="Accept members that lack rows; stack --quorum K combines them.",
)
@click.option(
    "--member-costs",
    type=FILE,
    metavar="FILE",
    help="CSV member and any of parameters,gmacs,ms_per_image, for budgets and stack --pareto.",
)
@click.option(
    "--seed", default=0, show_default=True, help="Seed of the folds, if the labels have none."
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
    """Make a run of predictions in FILEs: CSV sample_id,<class>,... or .npy (n_samples, n_classes).

    A CSV is joined by image id and class name. The predictions.csv that stack writes is such a CSV.
    Rows and columns of a .npy are in the order of the labels and of the classes. Nothing is written
    before every file was read and checked.
    """
    from ensemble_kit.evaluation.imports.import_predictions import import_predictions
    from ensemble_kit.run import Run
    from ensemble_kit.tables import names_of

    if ordinal and not classes:
        raise UsageError(
            "Ordered classes are given in their order",
            "got --ordinal without --classes",
            "Give them, the mildest first: --classes 0,1+,2+,3+",
        )
    files = _named(members)
    said: list[str] = []
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
        tell=said.append,
    )
    click.echo(printable(_said(run, list(files), said, classes is not None)))


def _named(members: tuple[str, ...]) -> dict[str, str]:
    pairs = [member.partition("=") for member in members]
    unnamed = [member for member, pair in zip(members, pairs, strict=True) if not all(pair)]
    if unnamed:
        raise UsageError(
            "Members are given as NAME=FILE", f"got '{unnamed[0]}'", "Use e.g. resnet=resnet.csv"
        )
    counts = Counter(name for name, _, _ in pairs)
    twice = [name for name, n in counts.items() if n > 1]
    if twice:
        raise UsageError(
            "Every member has a name of its own",
            f"'{twice[0]}' stands {counts[twice[0]]} times",
            "Rename one of them",
        )
    return {name: path for name, _, path in pairs}


def _said(run: Run, members: list[str], said: list[str], is_ordered: bool) -> str:
    from ensemble_kit.tables import as_list

    manifest = run.manifest()
    names = ", ".join(as_list([name]) for name in manifest.class_names)
    order = "in the order given" if is_ordered else "sorted by name; another order: --classes A,B"
    caveats = [f"Caveat: {note}" for note in manifest.notes]
    caveats += [
        f"Caveat: {name}: {doubt}."
        for name in members
        for doubt in run.store.read_index(name)["made_of"]["stamps"][1:]
    ]
    lines = [
        f"{len(members)} members over {len(manifest)} images in {run.path.as_posix()}.",
        *said,
        f"Classes: {names} ({order}). The last, {as_list(manifest.class_names[-1:])}, counts as the "
        "positive, most severe one.",
        *caveats,
        f"Next: {command('stack', '--method', 'all', '--run', run.path.as_posix())}",
    ]
    return "\n".join(lines)
