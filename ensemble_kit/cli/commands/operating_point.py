"""`ensemble-kit operating-point`: a decision threshold and a rule for referral."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ensemble_kit.cli.options.shared import (
    intervals_option,
    json_option,
    method_option,
    run_option,
    seed_option,
)
from ensemble_kit.cli.output.operating_point import print_point, print_replaced
from ensemble_kit.cli.output.text import print_command, print_json, print_text
from ensemble_kit.errors import command

if TYPE_CHECKING:
    from ensemble_kit.run import Run


@click.command("operating-point")
@run_option
@method_option
@click.option(
    "--at",
    metavar="TARGET",
    help="Target of the threshold: sensitivity=0.95, specificity=0.9, youden, or cost=10:1 (cost of a false negative against a false positive).",
)
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="The class to detect, against the rest. [default: the positive class of the data, else the last of two classes]",
)
@click.option(
    "--refer", metavar="SHARE", help="Refer the least certain cases, at most this share, e.g. 10%."
)
@click.option(
    "--max-error",
    metavar="SHARE",
    help="Refer the least certain cases until the error of the rest is at most this, e.g. 0.02.",
)
@intervals_option
@seed_option
@click.option("--verbose", is_flag=True, help="With referral, also print the table per patient.")
@json_option
def operating_point_command(
    run: Run,
    method: str,
    at: str | None,
    class_name: str | None,
    refer: str | None,
    max_error: str | None,
    resamples: int,
    seed: int,
    verbose: bool,
    as_json: bool,
) -> None:
    """Choose a decision threshold (--at) and a rule for referral (--refer or --max-error).

    Both are chosen on out-of-fold predictions. They are evaluated in-sample, cross-fitted (chosen on
    the other folds) and on the test part, per image and per patient. Writes
    ensembles/<method>/decision.json.
    """
    from ensemble_kit.evaluation.decisions.thresholds import RejectOption, ThresholdTarget
    from ensemble_kit.evaluation.runs.operating_point import (
        DecisionOptions,
        decision_json,
        operating_point,
    )

    reject_option = None
    if refer is not None or max_error is not None:
        reject_option = RejectOption(_share(refer), _share(max_error))
    options = DecisionOptions(
        ThresholdTarget.parsed(at) if at else None,
        class_name,
        reject_option,
        n_resamples=resamples,
        seed=seed,
    )
    found = operating_point(run, method, options)
    if as_json:
        print_json(decision_json(found))
    else:
        print_point(found, verbose=verbose)
        print_text(f"Written: {run.ensemble_dir(method).as_posix()}/decision.json")
        if not run.is_imported:
            print_command(
                "To use it", command("predict", "IMAGES", "--method", method, "--run", run.path)
            )
    print_replaced(found, run, err=as_json)


def _share(text: str | None) -> float | None:
    from ensemble_kit.errors import UsageError
    from ensemble_kit.evaluation.decisions.thresholds import share

    try:
        return None if text is None else share(text)
    except ValueError:
        raise UsageError(
            f"'{text}' is not a share", "a share is a number or a percentage", "Use e.g. 10% or 0.1"
        ) from None
