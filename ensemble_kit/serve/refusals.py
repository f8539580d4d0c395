"""Refusals of the server: an HTTP status and a sentence."""

from __future__ import annotations

from typing import Any

from ensemble_kit.errors import DataError, EnsembleKitError, EnvironmentFault, IntegrityError

# For the schema of the routes.
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "No image, or one that cannot be read."},
    401: {"description": "The token is missing or wrong."},
    403: {"description": "The request is for another host."},
    408: {"description": "The request took too long to arrive."},
    413: {"description": "Too many bytes, pixels or images."},
    429: {"description": "Too many requests are in work."},
    503: {"description": "It took too long, or the machine lacks memory."},
}


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
    if isinstance(error, EnvironmentFault | IntegrityError):
        return RefusedError(503, str(error))
    if isinstance(error, DataError):  # its advice is for folders of images
        return RefusedError(400, str(DataError(error.problem, error.allowed, "Send another image")))
    return RefusedError(400, str(error))
