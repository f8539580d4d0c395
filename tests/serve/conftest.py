"""Fixtures: a server of the stacked run, in this process and on a real socket."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.inference.ensemble import Ensemble, load_ensemble

pytest.importorskip("fastapi")
import uvicorn
from starlette.testclient import TestClient

from ensemble_kit.serve.app import make_app
from ensemble_kit.serve.limits import Limits

LIMITS = Limits(max_bytes=100_000, max_pixels=100_000, seconds=20, max_images=4)


@pytest.fixture(scope="session")
def served(stacked: Any) -> Ensemble:
    return load_ensemble(stacked.run, method="simplex", device="cpu")


@pytest.fixture(scope="session")
def client(served: Ensemble) -> Iterator[TestClient]:
    app = make_app(served, LIMITS)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as one:  # type: ignore[arg-type]
        yield one


@pytest.fixture(scope="session")
def image(slides: Path) -> bytes:
    return (slides / "benign" / "P00_0.png").read_bytes()


@contextlib.contextmanager
def _running(app: Any) -> Iterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(30)
        listening.close()


@pytest.fixture(scope="session")
def running() -> Callable[[Any], contextlib.AbstractContextManager[int]]:
    """A context manager that runs an app on a free port and yields the port."""
    return _running
