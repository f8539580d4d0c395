"""Binary tensors of the Open Inference Protocol: values after the JSON of a request or response.

The JSON holds the number of bytes of each tensor. A `BYTES` tensor is a sequence of texts, each
after its length (4 bytes, little endian).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ensemble_kit.serve.refusals import RefusedError

# The header with the length of the JSON.
HEADER = "inference-header-content-length"
_LENGTH = struct.Struct("<I")


def split_body(body: bytes, header: str | None) -> tuple[Any, bytes]:
    """The JSON of a request, and the tensors after it.

    Parameters
    ----------
    body : bytes
    header : str, optional
        The value of `HEADER`. Without it there are no tensors.

    Raises
    ------
    RefusedError
        400: the header is wrong, or the body is not JSON.
    """
    n = len(body)
    if header is not None:
        if not header.isascii() or not header.isdigit() or not 0 < int(header[:20]) <= n:
            raise RefusedError(
                400,
                f"{HEADER} is {header[:40]!r}, and the body has {n} bytes. Send the length of the JSON.",
            )
        n = int(header)
    try:
        return json.loads(body[:n]), body[n:]
    except (ValueError, RecursionError):
        raise RefusedError(400, "The body is not JSON. See /docs.") from None


def texts_of(tensor: bytes) -> list[bytes]:
    """The texts of a binary `BYTES` tensor.

    Raises
    ------
    RefusedError
        400: a length exceeds the size of the tensor.

    Examples
    --------
    >>> texts_of(tensor_of("BYTES", ["ab", "c"]))
    [b'ab', b'c']
    """
    found, at = [], 0
    while at < len(tensor):
        start = at + _LENGTH.size
        at = start + (_LENGTH.unpack(tensor[at:start])[0] if start <= len(tensor) else 1)
        if at > len(tensor):
            raise RefusedError(
                400, "The lengths in the BYTES tensor do not fit its size. Send it again."
            )
        found.append(tensor[start:at])
    return found


def tensor_of(datatype: str, data: Sequence[Any]) -> bytes:
    """Values of an output as a binary tensor. `datatype` is `BYTES` or `FP64`."""
    if datatype == "FP64":
        return np.asarray(data, "<f8").tobytes()
    return b"".join(_LENGTH.pack(len(one)) + one for one in (text.encode() for text in data))


def with_tensors(
    response_body: Mapping[str, Any], binary: Sequence[str]
) -> tuple[bytes, int | None]:
    """The body of a response, and the length of its JSON, or None without binary tensors.

    Parameters
    ----------
    binary : sequence of str
        Names of the outputs that are sent as binary tensors.
    """
    outputs, tensors = [], []
    for one in response_body["outputs"]:
        if one["name"] in binary:
            tensors.append(tensor_of(one["datatype"], one["data"]))
            one = {key: value for key, value in one.items() if key != "data"}
            one["parameters"] = {"binary_data_size": len(tensors[-1])}
        outputs.append(one)
    text = json.dumps({**response_body, "outputs": outputs}, allow_nan=False).encode()
    return b"".join([text, *tensors]), len(text) if tensors else None
