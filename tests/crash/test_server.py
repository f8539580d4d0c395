"""Rows 50 to 58 against a server in a separate process: no request ends it or fills its memory."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import json
import pickle
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

pytest.importorskip("fastapi")

HARNESS = Path(__file__).with_name("server_harness.py")
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
# Allowed growth of memory, for the allocator. A leak of one body per request would exceed it.
FLAT = 48 * 2**20


class Served:
    """A server process, and requests to it."""

    def __init__(self, words: list[str], folder: Path, **environment: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**environment_of(self.temporary), **environment},
            )
        self.message, address = b"", None
        assert self.process.stdout is not None
        while address is None:
            line = self.process.stdout.readline()
            assert line, self.log.read_text()
            self.message += line
            address = re.search(rb"http://127\.0\.0\.1:(\d+)", line)
        self.port = int(address[1])

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def request(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, bytes]:
        """Send a request. Return status and body of the response."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"Host": "localhost", **names})
            response = connection.getresponse()
            return response.status, response.read()

    def metric(self, name: str) -> int:
        text = self.request("GET", "/metrics")[1].decode()
        return int(re.search(rf"^ensemble_kit_{name} (\d+)$", text, re.M)[1])  # type: ignore[index]

    def memory(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def environment_of(temporary: Path) -> dict[str, str]:
    import os

    return {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def server(stacked: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    one = Served([str(HARNESS), str(stacked.run.path)], tmp_path_factory.mktemp("server"))
    yield one
    one.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def image(slides: Path) -> bytes:
    return (slides / "benign" / "P00_0.png").read_bytes()


def is_well(server: Served, image: bytes) -> bool:
    """Whether the server still predicts."""
    status, body = server.request("POST", "/predict", image)
    return status == 200 and json.loads(body)["predicted"] in ("benign", "malignant")


def png(width: int, height: int, *, packed: bytes = b"\0") -> bytes:
    """A PNG of one colour with the given size in its header."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, content in ((b"IHDR", head), (b"IDAT", zlib.compress(packed)), (b"IEND", b"")):
        check = struct.pack(">I", zlib.crc32(kind + content))
        parts += [struct.pack(">I", len(content)), kind, content, check]
    return b"".join(parts)


class Payload:
    """Creates a file if it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_row_50_uploaded_pickles_and_archives_are_refused_and_no_code_runs(
    server: Served, image: bytes, tmp_path: Path
) -> None:
    import numpy as np
    import torch

    marker = tmp_path / "marker"
    files = [pickle.dumps(Payload(marker))]
    torch.save({"x": Payload(marker)}, tmp_path / "x.pt")
    np.savez(tmp_path / "x.npz", np.array([Payload(marker)], dtype=object))
    files += [(tmp_path / name).read_bytes() for name in ("x.pt", "x.npz")]
    for content in files:
        assert server.request("POST", "/predict", content)[0] == 400
        assert server.request("POST", "/explain", content)[0] == 400
    assert not marker.exists()
    assert is_well(server, image)


@pytest.mark.parametrize("path", ["/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/v2/models/../../x"])  # fmt: skip
def test_row_51_paths_outside_the_routes_are_refused(server: Served, path: str) -> None:
    status, body = server.request("GET", path)
    assert status == 404
    assert b"root:" not in body
    assert json.loads(body)["error"]


def test_row_52_decompression_bombs_do_not_fill_the_memory(server: Served, image: bytes) -> None:
    assert is_well(server, image)
    before = server.memory()
    bombs = [
        (413, png(25_000, 25_000)),
        (413, png(50_000, 50_000)),
        # The header has a small size, but the file has far more pixels.
        (200, png(16, 16, packed=bytes(10**8))),
        (400, gzip.compress(bytes(10**8))),
    ]
    for want, content in bombs:
        assert server.request("POST", "/predict", content, Content_Encoding="gzip")[0] == want
    assert server.memory() - before < FLAT
    assert is_well(server, image)


@pytest.mark.parametrize(
    ("body", "want"),
    [
        (b"[" * 100_000, 400),
        (b'{"a":' * 30_000, 400),
        (b'{"inputs": [{"datatype": "UINT8", "shape": [NaN, 8, 8, 3], "data": [0]}]}', 400),
        (b'{"inputs": [{"datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [NaN, Infinity]}]}', 400),
        (b'{"inputs": [{"datatype": "UINT8", "shape": [9999999999999999999999, 8, 8, 3], "data": [0]}]}', 400),
        (b'{"inputs": [{"datatype": "UINT8", "shape": [-1, 8, 8, 3], "data": [0]}]}', 400),
        (b'{"inputs": [{"datatype": "UINT8", "shape": [1, 8, 8, 3], "data": [' + b"9" * 5000 + b"]}]}", 400),
        (b'{"inputs": [{"datatype": "UINT8", "shape": [1, 8, 8, 3], "data": ' + b"[" * 90 + b"]" * 90 + b"}]}", 400),
        (b'{"inputs": [{"datatype": {}, "data": [[]]}], "id": {}, "outputs": 7}', 400),
        (b"\xff\xfe", 400),
        (bytes(300_000), 413),
    ],
)  # fmt: skip
def test_row_53_deep_huge_and_invalid_json_is_refused(
    server: Served, image: bytes, body: bytes, want: int
) -> None:
    status, response = server.request("POST", "/v2/models/ensemble/infer", body)
    assert status == want, response
    assert json.loads(response)["error"]
    assert is_well(server, image)


def test_row_57_large_endless_and_many_part_requests_do_not_fill_the_memory(
    server: Served, image: bytes
) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="%d"; filename="a.png"\r\n\r\na\r\n'
    field = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\na\r\n'
    form = {"Content_Type": "multipart/form-data; boundary=x"}
    assert all(is_well(server, image) for _ in range(30))
    before = server.memory()
    for _ in range(10):
        assert all(is_well(server, image) for _ in range(10))
        assert server.request("POST", "/explain", image)[0] == 200
        many = b"".join(part % i for i in range(1000)) + b"--x--\r\n"
        assert server.request("POST", "/predict", many, **form)[0] == 400
        assert server.request("POST", "/predict", field * 1000 + b"--x--\r\n", **form)[0] == 400
        assert server.request("POST", "/predict", png(900, 900), **form)[0] == 400
        endless(server)
        with server.connect() as large:
            large.sendall(HEAD + b"Content-Length: 99999999999\r\n\r\n")
            assert b" 413 " in large.recv(100)
    assert server.memory() - before < FLAT
    assert server.metric("requests_in_work") == 0


def endless(server: Served) -> None:
    """Send chunks until the server refuses, at most 20 MB (100 times the limit)."""
    with server.connect() as socket_, contextlib.suppress(ConnectionError):
        socket_.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            socket_.sendall(b"f4240\r\n" + bytes(10**6) + b"\r\n")
        assert b" 413 " in socket_.recv(100)


def test_row_57_slow_clients_get_408_and_do_not_block_other_clients(
    server: Served, image: bytes
) -> None:
    with contextlib.ExitStack() as every:
        # More than `max_requests`.
        bodies = [every.enter_context(server.connect()) for _ in range(6)]
        heads = [every.enter_context(server.connect()) for _ in range(6)]
        for one in bodies:
            one.sendall(HEAD + b"Content-Length: 5000\r\n\r\nab")
        for one in heads[:3]:
            one.sendall(b"POST /pred")
        assert is_well(server, image)
        for one in bodies + heads:
            response = one.recv(1000)
            assert b" 408 " in response
            assert b'{"error"' in response + one.recv(1000)
    assert is_well(server, image)


def test_row_57_too_many_simultaneous_requests_get_429_and_the_others_200(server: Served) -> None:
    from concurrent.futures import ThreadPoolExecutor

    file = io.BytesIO()
    Image.effect_noise((60, 60), 60).save(file, "PNG")
    with ThreadPoolExecutor(24) as pool:
        requested = [
            pool.submit(server.request, "POST", "/explain", file.getvalue()) for _ in range(24)
        ]
        found = [one.result()[0] for one in requested]
    assert set(found) <= {200, 429}
    assert found.count(200) >= 4
    assert 429 in found
    assert server.metric("requests_in_work") == 0


def test_row_58_bad_images_are_refused_and_file_names_are_ignored(
    server: Served, image: bytes
) -> None:
    names = ["../../etc/cron.d/x", "/etc/passwd", "..\\..\\x", "a\x00b", "\x1b]0;x"]
    for name in names:
        body = b'--x\r\nContent-Disposition: form-data; name="i"; filename="' + name.encode()
        body += b'"\r\n\r\n' + image + b"\r\n--x--\r\n"
        status, response = server.request(
            "POST", "/predict", body, Content_Type="multipart/form-data; boundary=x"
        )
        assert status in (200, 400)
        assert name.encode() not in response
    for content in (b"", b"text", b"<html></html>", image[:60], png(4, 4), png(16, 16)):
        assert server.request("POST", "/predict", content)[0] == 400
    assert not list(server.temporary.rglob("*"))
    assert is_well(server, image)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "hospital.example"])
def test_row_58_a_host_that_other_machines_can_reach_needs_a_token(stacked: Any, host: str) -> None:
    words = ["serve", str(stacked.run.path), "--host", host, "--port", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "ensemble_kit", *words], capture_output=True, timeout=60
    )
    assert done.returncode == 2
    assert host.encode() in done.stderr
    assert b"ENSEMBLE_KIT_TOKEN" in done.stderr


