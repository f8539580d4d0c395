"""Starting the server: listen on an address and serve until a signal."""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
from typing import Any

import uvicorn

from ensemble_kit.errors import EnvironmentFault, UsageError
from ensemble_kit.serve.connections import TimedProtocol

MAX_CONNECTIONS = 256


def bound(host: str, port: int) -> socket.socket:
    """A socket with an address that does not listen yet. Port 0 is any free port.

    Raises
    ------
    UsageError
        The host is not an address of this machine.
    EnvironmentFault
        The port is in use or not allowed.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        if os.name == "posix":  # the port can be reused at once after its server ended
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except socket.gaierror as error:
        raise _no_address(host, error) from error
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise _no_address(host, error) from error
        in_use = error.errno == errno.EADDRINUSE
        raise EnvironmentFault(
            f"The port {host}:{port} is {'used by another program' if in_use else 'not available'} ({error.strerror})",
            "the server needs a free port",
            "Choose another: --port 8001, or --port 0 for any free one",
        ) from error
    return listener


def _no_address(host: str, error: OSError) -> UsageError:
    return UsageError(
        f"'{host}' cannot be used as --host ({error.strerror})",
        "it must be an address of this machine",
        "Use 127.0.0.1, or 0.0.0.0 for all addresses",
    )


def address_of(listener: socket.socket) -> str:
    """The URL of the server, e.g. `http://127.0.0.1:8000`."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve_on(listener: socket.socket, app: Any, *, seconds: float) -> None:
    """Serve until SIGINT or SIGTERM. The signal is raised again after running requests are finished.

    Parameters
    ----------
    listener : socket
    app : ASGI application
    seconds : float
        See `Limits`. It is also the time for running requests at the end.
    """
    # Unreadable forms are reported to the client, not to the log.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    timed: Any = functools.partial(TimedProtocol, seconds=seconds)
    config = uvicorn.Config(
        app,
        http=timed,
        ws="none",
        log_level="warning",
        server_header=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=max(1, round(seconds)),
    )
    uvicorn.Server(config).run(sockets=[listener])
