"""`ensemble-kit serve`: an ensemble behind HTTP, with a page for people.

Parses and starts; the routes are in `serve.app`.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

TOKEN = "ENSEMBLE_KIT_TOKEN"


@click.command("serve")
@click.argument(
    "source", metavar="[RUN or BUNDLE]", required=False, type=click.Path(path_type=Path)
)
@click.option("--method", metavar="NAME", help="As of predict. [default: the best stacked method]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:0 or mps.")
@click.option(
    "--max-mb", type=click.FloatRange(min=0.001), default=20.0, show_default=True,
    help="Size of a request at most.",
)  # fmt: skip
@click.option(
    "--batch-size", type=click.IntRange(1, 64), default=16, show_default=True,
    help="Images of concurrent requests that are predicted together. 1: no batches.",
)  # fmt: skip
def serve(
    source: Path | None,
    method: str | None,
    host: str,
    port: int,
    device: str,
    max_mb: float,
    batch_size: int,
) -> None:
    """Serve an ensemble: a page for people, POST /predict, and the Open Inference Protocol v2.

    Needs the extra serve: pip install 'ensemble-kit[serve]'. The server listens on this machine
    only. For another --host, set the environment variable ENSEMBLE_KIT_TOKEN: each request must
    then send it.
    """
    from ensemble_kit.serve.limits import Limits, check_host

    token = os.environ.get(TOKEN) or None
    check_host(host, token)
    _require_extra()
    import uvicorn

    from ensemble_kit.cli.options.shared import default_run
    from ensemble_kit.cli.output.text import printable
    from ensemble_kit.inference.ensemble import load_ensemble
    from ensemble_kit.serve.app import make_app

    ensemble = load_ensemble(source or default_run(), method=method, device=device)
    limits = Limits(max_bytes=round(max_mb * 1e6), batch_size=batch_size)
    app = make_app(ensemble, limits, token=token)
    click.echo(printable(f"{ensemble.method} of {ensemble.source}: http://{host}:{port}"))
    click.echo("Routes: /docs. Metrics for Prometheus: /metrics. Stop: Ctrl-C.")
    for note in ensemble.notes:
        click.echo(printable(f"Caveat: {note}"))
    uvicorn.run(
        app, host=host, port=port, log_level="warning", server_header=False, limit_concurrency=256
    )


def _require_extra() -> None:
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        from ensemble_kit.errors import EnvironmentFault

        raise EnvironmentFault(
            "serve needs packages that are not installed",
            f"'{error.name}' is missing",
            "Install them: pip install 'ensemble-kit[serve]'",
        ) from error
