"""What one server accepts: size, pixels, time, number of requests, and from whom."""

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
        Of a request's body.
    max_pixels : int
        Of one image.
    seconds : float
        For the body to arrive, and again for the prediction.
    max_requests : int
        Predictions that are in work or wait; further ones get 429.
    max_images : int
        In one request of the Open Inference Protocol.
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
    """Refuse to be reachable by others without a token.

    Raises
    ------
    UsageError
        Another host than loopback and no token, or a short one.
    """
    if token is not None and len(token) < 16:
        raise UsageError(
            f"The token has {len(token)} characters",
            "a token needs at least 16",
            "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    if token is None and not is_loopback(host):
        raise UsageError(
            f"'{host}' can be reached from other machines",
            "there is no token, so anybody could use the server",
            "Set the environment variable ENSEMBLE_KIT_TOKEN, or use --host 127.0.0.1",
        )
