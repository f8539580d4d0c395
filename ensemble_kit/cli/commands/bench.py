"""`ensemble-kit bench`: the speed of a bundle on this machine, for each backend."""

from __future__ import annotations

import dataclasses

import click

from ensemble_kit.cli.options.shared import json_option
from ensemble_kit.cli.output.text import columns, print_json, printable


@click.command("bench")
@click.argument("bundle")
@json_option
def bench(bundle: str, as_json: bool) -> None:
    """Measure how fast BUNDLE predicts on this machine with each installed backend.

    BUNDLE is a folder or .zip that export wrote. Each backend runs in its own process.
    """
    from ensemble_kit.export.bench import bench_bundle

    found = bench_bundle(bundle)
    if as_json:
        values = [dataclasses.asdict(one) for one in found]
        print_json({"bundle": bundle, "backends": values})
        return
    rows = [["backend", "images/s", "p50 ms", "p99 ms", "memory MiB", "open s"]]
    for one in found:
        own = (one.images_per_second, one.p50_ms, one.p99_ms, one.memory_mib, one.open_seconds)
        rows.append([one.backend, *("-" if v is None else f"{v:.1f}" for v in own)])
    click.echo(columns(rows, right=[1, 2, 3, 4, 5]))
    for one in found:
        if one.error:
            click.echo(printable(f"{one.backend}: {one.error}"))
    click.echo(
        "images/s: networks only, with 8 images per batch. p50, p99: time from one decoded image to its prediction.\n"
        "memory: peak memory of the process, with libraries."
    )
