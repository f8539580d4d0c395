"""`ensemble-kit serve`: an ensemble behind HTTP, with a web page."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ensemble_kit.cli.options.shared import best_method_option, default_run, device_option
from ensemble_kit.errors import counted

if TYPE_CHECKING:
    import socket

    from ensemble_kit.inference.ensemble import Ensemble
    from ensemble_kit.serve.limits import Limits

TOKEN = "ENSEMBLE_KIT_TOKEN"


@click.command("serve")
@click.argument(
    "source", metavar="[RUN or BUNDLE]", required=False, type=click.Path(path_type=Path)
)
@best_method_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True,
    help="Port to listen on.",
)  # fmt: skip
@device_option
@click.option(
    "--backend", default="auto", show_default=True,
    help="auto, torch, onnxruntime or openvino. The last two need a bundle with a graph and have no maps.",
)  # fmt: skip
@click.option(
    "--max-mb", type=click.FloatRange(min=0.001), default=20.0, show_default=True,
    help="Largest size of a request in MB.",
)  # fmt: skip
@click.option(
    "--batch-size", type=click.IntRange(1, 64), default=16, show_default=True,
    help="Largest number of images of concurrent requests in one batch. 1: no batches.",
)  # fmt: skip
def serve(
    source: Path | None,
    method: str | None,
    host: str,
    port: int,
    device: str,
    backend: str,
    max_mb: float,
    batch_size: int,
) -> None:
    """Serve an ensemble over HTTP: a web page, POST /predict, and the Open Inference Protocol v2.

    Needs the extra serve: pip install 'ensemble-kit[serve]'. The server listens on this machine
    only. For another --host, set the environment variable ENSEMBLE_KIT_TOKEN: each request must
    then send it.
    """
    from ensemble_kit.serve.limits import Limits, check_host

    token = os.environ.get(TOKEN) or None
    check_host(host, token)
    _require_extra()
    from ensemble_kit.cli import Terminated
    from ensemble_kit.serve.start import bound, serve_on

    with bound(host, port) as listener:
        limits = Limits(max_bytes=round(max_mb * 1e6), batch_size=batch_size)
        app = _opened(
            listener, source, limits, token, method=method, device=device, backend=backend
        )
        try:
            serve_on(listener, app, seconds=limits.seconds)
        except (KeyboardInterrupt, Terminated) as end:
            click.echo("The server has stopped.", err=True)
            sys.exit(130 if isinstance(end, KeyboardInterrupt) else 143)


def _opened(
    listener: socket.socket, source: Path | None, limits: Limits, token: str | None, **opening: Any
) -> Any:
    """Load the ensemble, listen on the socket, and print the address."""
    from ensemble_kit.cli.output.text import printable
    from ensemble_kit.inference.ensemble import load_ensemble
    from ensemble_kit.serve.app import make_app
    from ensemble_kit.serve.start import address_of

    source = source or default_run()
    click.echo(printable(f"Opening {source} ..."), err=True)
    ensemble = load_ensemble(source, **opening)
    app = make_app(ensemble, limits, token=token)
    listener.listen()
    for line in first_lines(ensemble, address_of(listener), needs_token=token is not None):
        click.echo(printable(line))
    return app


def first_lines(ensemble: Ensemble, address: str, *, needs_token: bool) -> list[str]:
    """The lines that are printed when the server is ready."""
    n = len(ensemble.member_names)
    return [
        f"Serving {ensemble.source}",
        f"  method   {ensemble.method} of {counted(n, 'member')}, computed by {ensemble.backend} on {ensemble.device}",
        f"  classes  {', '.join(ensemble.class_names)}",
        *(f"  caveat   {note}" for note in ensemble.notes),
        "",
        f"Web page             {address}",
        f"Routes for programs  {address}/docs",
        f"Metrics              {address}/metrics",
        *([f"Token                each request sends the value of {TOKEN}"] if needs_token else []),
        "",
        "Stop the server with Ctrl-C.",
    ]


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
