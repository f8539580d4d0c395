"""A tuning study on a fake GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run
from ensemble_kit.tune.tune_members import tune_members


def test_trials_train_and_are_evaluated_on_the_gpu(gpu: Any, trained: Any, tmp_path: Path) -> None:
    member = Member(
        "tiny_cnn", image_size=16, pretrained=False, recipe=Recipe(epochs=1, batch_size=16)
    )
    found = tune_members(
        [member], trained.manifest, trained.folds, Run(tmp_path), n_trials=2, prunes=False
    )
    assert np.isfinite([trial.loss for trial in found.members[0].trials]).all()
    assert gpu.waits, "nothing ran on the GPU"
