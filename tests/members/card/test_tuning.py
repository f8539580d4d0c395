"""A tuning study on a card, on one that is pretended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run
from ensemble_kit.tune.study import tune_member


def test_trials_train_and_are_judged_there(card: Any, trained: Any, tmp_path: Path) -> None:
    member = Member(
        "tiny_cnn", image_size=16, pretrained=False, recipe=Recipe(epochs=1, batch_size=16)
    )
    found = tune_member(
        member, trained.manifest.part("train"), Run(tmp_path), n_trials=2, device="auto"
    )
    assert np.isfinite([trial.value for trial in found.trials]).all()
    assert card.waits, "nothing ran on the card"
