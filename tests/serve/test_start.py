"""Start and end of `ensemble-kit serve`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.cli import Terminated
from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.serve import start
from ensemble_kit.serve.start import address_of, bound

Cli = Callable[..., tuple[int, str]]


@pytest.mark.parametrize(("signal", "code"), [(KeyboardInterrupt, 130), (Terminated, 143)])
def test_the_address_is_printed_and_a_signal_gives_its_exit_code(
    cli: Cli, stacked: Any, monkeypatch: pytest.MonkeyPatch, signal: type, code: int
) -> None:
    def served(listener: socket.socket, app: Any, *, seconds: float) -> None:
        socket.create_connection(listener.getsockname(), timeout=30).close()
        raise signal

    monkeypatch.setattr(start, "serve_on", served)
    ended, printed = cli("serve", stacked.run.path, "--port", 0, "--method", "simplex")
    assert ended == code
    for word in ("simplex", "torch", "benign", "malignant", "http://127.0.0.1:"):
        assert word in printed
    assert "127.0.0.1:0" not in printed


@pytest.mark.parametrize(
    ("host", "code"), [("no-such-host.invalid", 2), ("192.0.2.1", 2), ("in use", 4)]
)
def test_unusable_addresses_are_refused_by_name(host: str, code: int) -> None:
    with bound("127.0.0.1", 0) as other:
        other.listen()
        port = other.getsockname()[1] if host == "in use" else 0
        with pytest.raises(EnsembleKitError) as caught:
            bound("127.0.0.1" if port else host, port)
    assert caught.value.exit_code == code
    assert (str(port) if port else host) in str(caught.value)


def test_an_address_is_a_url_for_a_browser() -> None:
    with bound("127.0.0.1", 0) as one:
        assert address_of(one) == f"http://127.0.0.1:{one.getsockname()[1]}"
    if socket.has_ipv6:
        try:
            two = bound("::1", 0)
        except EnsembleKitError:
            pytest.skip("this machine has no IPv6")
        with two:
            assert address_of(two) == f"http://[::1]:{two.getsockname()[1]}"


def test_a_damaged_and_a_missing_bundle_are_refused(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"no zip")
    assert cli("serve", tmp_path / "x.zip", "--port", 0)[0] == 7
    assert cli("serve", tmp_path / "none", "--port", 0)[0] == 3
