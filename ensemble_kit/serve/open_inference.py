"""The Open Inference Protocol, version 2: contents of requests and responses.

Binary tensors are in `tensors`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.serve.received import Content
from ensemble_kit.serve.refusals import RefusedError
from ensemble_kit.serve.tensors import texts_of

INPUT = "image"


def model_metadata(name: str, ensemble: Ensemble) -> dict[str, Any]:
    """The response of `/v2/models/NAME`."""
    n = len(ensemble.class_names)
    return {
        "name": name,
        "versions": ["1"],
        "platform": f"ensemble-kit_{ensemble.backend}",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP64", "shape": [-1, n]},
            {"name": "predicted", "datatype": "BYTES", "shape": [-1]},
            {"name": "prediction", "datatype": "BYTES", "shape": [-1]},
        ],
        "parameters": {"class_names": json.dumps(ensemble.class_names), "method": ensemble.method},
    }


def images_of(request: Any, tensor: bytes, max_images: int) -> list[Content]:
    """The images of a request, one or a pair for each prediction.

    Parameters
    ----------
    request : JSON value
        One input. `BYTES` are image files, shape [n], or pairs of H&E and IHC, shape [n, 2]; inside
        the JSON they are base64. `UINT8` are pixels, shape [n, height, width, 3].
    tensor : bytes
        The binary tensor after the JSON, or empty.

    Raises
    ------
    RefusedError
        400 or 413: the request has another form, or too many images.
    """
    inputs = request.get("inputs") if isinstance(request, Mapping) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], Mapping):
        raise RefusedError(
            400, "The request must have one input: {'inputs': [{'name': 'image', ...}]}. See /docs."
        )
    one = inputs[0]
    size = _parameters(one).get("binary_data_size")
    if (size is not None or tensor) and size != len(tensor):
        raise RefusedError(
            400,
            f"binary_data_size is {str(size)[:20]}; {len(tensor)} bytes follow the JSON. Send the number "
            "of these bytes.",
        )
    data = tensor if tensor else one.get("data")
    if not isinstance(data, bytes | list) or not data:
        raise RefusedError(400, "The input has no data. Send values in 'data' or as a tensor.")
    datatype, shape = one.get("datatype"), one.get("shape")
    if datatype == "BYTES":
        return _files(data, shape, max_images)
    if datatype == "UINT8":
        return _pixels(data, shape, max_images)
    raise RefusedError(400, f"The datatype is {str(datatype)[:40]!r}. Use BYTES or UINT8.")


def binary_outputs(request: Mapping[str, Any]) -> list[str]:
    """Names of the outputs that the client requests as binary tensors."""
    every = bool(_parameters(request).get("binary_data_output", False))
    requested = _requested(request)
    if not requested:
        return ["probabilities", "predicted", "prediction"] if every else []
    return [n for n, one in requested.items() if _parameters(one).get("binary_data", every)]


def _parameters(one: Mapping[str, Any]) -> Mapping[str, Any]:
    found = one.get("parameters")
    return found if isinstance(found, Mapping) else {}


def _requested(request: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The outputs that the client requests, by name."""
    requested = request.get("outputs")
    named = requested if isinstance(requested, list) else []
    return {str(one.get("name")): one for one in named if isinstance(one, Mapping)}


def _files(data: bytes | list[Any], shape: Any, max_images: int) -> list[Content]:
    # Values of pairs can be flat or nested.
    n_parts = 2 if isinstance(shape, list) and len(shape) == 2 and shape[1] == 2 else 1
    if isinstance(data, bytes):
        flat: list[Any] = texts_of(data)
    else:
        flat = [text for one in data for text in (one if isinstance(one, list) else [one])]
    n = len(flat) // n_parts
    if n > max_images:
        raise _too_many(n, max_images)
    if shape not in (None, [len(flat)], [n, 2]) or n * n_parts != len(flat):
        raise RefusedError(
            400,
            f"The shape {str(shape)[:60]} does not match {len(flat)} images. Correct the shape.",
        )
    files = flat if isinstance(data, bytes) else [_decoded(text) for text in flat]
    return [files[i : i + n_parts] for i in range(0, len(files), n_parts)]


def _too_many(n: int, max_images: int) -> RefusedError:
    return RefusedError(
        413, f"The request has {n} images; at most {max_images} are allowed. Send fewer."
    )


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise RefusedError(
            400, "BYTES values must be image files in base64, one string per image."
        ) from None


def _pixels(data: bytes | list[Any], shape: Any, max_images: int) -> list[Content]:
    if not _is_shape(shape):
        raise RefusedError(
            400,
            f"The shape is {str(shape)[:60]}; UINT8 images need the shape [n, height, width, 3].",
        )
    values = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else _listed(data)
    if values.ndim != 1 or values.size != shape[0] * shape[1] * shape[2] * 3:
        raise RefusedError(400, f"The data do not match the shape {shape}.")
    if shape[0] > max_images:
        raise _too_many(shape[0], max_images)
    return [[one] for one in values.reshape(shape)]


def _is_shape(shape: Any) -> bool:
    is_list = isinstance(shape, list) and len(shape) == 4
    return is_list and all(type(n) is int and 0 < n < 2**31 for n in shape) and shape[3] == 3


def _listed(data: list[Any]) -> npt.NDArray[np.uint8]:
    try:
        given = np.asarray(data)
    except (ValueError, OverflowError):
        given = np.empty(0)
    if not np.issubdtype(given.dtype, np.integer) or given.min() < 0 or given.max() > 255:
        raise RefusedError(400, "UINT8 values must be integers from 0 to 255.")
    return given.astype(np.uint8).ravel()


def response(
    name: str,
    request: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """The response of `/v2/models/NAME/infer`. `prediction` is the full prediction as JSON."""
    n = len(records)
    proba = [one["probabilities"][c] for one in records for c in classes]
    predicted = [one["predicted"] or "" for one in records]
    whole = [json.dumps(one, allow_nan=False) for one in records]
    outputs = [
        {"name": "probabilities", "datatype": "FP64", "shape": [n, len(classes)], "data": proba},
        {"name": "predicted", "datatype": "BYTES", "shape": [n], "data": predicted},
        {"name": "prediction", "datatype": "BYTES", "shape": [n], "data": whole},
    ]
    if requested := _requested(request):
        outputs = [one for one in outputs if one["name"] in requested]
    own_id = {"id": request["id"]} if isinstance(request.get("id"), str) else {}
    return {
        "model_name": name,
        "model_version": "1",
        **own_id,
        "parameters": {"class_names": json.dumps(list(classes))},
        "outputs": outputs,
    }
