"""The loader that MLflow calls: it opens the bundle in an exported model."""

from __future__ import annotations

import base64
import binascii
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from ensemble_kit.errors import DataError
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble
from ensemble_kit.inference.sources import Source, file_source

COLUMN, PAIR = "image", "pair"


class MlflowModel:
    """An ensemble with the interface of an MLflow pyfunc model."""

    def __init__(self, ensemble: Ensemble) -> None:
        self.ensemble = ensemble

    def predict(self, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:  # noqa: ARG002
        """Predictions of the images in the column `image`, one row each.

        Parameters
        ----------
        model_input : DataFrame
            Image files as bytes or as base64 text. In pairs, the column `image` has the H&E image
            and the column `pair` has the IHC image.

        Raises
        ------
        DataError
            The column is missing, or a cell is not an image.
        """
        if COLUMN not in model_input:
            raise DataError(
                f"The input has no column '{COLUMN}'",
                f"its columns are {', '.join(map(str, model_input.columns))}",
                f"Put image files as base64 into the column '{COLUMN}'",
            )
        # The decoder of training reads files.
        with tempfile.TemporaryDirectory(prefix="ensemble-kit-") as folder:
            sources = list(_sources(model_input, Path(folder)))
            return self.ensemble.predict_sources(sources).frame()


def _sources(table: pd.DataFrame, folder: Path) -> Iterator[Source]:
    columns = [one for one in (COLUMN, PAIR) if one in table]
    for i, cells in enumerate(table[columns].itertuples(index=False, name=None)):
        names = [f"row-{i}{end}" for end in ("", "-pair")[: len(cells)]]
        for name, cell in zip(names, cells, strict=True):
            (folder / name).write_bytes(_content(i, cell))
        yield file_source(folder, names[0], name=names[0], pair_path="".join(names[1:]))


def _content(i: int, cell: Any) -> bytes:
    try:
        return cell if isinstance(cell, bytes) else base64.b64decode(cell, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise DataError(
            f"Row {i} is not base64", str(error)[:200], "Pass the bytes of an image file as base64"
        ) from error


def _load_pyfunc(data_path: str) -> MlflowModel:
    """The function that MLflow calls."""
    return MlflowModel(load_ensemble(data_path))
