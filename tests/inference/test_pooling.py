"""New patients are pooled by the rule by which `stack` evaluated the run's patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.runs.stack_run import stack_run
from ensemble_kit.evaluation.scores.fitted_pooling import PoolingRule
from ensemble_kit.files import read_csv
from ensemble_kit.inference.ensemble import load_ensemble
from ensemble_kit.inference.find_images import find_sources
from ensemble_kit.inference.pooling import Pooling
from ensemble_kit.inference.predict_files import predict_files

RULE = PoolingRule(0.25, 2.0, np.array([0.4, -0.4]))


@pytest.mark.parametrize("pooling", [Pooling(), Pooling("vote"), Pooling(fitted=RULE)])
def test_a_rule_comes_back_from_json(pooling: Pooling) -> None:
    again = Pooling.from_mapping(pooling.as_mapping())
    assert again.as_mapping() == pooling.as_mapping()


def test_patients_are_pooled_by_the_stored_fitted_rule(
    stacked: Any, slides: Path, tmp_path: Path
) -> None:
    own = stacked.copied_to(tmp_path / "run")
    path = own.run.ensemble_dir("simplex") / "metrics.json"
    metrics = read_checked(path, advice="")
    metrics["cross_fitted"]["per_group"] |= {"rule": str(RULE), "fitted": RULE.as_mapping()}
    write_checked(path, metrics)
    ensemble = load_ensemble(own.run, method="simplex", device="cpu")
    sources = find_sources([str(slides)], group_pattern=r"(P\d+)_").sources
    done = predict_files(ensemble, sources, tmp_path / "p.csv")
    assert done.per_group is not None
    images, patients = read_csv(done.path), read_csv(done.per_group)
    names = [f"p_{c}" for c in ensemble.class_names]
    numbered = np.unique(images["group"], return_inverse=True)[1]
    want = RULE.apply(images[names].astype(float).to_numpy(), numbered)
    np.testing.assert_allclose(patients[names].astype(float).to_numpy(), want.proba, atol=1e-9)
    assert patients["predicted"].tolist() == [ensemble.class_names[c] for c in want.predicted]
    mean = images["p_benign"].astype(float).groupby(images["group"]).mean().to_numpy()
    assert np.abs(patients["p_benign"].astype(float).to_numpy() - mean).max() > 0.01


def test_stacked_with_votes_patients_are_pooled_by_votes(
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