def test_rows_56_and_58_a_token_a_port_in_use_odd_names_and_sigterm(
    stacked: Any, tmp_path: Path, image: bytes
) -> None:
    token, run = "a-token-of-some-length", tmp_path / "run\x1b]0;owned\x07"
    shutil.copytree(stacked.run.path, run)
    words = ["-m", "ensemble_kit", "serve", str(run), "--port"]
    one = Served([*words, "0"], tmp_path, ENSEMBLE_KIT_TOKEN=token)
    for wrong in ("", "Bearer ", f"Bearer {token}x", f"Bearer {token[:-1]}", "Bearer \u00e9"):
        assert one.request("POST", "/predict", image, Authorization=wrong)[0] == 401
    assert one.request("POST", "/predict", image, Authorization=f"Bearer {token}")[0] == 200
    second = subprocess.run([sys.executable, *words, str(one.port)], capture_output=True)
    assert second.returncode == 4
    assert str(one.port).encode() in second.stderr
    assert one.request("GET", "/%1b%5d0;owned%07", Authorization=f"Bearer {token}")[0] == 404
    with one.connect() as odd:
        odd.sendall(b"GET /\x1b]0;owned\x07 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 400 " in odd.recv(100)
    assert one.end() == 128 + signal.SIGTERM
    printed = one.message + one.log.read_bytes() + second.stderr
    assert b"owned" in printed
    assert b"\x1b" not in printed
    assert token.encode() not in printed


def test_row_57_disconnected_clients_do_not_block_the_server(server: Served, image: bytes) -> None:
    for _ in range(12):
        with server.connect() as client:
            client.sendall(HEAD.replace(b"/predict", b"/explain"))
            client.sendall(b"Content-Length: %d\r\n\r\n" % len(image) + image)
    end = time.monotonic() + 60
    while not is_well(server, image):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_row_57_a_kill_during_a_request_leaves_no_image_and_frees_the_port(
    server: Served, image: bytes
) -> None:
    """The last test of this file: it ends the server."""
    with server.connect() as whole, server.connect() as half:
        whole.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(image) + image)
        half.sendall(HEAD + b"Content-Length: 150000\r\n\r\n" + bytes(140_000))
        assert server.end(signal.SIGKILL) == -signal.SIGKILL
    assert not list(server.temporary.rglob("*"))
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", server.port))
