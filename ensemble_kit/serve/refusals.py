"""Refusals of the server: an HTTP status and a sentence."""

from __future__ import annotations

from ensemble_kit.errors import EnsembleKitError, EnvironmentFault, IntegrityError


class RefusedError(Exception):
    """A request that is not carried out.

    Parameters
    ----------
    status : int
        The HTTP status.
    message : str
        What is wrong, what is allowed, what to do next.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def refusal_of(error: EnsembleKitError) -> RefusedError:
    """A fault of the machine is 503, everything else is the request's: 400."""
    is_ours = isinstance(error, EnvironmentFault | IntegrityError)
    return RefusedError(503 if is_ours else 400, str(error))
