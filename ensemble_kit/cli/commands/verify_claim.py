"""`ensemble-kit verify-claim`: check whether a published accuracy is possible (GRIM test)."""

from __future__ import annotations

import dataclasses
import json

import click

from ensemble_kit.cli.options.shared import json_option


@click.command("verify-claim")
@click.argument("accuracy")
@click.option("--n", type=int, required=True, help="Number of test samples.")
@click.option(
    "--level", default=0.95, show_default=True, help="Confidence level of the Wilson interval."
)
@json_option
def verify_claim_command(accuracy: str, n: int, level: float, as_json: bool) -> None:
    """Check whether ACCURACY (0.9962, 99.62%) is possible over --n samples (GRIM test).

    Prints the counts that give this accuracy, rounded or truncated. If there are none, prints means
    of several runs or folds that give it.
    """
    from ensemble_kit.evaluation.grim import verify_claim

    claim = verify_claim(accuracy, n, level)
    click.echo(json.dumps(dataclasses.asdict(claim), indent=2) if as_json else claim.sentence)
