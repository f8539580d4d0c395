"""Two tunings at the same time on a PostgreSQL server that the test starts on loopback."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL of a server for this test; PostgreSQL refuses to run as root."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if not BINARIES:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    folder, bin_ = Path("/tmp") / f"ek-pg-{os.getpid()}", BINARIES[-1].parent
    folder.mkdir()
    who = {}
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
        who = {"user": "postgres"}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(*words: object) -> None:
        subprocess.run(
            [str(word) for word in words], check=True, cwd=folder, stdout=subprocess.DEVNULL, **who
        )

    try:
        call(bin_ / "initdb", "-D", folder / "data", "-A", "trust", "-U", "tuner")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {folder} -c fsync=off"
        call(
            bin_ / "pg_ctl",
            "-D",
            folder / "data",
            "-o",
            options,
            "-l",
            folder / "log",
            "-w",
            "start",
        )
        call(bin_ / "createdb", "-h", "127.0.0.1", "-p", port, "-U", "tuner", "studies")
        yield f"postgresql://tuner@127.0.0.1:{port}/studies"
    finally:
        if (folder / "data/postmaster.pid").exists():
            call(bin_ / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.dense
def test_two_hosts_share_the_trials_without_repeats(
    server: str, slides: Path, tmp_path: Path
) -> None:
    def started(run: str) -> subprocess.Popen[bytes]:
        words = [
            "tune", "--data", slides, "--members", "tiny_cnn", "--image-size", 16, "--epochs", 2, "--folds", 2,
            "--no-pretrained", "--device", "cpu", "--run", run, "--trials", 12, "--storage", server,
        ]  # fmt: skip
        return subprocess.Popen(
            [sys.executable, "-m", "ensemble_kit", *map(str, words)], cwd=tmp_path,
            stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    assert [process.wait() for process in [started("a"), started("b")]] == [0, 0]
    printed = subprocess.run(
        [sys.executable, "-m", "ensemble_kit", "tune", "status", "--run", "a", "--json", "--storage", server],
        cwd=tmp_path, check=True, capture_output=True,
    ).stdout  # fmt: skip
    trials = json.loads(printed)["tiny_cnn"]
    # One more trial can run, because there are two hosts.
    assert len(trials) in {12, 13}
    assert len({t["number"] for t in trials}) == len(trials)
    own = [(t["origin"], t["values"]["learning_rate"]) for t in trials if t["origin"]]
    assert len(set(own)) == len(own)
