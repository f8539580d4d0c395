"""The server under load: effect of batching, agreement of predictions, and memory.

    python experiments/benchmarks/serve.py RUN [--requests 96] [--clients 8] [--json FILE]

Two servers on loopback, with and without batching, are measured in turn. The images of RUN are needed.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import ensemble_kit as ek
from ensemble_kit.export.golden_images import data_root
from ensemble_kit.run import versions

ARMS = {"without batching": 1, "with batching": 16}


@contextlib.contextmanager
def server(run: str, batch_size: int) -> Iterator[tuple[int, psutil.Process]]:
    """A server in a separate process. Yields its port and the process."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    words = ["serve", run, "--port", str(port), "--batch-size", str(batch_size), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ensemble_kit", *words], stdout=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            time.sleep(0.1)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def request(port: int, image: bytes) -> tuple[float, dict[str, Any]]:
    """Predict an image. Returns the seconds and the prediction."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/predict", image)
    response = connection.getresponse()
    found = json.loads(response.read())
    connection.close()
    if response.status != 200:
        raise SystemExit(f"{response.status}: {found}")
    return time.perf_counter() - start, found


def load(port: int, images: Sequence[bytes], n: int, clients: int) -> tuple[float, list[float]]:
    """Requests per second, and the seconds of each request."""
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        seconds = [
            one for one, _ in pool.map(lambda i: request(port, images[i % len(images)]), range(n))
        ]
    return n / (time.perf_counter() - start), seconds


def agreement(run: ek.Run, port: int, images: Sequence[bytes]) -> dict[str, Any]:
    """Compare the server's predictions of the test part with the stored predictions."""
    ensemble = ek.load_ensemble(run, device="cpu")
    logits = run.predictions("test").select(ensemble.member_names).logits
    want = ensemble.stored.combine(logits).proba
    found = [request(port, one)[1]["probabilities"] for one in images]
    got = np.array([[one[c] for c in ensemble.class_names] for one in found])
    return {
        "method": ensemble.method,
        "n_images": len(images),
        "largest_difference": float(np.abs(got - want).max()),
        "other_classes": int((got.argmax(axis=1) != want.argmax(axis=1)).sum()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    run = ek.Run(args.run)
    test = data_root(run, run.manifest()).part("test")
    images = [(test.root / path).read_bytes() for path in test.table["path"]]
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    waits: dict[str, list[float]] = {arm: [] for arm in ARMS}
    memory: dict[str, list[float]] = {arm: [] for arm in ARMS}
    with contextlib.ExitStack() as both:
        opened = {arm: both.enter_context(server(args.run, size)) for arm, size in ARMS.items()}
        agreed = agreement(run, opened["with batching"][0], images)
        for port, _ in opened.values():
            load(port, images, args.clients, args.clients)
        for _ in range(args.rounds):
            for arm, (port, process) in opened.items():
                rate, seconds = load(port, images, args.requests, args.clients)
                rates[arm].append(rate)
                waits[arm] += seconds
                memory[arm].append(process.memory_info().rss / 2**20)
    rows = [
        {
            "what": arm,
            "requests_per_second": statistics.median(rates[arm]),
            "p50_ms": 1000 * float(np.quantile(waits[arm], 0.5)),
            "p99_ms": 1000 * float(np.quantile(waits[arm], 0.99)),
            "rss_mib_after_each_round": memory[arm],
        }
        for arm in ARMS
    ]
    print(f"{agreed['method']}: {agreed['n_images']} test images over HTTP, largest difference {agreed['largest_difference']:.1e}, {agreed['other_classes']} other classes")  # fmt: skip
    for row in rows:
        grown = row["rss_mib_after_each_round"][-1] - row["rss_mib_after_each_round"][0]
        print(
            f"{row['what']:18} {row['requests_per_second']:.1f} requests/s, p50 {row['p50_ms']:.0f} ms, p99 {row['p99_ms']:.0f} ms, memory {grown:+.0f} MiB"
        )
    if args.json:
        content = {
            "benchmark": "serve", "clients": args.clients, "requests": args.requests, "rounds": args.rounds,
            "agreement": agreed, "rows": rows, "versions": versions(),
            "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        }  # fmt: skip
        args.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
