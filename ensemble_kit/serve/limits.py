"""The limits of a server: sizes, time, number of requests, and hosts."""

from __future__ import annotations

import dataclasses
import ipaddress

from ensemble_kit.errors import UsageError


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Parameters
    ----------
    max_bytes : int
        Bytes of a request's body.
    max_pixels : int
        Pixels of one image.
    seconds : float
        Time for the body to arrive, and the same time for the prediction.
    max_requests : int
        Requests that run or wait. Additional requests get 429.
    max_images : int
        Images in one request of the Open Inference Protocol.
    batch_size : int
        Images of several requests that are predicted together.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 25_000_000
    seconds: float = 30.0
    max_requests: int = 16
    max_images: int = 64
    batch_size: int = 16


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server on `host`.

    Examples
    --------
    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_host(host: str, token: str | None) -> None:
    """Raise `UsageError` if the host is not a loopback host and there is no token, or a short one."""
    if token is not None and len(token) < 16:
        raise UsageError(
            f"The token has {len(token)} characters",
            "a token needs at least 16",
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    if token is None and not is_loopback(host):
        raise UsageError(
            f"--host '{host}' can be reached from other machines, and no token is set",
            "without a token, only a loopback host is allowed",
            "Set the environment variable ENSEMBLE_KIT_TOKEN, or use --host 127.0.0.1",
        )
