"""A small table of out-of-fold predictions."""

from __future__ import annotations

import dataclasses

import pytest

from ensemble_kit.predictions.table import Predictions
from ensemble_kit.testing import toy_predictions


@pytest.fixture
def table() -> Predictions:
    return dataclasses.replace(toy_predictions(n_samples=90, n_members=4), manifest_digest="m")
