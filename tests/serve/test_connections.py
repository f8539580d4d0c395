"""Idle connections are closed, and connections in use are not."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from ensemble_kit.serve.connections import TimedProtocol

SECONDS = 0.15
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Responds to /large with more bytes than a socket buffers, otherwise with two letters."""
    body = bytes(50_000_000) if scope["path"] == "/large" else b"ok"
    head = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    timed: Any = functools.partial(TimedProtocol, seconds=SECONDS)
    config = uvicorn.Config(app, http=timed, lifespan="off", log_level="critical")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield listener.getsockname()
        server.should_exit = True
        thread.join(30)


def received(client: socket.socket) -> int:
    """The number of bytes until the end."""
    n = 0
    with contextlib.suppress(ConnectionError):
        while part := client.recv(10**6):
            n += len(part)
    return n


@pytest.mark.parametrize("begun", [b"", b"GET / HT", REQUEST[:-2]])
def test_row_57_an_incomplete_head_gets_408(address: tuple[str, int], begun: bytes) -> None:
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(begun)
        response = b"".join(iter(lambda: client.recv(1000), b""))
    assert b" 408 " in response
    assert b'{"error"' in response


def test_row_57_an_incomplete_second_head_gets_408(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(REQUEST + REQUEST[:9])
        response = b"".join(iter(lambda: client.recv(1000), b""))
    assert b"ok" in response
    assert b" 408 " in response


def test_row_57_a_client_that_never_reads_is_disconnected(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(REQUEST.replace(b"/ ", b"/large "))
        client.recv(1)
        # Bytes that the server could not send in time are lost with the connection.
        threading.Event().wait(8 * SECONDS)
        assert received(client) < 50_000_000


def test_a_client_that_sends_many_requests_is_not_disconnected(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=60) as client:
        for _ in range(12):
            client.sendall(REQUEST)
            response = b""
            while not response.endswith(b"ok"):
                response += client.recv(1000)
            threading.Event().wait(SECONDS / 4)
