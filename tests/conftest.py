"""Fixtures that several rooms share; knows where real images may lie, and that they may not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder of real images: ENSEMBLE_KIT_DATA, or `../shared/data` beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ENSEMBLE_KIT_DATA", beside))
    if not (folder / "BreaKHis_v1").is_dir():
        pytest.skip("no real images here: set ENSEMBLE_KIT_DATA to their folder")
    return folder
