"""Members with different inputs reproduce the run's predictions of its test part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.inference.ensemble import load_ensemble
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.spec_string import make_members
from ensemble_kit.run import Run

SPECS = [
    "tiny_cnn:size=16:color=hed:stain_norm=reinhard:tta=dihedral",
    "tiny_cnn:size=16:eval_size=24:color=grayscale",
    "tiny_cnn:size=16:schedule=cyclic:snapshots=2",
]


@pytest.fixture(scope="module")
def varied(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Members that differ in size, colour, stain normalisation, TTA views, head and weights."""
    run = Run(tmp_path_factory.mktemp("varied") / "run")
    common = ":pretrained=false:epochs=2:batch_size=16"
    members = make_members([f"{one}{common}" for one in SPECS])
    members[1] = members[1].model_copy(update={"head": (8,)})
    fit_members(members, trained.manifest, trained.folds, run, device="cpu")
    return run


def test_each_member_gives_the_stored_logits_of_the_test_part(varied: Run, trained: Any) -> None:
    table, part = varied.predictions("test"), trained.manifest.part("test")
    ensemble = load_ensemble(varied, method="mean", device="cpu")
    assert len(ensemble.member_names) == 4
    assert set(ensemble.specs) == {TileSpec(16), TileSpec(24), TileSpec(16, None, "reinhard")}
    found = ensemble.predict_all([part.root / path for path in part.table["path"]])
    for m, name in enumerate(ensemble.member_names):
        logits = table.logits[:, table.member_names.index(name)]
        want = np.exp(logits - logits.max(axis=1, keepdims=True))
        want /= want.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(found.member_proba[:, m], want, atol=1e-5, err_msg=name)


def test_each_image_is_decoded_once_for_all_members(
    varied: Run, slides: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ensemble_kit.inference import sources

    read, real = [], sources.read_image

    def counted(root: Any, path: str) -> Any:
        read.append(path)
        return real(root, path)

    monkeypatch.setattr(sources, "read_image", counted)
    load_ensemble(varied, method="mean", device="cpu").predict(sorted(slides.glob("benign/P00*")))
    assert sorted(read) == [f"P00_{i}.png" for i in range(4)]
