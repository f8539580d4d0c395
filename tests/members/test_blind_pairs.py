"""In nested cross-validation, no model and no combiner uses the fold on which it is evaluated.

Jobs are real, networks are not: the logits of each model encode the folds that it used.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.evaluation.cross_validation.cross_fit import cross_fit
from ensemble_kit.evaluation.cross_validation.nested import nested_predictions
from ensemble_kit.folds import make_folds
from ensemble_kit.images.digests import with_digests
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs import engine
from ensemble_kit.members.jobs.fold_files import write_fold
from ensemble_kit.members.jobs.job import Job
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.metrics import metric
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.store import MemberLogits
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run
from ensemble_kit.run.nested import nested_folds
from ensemble_kit.testing import toy_predictions

STEP = 10.0


def job_with_traceable_logits(job: Job, listener: Any) -> None:
    """A job whose logits encode the used folds (one class per fold) and the number of the row."""
    train = job.manifest.part("train")
    place = job.tiles.rows(train.sample_ids).tolist()
    fold = dict(zip(place, job.folds.of(train).tolist(), strict=True))
    number = {p: i for i, p in enumerate(place)}
    parts = job.parts()
    used_rows = [parts.fit.train]
    if job.member.recipe.select_on != "none":
        used_rows.append(parts.fit.validation)
    seen_folds = np.zeros(job.folds.n_splits)
    seen_folds[[fold[p] for p in np.concatenate(used_rows).tolist()]] = 1.0
    held_out = np.array(
        [seen_folds + STEP * number[p] for p in parts.held_out.tolist()], dtype=np.float32
    )
    test = np.tile(seen_folds, (len(parts.test), 1)).astype(np.float32)
    for name in ("model.safetensors", "config.json"):
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / name).write_bytes(b"")
    write_fold(
        job.folder, oof=held_out, test=test, history=[{"epoch": 0}], recipe={},
        record={"seconds": 1.0, "device": "cpu", "precision": "fp32"}, made_of=job.made_of,
    )  # fmt: skip


class Spy(Combiner):
    """Records the logits of `fit` and of `combine`."""

    is_fitted_to_labels = True
    fitted_to: ClassVar[list[Any]] = []
    combined: ClassVar[list[Any]] = []

    def _fit(self, logits, labels, groups) -> None:
        Spy.fitted_to.append(logits)

    def _combine(self, logits) -> Combined:
        Spy.combined.append(logits)
        return decided(np.full((len(logits), logits.shape[2]), 1 / logits.shape[2]))


def decoded(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers (n,), and the share of models that used each fold, (n, n_folds)."""
    rows = np.floor(logits.min(axis=(1, 2)) / STEP + 1e-4).astype(int)
    return rows, (logits - STEP * rows[:, None, None]).max(axis=1)


@pytest.mark.parametrize("select_on", ["none", "inner"])
def test_no_row_is_predicted_by_or_fitted_on_a_model_that_saw_its_outer_fold(
    paint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, select_on: str
) -> None:
    n_folds = 4
    slides = paint(tmp_path / "s", n_patients=12, n_images=2, classes=("a", "b", "c", "d"))
    manifest = with_digests(Manifest.from_folders(slides, group_pattern=r"(P\d+)_"))
    folds = make_folds(manifest, n_folds, seed=0)
    run = Run(tmp_path / "run")
    monkeypatch.setattr(engine, "run_job", job_with_traceable_logits)
    recipe = Recipe(epochs=2, select_on=select_on)
    member = Member("tiny_cnn", image_size=16, pretrained=False, recipe=recipe)
    other = member.model_copy(update={"name": "other"})
    fit_members([member, other], manifest, folds, run, device="cpu", nested=True)
    oof, nested = run.predictions("oof"), run.nested_predictions()
    fold = folds.of(manifest)
    assert [one.fold for one in nested] == [0, 1, 2, 3]
    for one in nested:
        k = one.fold
        # Every row is in the right place and predicted by the right models.
        for table, inside in ((one.inner, False), (one.outer, True)):
            rows, seen = decoded(table.logits)
            assert table.sample_ids.tolist() == manifest.sample_ids[rows].tolist()
            assert table.labels.tolist() == manifest.labels[rows].tolist()
            assert ((fold[rows] == k) == inside).all()
            want = np.ones((len(rows), n_folds))
            if inside:
                want *= (n_folds - 2) / (n_folds - 1)
            else:
                want[np.arange(len(rows)), fold[rows]] = 0.0
            want[:, k] = 0.0
            np.testing.assert_allclose(seen, want, atol=1e-3)
        # All fits and predictions, also for the fallback, did not use fold k.
        Spy.fitted_to, Spy.combined = [], []
        combiners = {"spy": Spy(), "mean": MeanProba()}
        evaluated = oof.take(oof.fold == k)
        nested_predictions(
            combiners, [one], evaluated, fallback_candidates=["spy"], metric=metric("accuracy")
        )
        assert len(Spy.fitted_to) == 1 + (n_folds - 1)
        for logits in Spy.fitted_to:
            rows, seen = decoded(logits)
            assert not (fold[rows] == k).any()
            assert (seen[:, k] < 1e-3).all()
        for logits in Spy.combined:
            assert (decoded(logits)[1][:, k] < 1e-3).all()
    # Plain cross-fitting does use the evaluated fold.
    Spy.fitted_to = []
    cross_fit(Spy(), oof)
    assert all((decoded(logits)[1].max(axis=0) > 0.9).all() for logits in Spy.fitted_to)


def test_nested_tables_replace_all_outputs_of_members() -> None:
    # New outputs of models in a table, such as features, must be replaced in `run.nested` too:
    # those of the out-of-fold table come from models that used the outer fold.
    of_rows = {"sample_ids", "labels", "groups", "fold"}
    of_table = {"member_names", "class_names", "kind", "split_by", "group_kind", "manifest_digest", "ordinal", "notes", "quorum"}  # fmt: skip
    held = {field.name for field in dataclasses.fields(Predictions)}
    assert held - of_rows - of_table == {"logits", "features"}
    oof = toy_predictions(60, 2, 2, n_groups=12, n_folds=3, n_features=4)
    assert oof.features is not None
    index = {"pairs_done": ["0-1", "0-2", "1-2"]}
    stored = {
        name: MemberLogits(
            oof=oof.logits[:, m], test={}, train_ids=tuple(oof.sample_ids.tolist()), test_ids=(),
            class_names=oof.class_names, about=index, nested=np.zeros((3, 60, 2), np.float32),
        )
        for m, name in enumerate(oof.member_names)
    }  # fmt: skip
    folds = types.SimpleNamespace(n_splits=3)
    for one in nested_folds(stored, oof, folds, Path("run")):
        assert (one.inner.features, one.outer.features) == (None, None)
