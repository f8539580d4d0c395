"""Several trainings of one command: under both protocols, or with the folds drawn again and again.

Trains nothing; says which experiments there are, and what the two protocols differ by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.output.text import columns
from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.experiment import Experiment


def several(experiment: Experiment, protocol: str, repeats: int) -> list[Experiment]:
    """The experiments that `--protocol` and `--repeats` make of one, a run folder each.

    Raises
    ------
    UsageError
        Both flags, or one of them where each training would be the same: the folds are given, or
        no image shares a group with another.
    """
    if protocol == "one" and repeats == 1:
        return [experiment]
    _refuse_the_same_again(experiment, protocol, repeats)
    base = experiment.run_path.as_posix()
    if protocol == "both":
        return [experiment.varied(run=f"{base}-by-{by}", split_by=by) for by in ("group", "image")]
    return [
        experiment.varied(run=f"{base}-repeat-{r + 1}", fold_seed=experiment.seed + r)
        for r in range(repeats)
    ]


def _refuse_the_same_again(experiment: Experiment, protocol: str, repeats: int) -> None:
    from ensemble_kit.folds.user_splits import n_given_folds

    splits = experiment.data.splits
    if protocol == "both" and repeats > 1:
        raise UsageError(
            "A training is repeated under one protocol",
            f"got --protocol both and --repeats {repeats}",
            "Leave one of them out",
        )
    if splits and n_given_folds(splits) is not None:
        flag = "--protocol both" if protocol == "both" else f"--repeats {repeats}"
        raise UsageError(
            f"{flag} draws folds anew",
            f"'{splits}' gives the folds in its column fold, so each run would be the same",
            "Leave that flag or that column out",
        )
    if protocol == "both" and _has_no_groups(experiment):
        raise UsageError(
            "The two protocols differ where images share a group",
            f"each image of '{experiment.data.path}' is a group of its own",
            "Say which images are of one patient (--group-column, --group-pattern), or leave out --protocol both",
        )


def _has_no_groups(experiment: Experiment) -> bool:
    from ensemble_kit.experiment import prepare

    train = prepare(experiment)[0].part("train")
    return train.n_groups == len(train)


def print_inflation(by_group: Experiment, by_image: Experiment) -> None:
    """What the split by image adds to each member's figure, in points."""
    from ensemble_kit.evaluation.runs.split_inflation import inflation
    from ensemble_kit.run import Run

    tables = [Run(one.run_path).predictions("oof") for one in (by_image, by_group)]
    found = inflation(*tables)
    rows = [
        ("member", "by image", f"by {tables[1].group_kind}", "inflation (points)", "95 % interval")
    ]
    rows += [
        (
            r.member,
            f"{r.by_image:.3f}",
            f"{r.by_group:.3f}",
            f"{r.points:+.1f}",
            f"{r.low:+.1f} to {r.high:+.1f}",
        )
        for r in found.itertuples()
    ]
    first = found.iloc[0]
    click.echo(
        f"Balanced accuracy of out-of-fold predictions, {first.n} images of {first.n_groups} "
        f"{tables[1].group_kind}s that both protocols predict:"
    )
    click.echo(columns(rows, right=[1, 2, 3, 4]))
