"""A server of the stacked run, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.inference.ensemble import Ensemble, load_ensemble

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from ensemble_kit.serve.app import make_app
from ensemble_kit.serve.limits import Limits

LIMITS = Limits(max_bytes=100_000, max_pixels=100_000, seconds=20, max_images=4)


@pytest.fixture(scope="session")
def served(stacked: Any) -> Ensemble:
    return load_ensemble(stacked.run, method="simplex", device="cpu")


@pytest.fixture(scope="session")
def client(served: Ensemble) -> Iterator[TestClient]:
    app = make_app(served, LIMITS)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as one:  # type: ignore[arg-type]
        yield one


@pytest.fixture(scope="session")
def image(slides: Path) -> bytes:
    return (slides / "benign" / "P00_0.png").read_bytes()
