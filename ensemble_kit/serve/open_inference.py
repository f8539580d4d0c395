"""The Open Inference Protocol, version 2, as JSON: what is asked, and how predictions are answered.

Knows no HTTP.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.serve.refusals import RefusedError

INPUT = "image"


def model_metadata(name: str, ensemble: Ensemble) -> dict[str, Any]:
    """The answer of `/v2/models/NAME`."""
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


def images_of(request: Any, max_images: int) -> list[list[bytes]]:
    """The image files of a request, one or a pair for each prediction.

    Parameters
    ----------
    request : JSON value
        One input: `BYTES` of shape [n], image files in base64, or of shape [n, 2], pairs of H&E and
        IHC; or `UINT8` of shape [n, height, width, 3].

    Raises
    ------
    RefusedError
        Anything else.
    """
    inputs = request.get("inputs") if isinstance(request, Mapping) else None
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], Mapping):
        raise RefusedError(
            400, "The request needs one input: {'inputs': [{'name': 'image', ...}]}."
        )
    one = inputs[0]
    datatype, data, shape = one.get("datatype"), one.get("data"), one.get("shape")
    if not isinstance(data, list) or not data:
        raise RefusedError(400, "The input has no data. Send its values as JSON, in 'data'.")
    if datatype == "BYTES":
        return _files(data, shape, max_images)
    if datatype == "UINT8":
        return [[one] for one in _pixels(data, shape, max_images)]
    raise RefusedError(400, f"The datatype is {str(datatype)[:40]!r}. Use BYTES or UINT8.")


def _files(data: Sequence[Any], shape: Any, max_images: int) -> list[list[bytes]]:
    # Of pairs, values may come flat or nested.
    n_parts = 2 if isinstance(shape, list) and len(shape) == 2 and shape[1] == 2 else 1
    flat = [text for one in data for text in (one if isinstance(one, list) else [one])]
    n = len(flat) // n_parts
    if n > max_images:
        raise _too_many(n, max_images)
    if shape not in (None, [len(flat)], [n, 2]) or n * n_parts != len(flat):
        raise RefusedError(
            400, f"The shape is {str(shape)[:60]}, and there are {len(flat)} images."
        )
    files = [_decoded(text) for text in flat]
    return [files[i : i + n_parts] for i in range(0, len(files), n_parts)]


def _too_many(n: int, max_images: int) -> RefusedError:
    return RefusedError(413, f"The request has {n} images; at most {max_images} are allowed.")


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise RefusedError(400, "BYTES are image files in base64, one text an image.") from None


def _pixels(data: Sequence[Any], shape: Any, max_images: int) -> list[bytes]:
    try:
        given = np.asarray(data)
        pixels = given.reshape(shape)
    except (TypeError, ValueError):
        raise RefusedError(400, f"The data do not fit the shape {str(shape)[:60]}.") from None
    if pixels.ndim != 4 or pixels.shape[3] != 3 or not np.issubdtype(given.dtype, np.integer):
        raise RefusedError(400, "UINT8 images have the shape [n, height, width, 3].")
    if pixels.min() < 0 or pixels.max() > 255:
        raise RefusedError(400, "UINT8 values are 0 .. 255.")
    if len(pixels) > max_images:
        raise _too_many(len(pixels), max_images)
    return [_png(one.astype(np.uint8)) for one in pixels]


def _png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=0)
    return file.getvalue()


def response(
    name: str,
    request: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
) -> dict[str, Any]:
    """The answer of `/v2/models/NAME/infer`; `prediction` is each image's whole prediction as JSON."""
    proba = [one["probabilities"][c] for one in records for c in classes]
    outputs = [
        {"name": "probabilities", "datatype": "FP64", "shape": [len(records), len(classes)], "data": proba},
        {
            "name": "predicted",
            "datatype": "BYTES",
            "shape": [len(records)],
            "data": [one["predicted"] or "" for one in records],
        },
        {
            "name": "prediction",
            "datatype": "BYTES",
            "shape": [len(records)],
            "data": [json.dumps(one, allow_nan=False) for one in records],
        },
    ]  # fmt: skip
    asked = request.get("outputs")
    if isinstance(asked, list) and asked:
        wanted = {one.get("name") for one in asked if isinstance(one, Mapping)}
        outputs = [one for one in outputs if one["name"] in wanted]
    own_id = {"id": request["id"]} if isinstance(request.get("id"), str) else {}
    return {
        "model_name": name,
        "model_version": "1",
        **own_id,
        "parameters": {"class_names": json.dumps(list(classes))},
        "outputs": outputs,
    }
