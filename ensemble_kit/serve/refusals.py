"""Refusals of the server: an HTTP status and a message."""

from __future__ import annotations

from typing import Any

from ensemble_kit.errors import DataError, EnsembleKitError, EnvironmentFault, IntegrityError

# Responses in the OpenAPI schema.
REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The image is missing or cannot be read."},
    401: {"description": "The token is missing or wrong."},
    403: {"description": "The host is not allowed."},
    408: {"description": "The request took too long to arrive."},
    413: {"description": "Too many bytes, pixels or images."},
    429: {"description": "Too many requests are in progress."},
    503: {"description": "The prediction took too long, or memory is full."},
}


class RefusedError(Exception):
    """A refused request.

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
    """503 for a fault of the machine or the ensemble, 400 for a fault of the request."""
    if isinstance(error, EnvironmentFault | IntegrityError):
        return RefusedError(503, str(error))
    if isinstance(error, DataError):  # the original advice is for folders of images
        return RefusedError(400, str(DataError(error.problem, error.allowed, "Send another image")))
    return RefusedError(400, str(error))
