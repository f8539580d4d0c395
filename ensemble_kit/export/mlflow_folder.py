"""A bundle as an MLflow pyfunc model folder, for `mlflow models serve`.

The folder has the bundle and the name of our loader, without a pickle. MLflow opens it for a check
before it is renamed.
"""

from __future__ import annotations

import base64
import importlib.util
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from ensemble_kit.errors import DataError, EnvironmentFault
from ensemble_kit.export.mlflow_loader import COLUMN, PAIR
from ensemble_kit.inference.golden import GOLDEN, TOLERANCE
from ensemble_kit.replaced import replaced_whole

LOADER = "ensemble_kit.export.mlflow_loader"


def refuse_mlflow(out: Path) -> None:
    """Check the output path and the installed packages before the export.

    Raises
    ------
    DataError
        `out` exists and is not an MLflow model, or it is a zip archive.
    EnvironmentFault
        MLflow is not installed.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise EnvironmentFault(
            "The package 'mlflow' is not installed",
            "it comes with the extra 'mlflow'",
            "Install it: pip install 'ensemble-kit[mlflow]'",
        )
    if out.suffix.lower() == ".zip" or (out.exists() and not (out / "MLmodel").is_file()):
        raise DataError(
            f"'{out}' cannot become an MLflow model",
            "the output must be a new folder or an older MLflow model",
            "Choose another folder",
        )


def write_mlflow(bundle: Path, out: Path) -> float:
    """Write the model folder. Return MLflow's largest difference of a probability.

    Parameters
    ----------
    bundle : path
        A folder that `export_bundle` wrote. It is copied.
    """
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    from ensemble_kit import __version__

    with replaced_whole(out) as fresh, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MLflow asks for an example of the input
        mlflow.pyfunc.save_model(
            str(fresh / "model"),
            loader_module=LOADER,
            data_path=str(bundle),
            pip_requirements=[f"ensemble-kit=={__version__}"],
            signature=ModelSignature(
                inputs=Schema([ColSpec(DataType.string, one) for one in _golden_table(bundle)])
            ),
        )
        for one in (fresh / "model").iterdir():
            one.rename(fresh / one.name)
        (fresh / "model").rmdir()
        return _checked(fresh, bundle)


def _golden_table(bundle: Path) -> pd.DataFrame:
    """The golden images as MLflow's input: a column of images, and a column of pairs if needed."""
    images = json.loads((bundle / GOLDEN).read_text())["images"]
    names = pd.DataFrame([[one["file"], one["pair"]] for one in images], columns=[COLUMN, PAIR])
    used = names.loc[:, (names != "").all()]
    return used.map(lambda name: base64.b64encode((bundle / name).read_bytes()).decode())


def _checked(folder: Path, bundle: Path) -> float:
    import mlflow.pyfunc

    golden = json.loads((bundle / GOLDEN).read_text())
    found = mlflow.pyfunc.load_model(str(folder)).predict(_golden_table(bundle))
    columns = [f"p_{name}" for name in golden["class_names"]]
    difference = float(np.abs(found[columns].to_numpy() - golden["probabilities"]).max())
    if not difference <= TOLERANCE:
        raise EnvironmentFault(
            "MLflow's loader does not reproduce the run: the largest difference of a probability is "
            f"{difference:.2g}",
            f"at most {TOLERANCE:g} is accepted",
            "No file was written. Use --format bundle",
        )
    return difference
