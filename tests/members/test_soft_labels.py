"""Training on soft labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.manifest.soft_labels import soft_columns
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run


def trained_on(
    manifest: Manifest, trained: Any, folder: Path, **recipe: Any
) -> np.ndarray[Any, Any]:
    member = Member(
        "tiny_cnn", image_size=16, pretrained=False,
        recipe=Recipe(epochs=2, batch_size=16, learning_rate=3e-3, **recipe),
    )  # fmt: skip
    run = Run(folder)
    fit_members([member], manifest, trained.folds, run, device="cpu", tensorboard=False)
    return run.predictions("test").logits[:, 0]


def with_soft(manifest: Manifest, proba: Any) -> Manifest:
    return manifest.with_columns(**soft_columns(proba, manifest.class_names))


@pytest.mark.parametrize("regularize", [{}, {"mixup": 0.4}])
def test_one_hot_soft_labels_train_like_labels(
    trained: Any, tmp_path: Path, regularize: dict[str, float]
) -> None:
    one_hot = np.eye(2)[trained.manifest.labels]
    hard = trained_on(trained.manifest, trained, tmp_path / "hard", regularize=regularize)
    soft = trained_on(
        with_soft(trained.manifest, one_hot), trained, tmp_path / "soft", regularize=regularize
    )
    np.testing.assert_allclose(soft, hard, atol=1e-4)


def test_soft_labels_replace_the_labels(trained: Any, tmp_path: Path) -> None:
    other = np.eye(2)[1 - trained.manifest.labels] * 0.8 + 0.1
    plain = trained_on(trained.manifest, trained, tmp_path / "plain", select_on="none")
    turned = trained_on(with_soft(trained.manifest, other), trained, tmp_path / "t", select_on="none")  # fmt: skip
    labels = trained.manifest.part("test").labels
    assert (plain.argmax(axis=1) == labels).mean() > 0.6
    assert (turned.argmax(axis=1) == labels).mean() < 0.4
