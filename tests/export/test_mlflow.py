"""An exported MLflow model gives the run's predictions with MLflow's loader."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.inference.ensemble import Ensemble

mlflow = pytest.importorskip("mlflow")


@pytest.fixture
def model(cli: Callable[..., tuple[int, str]], stacked: Any, tmp_path: Path) -> Path:
    code, printed = cli(
        "export", stacked.run.path, "m", "--method", "simplex", "--format", "mlflow"
    )
    assert code == 0, printed
    assert [one.name for one in tmp_path.iterdir()] == ["m"]
    return tmp_path / "m"


def test_mlflow_predicts_the_same_as_the_run(
    model: Path, ensemble: Ensemble, test_paths: list[Path], cli: Callable[..., tuple[int, str]]
) -> None:
    import mlflow.pyfunc

    opened = mlflow.pyfunc.load_model(str(model))
    cells = [base64.b64encode(path.read_bytes()).decode() for path in test_paths]
    found = opened.predict(pd.DataFrame({"image": cells}))
    want = ensemble.predict_all(test_paths)
    assert found["predicted"].tolist() == want.classes.tolist()
    np.testing.assert_allclose(found[["p_benign", "p_malignant"]], want.proba, atol=1e-6)
    with pytest.raises(DataError, match="row-0"):
        opened.predict(pd.DataFrame({"image": [base64.b64encode(b"no image").decode()]}))
    pytest.importorskip("fastapi")
    from mlflow.pyfunc.scoring_server import init
    from starlette.testclient import TestClient

    # The application that `mlflow models serve` starts.
    body = {"dataframe_split": {"columns": ["image"], "data": [[cell] for cell in cells]}}
    response = TestClient(init(opened)).post("/invocations", json=body)
    assert response.status_code == 200, response.text
    served = [[row["p_benign"], row["p_malignant"]] for row in response.json()["predictions"]]
    np.testing.assert_allclose(served, want.proba, atol=1e-6)
    assert not [p for p in model.rglob("*") if p.suffix in (".pkl", ".pickle")]
    (model.parent / "other").mkdir()
    assert cli("export", model, "other", "--format", "mlflow")[0] == 3
