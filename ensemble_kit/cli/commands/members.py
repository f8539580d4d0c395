"""`ensemble-kit members`: list the networks that can be members, with their size."""

from __future__ import annotations

import json
from typing import Any

import click

from ensemble_kit.cli.options.shared import Names, json_option
from ensemble_kit.cli.output.text import columns


@click.group("members", context_settings={"help_option_names": ["-h", "--help"]})
def members() -> None:
    """The networks that can be used as members."""


@members.command("list")
@click.argument("names", required=False, type=Names())
@click.option(
    "--image-size",
    type=click.IntRange(min=8),
    help="Height and width of the input in pixels. [default: native size of each network]",
)
@click.option(
    "--measure", is_flag=True, help="Measure training and prediction speed on this machine."
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=2),
    default=16,
    show_default=True,
    help="Images per batch for --measure.",
)
@json_option
def list_members(
    names: tuple[str, ...] | None,
    image_size: int | None,
    measure: bool,
    batch_size: int,
    as_json: bool,
) -> None:
    """List networks with parameters, multiply-accumulates, input size and published weights.

    NAMES is a comma-separated list of networks and groups. [default: the whole catalogue] Other
    networks of timm are accepted too.
    """
    from ensemble_kit.members.registry import NETWORKS, cost, expand, native_size, published_tags
    from ensemble_kit.members.training.throughput import images_per_second

    rows: list[dict[str, Any]] = []
    for name in expand(names or tuple(NETWORKS)):
        size = image_size or native_size(name)
        found = cost(name, size)
        row: dict[str, Any] = {
            "member": name,
            "image_size": size,
            "parameters": found.parameters,
            "gmacs": round(found.macs / 1e9, 4),
            "weights": published_tags(name),
        }
        if measure:
            row |= images_per_second(name, size, batch_size)
        rows.append(row)
    click.echo(json.dumps(rows) if as_json else _text(rows, measure=measure))


def _text(rows: list[dict[str, Any]], *, measure: bool) -> str:
    head: tuple[str, ...] = ("member", "input", "parameters", "GMACs", "weights")
    if measure:
        head = (*head[:4], "train images/s", "predict images/s", head[4])
    table: list[tuple[str, ...]] = [head]
    for row in rows:
        speed = (f"{row['train']:.1f}", f"{row['predict']:.1f}") if measure else ()
        tags = ", ".join(row["weights"][:3]) + (", ..." if len(row["weights"]) > 3 else "")
        table.append(
            (
                row["member"],
                f"{row['image_size']} px",
                f"{row['parameters'] / 1e6:.2f} M",
                f"{row['gmacs']:.3f}",
                *speed,
                tags or "none (random weights)",
            )
        )
    return columns(table, right=range(1, len(head) - 1))
