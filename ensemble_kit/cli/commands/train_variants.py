"""Variants of one training: both split protocols (`--protocol both`), or repeats with new folds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.output.text import columns
from ensemble_kit.errors import UsageError

if TYPE_CHECKING:
    from ensemble_kit.experiment import Experiment


def several(experiment: Experiment, protocol: str, repeats: int) -> list[Experiment]:
    """The experiments of `--protocol both` and `--repeats N`, each with its own run folder.

    Raises
    ------
    UsageError
        Both options are given, or all trainings would be the same: the folds are given, or no two
        images share a group.
    """
    if protocol == "one" and repeats == 1:
        return [experiment]
    _refuse_identical_runs(experiment, protocol, repeats)
    base = experiment.run_path.as_posix()
    if protocol == "both":
        return [experiment.varied(run=f"{base}-by-{by}", split_by=by) for by in ("group", "image")]
    return [
        experiment.varied(run=f"{base}-repeat-{r + 1}", fold_seed=experiment.seed + r)
        for r in range(repeats)
    ]


def _refuse_identical_runs(experiment: Experiment, protocol: str, repeats: int) -> None:
    from ensemble_kit.folds.user_splits import n_given_folds

    splits = experiment.data.splits
    if protocol == "both" and repeats > 1:
        raise UsageError(
            f"--protocol both was given with --repeats {repeats}",
            "only one of them can be used",
            "Leave one of them out",
        )
    if splits and n_given_folds(splits) is not None:
        flag = "--protocol both" if protocol == "both" else f"--repeats {repeats}"
        raise UsageError(
            f"{flag} needs new random folds, but '{splits}' fixes the folds in its column fold",
            "each run would be the same",
            "Remove that option or that column",
        )
    if protocol == "both" and _has_no_groups(experiment):
        raise UsageError(
            f"--protocol both: each image of '{experiment.data.path}' is its own group",
            "a split by image and a split by patient differ only if images share a patient",
            "Give the patients with --group-column or --group-pattern, or remove --protocol both",
        )


def _has_no_groups(experiment: Experiment) -> bool:
    from ensemble_kit.experiment_data import prepare

    train = prepare(experiment)[0].part("train")
    return train.n_groups == len(train)


def print_image_split_bias(by_group: Experiment, by_image: Experiment) -> None:
    """Print the image-split bias of each member, in points."""
    from ensemble_kit.evaluation.runs.image_split_bias import image_split_bias
    from ensemble_kit.run import Run

    tables = [Run(one.run_path).predictions("oof") for one in (by_image, by_group)]
    found = image_split_bias(*tables)
    rows = [("member", "by image", f"by {tables[1].group_kind}", "bias (points)", "95 % interval")]
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
