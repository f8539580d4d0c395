"""What MLflow calls to open an exported model: the bundle inside it, behind MLflow's `predict`.

Holds no logic of its own: the ensemble predicts.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ensemble_kit.errors import DataError
from ensemble_kit.images.decode import FORMATS, check_size
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble

COLUMN = "image"


class MlflowModel:
    """An ensemble as MLflow's pyfunc wants it."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble

    def predict(self, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """Predictions of the images in the column `image`, one row each.

        Parameters
        ----------
        model_input : DataFrame
            PNG or JPEG files as bytes, or as base64 text.

        Raises
        ------
        DataError
            No such column, or a cell that is no image.
        """
        if COLUMN not in model_input:
            raise DataError(
                f"The input has no column '{COLUMN}'",
                f"its columns are {', '.join(map(str, model_input.columns))}",
                f"Name the column '{COLUMN}'; it holds image files as base64",
            )
        images = [_pixels(i, cell) for i, cell in enumerate(model_input[COLUMN])]
        return self.ensemble.predict_all(images).frame()


def _pixels(i: int, cell: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        content = cell if isinstance(cell, bytes) else base64.b64decode(cell, validate=True)
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.mode not in ("RGB", "L"):
                raise ValueError(f"its mode is {image.mode}; convert it to 8-bit RGB")
            check_size(image.width, image.height, f"row {i}")
            return np.array(image)
    except (TypeError, ValueError, OSError, SyntaxError, binascii.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"Row {i} of the column '{COLUMN}' is no image that is read here",
            str(error)[:200],
            "Give a PNG or JPEG file as base64",
        ) from error


def _load_pyfunc(data_path: str) -> MlflowModel:
    """Called by MLflow."""
    return MlflowModel(load_ensemble(data_path))
