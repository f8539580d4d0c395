"""Images of new patients are pooled by the rule that `stack` used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.files import read_csv
from ensemble_kit.inference.ensemble import load_ensemble
from ensemble_kit.inference.find_images import find_sources
from ensemble_kit.inference.pooling import Pooling
from ensemble_kit.inference.predict_files import predict_files


@pytest.mark.parametrize("pooling", [Pooling(), Pooling("vote")])
def test_a_rule_survives_json(pooling: Pooling) -> None:
    assert Pooling.from_mapping(pooling.as_mapping()) == pooling


def test_a_fitted_rule_of_an_earlier_version_is_refused() -> None:
    fitted = {"share": 0.25, "scale": 2.0, "offsets": [0.4, -0.4]}
    with pytest.raises(DataError) as refused:
        Pooling.from_mapping({"rule": "fitted: top 25% of images", "fitted": fitted})
    assert "fitted: top 25% of images" in str(refused.value)
    assert Pooling.from_mapping({"rule": "mean (fitted no better)"}) == Pooling()


def test_patients_are_pooled_by_votes_if_stack_used_votes(
    trained: Any, slides: Path, tmp_path: Path
) -> None:
    own = trained.copied_to(tmp_path / "run")
    stack_run(own.run, ["simplex"], protocol=Protocol(n_resamples=0, pool="vote"))
    ensemble = load_ensemble(own.run, method="simplex", device="cpu")
    sources = find_sources([str(slides)], group_pattern=r"(P\d+)_").sources
    done = predict_files(ensemble, sources, tmp_path / "p.csv")
    assert done.per_group is not None
    images, patients = read_csv(done.path), read_csv(done.per_group)
    shares = (images["predicted"] == "benign").groupby(images["group"]).mean()
    np.testing.assert_allclose(patients["p_benign"].astype(float), shares, atol=1e-9)
