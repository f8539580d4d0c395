"""The data of an experiment by its settings: the manifest, the test part and the folds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kit.audit.check import quick_check
from ensemble_kit.audit.findings import Finding
from ensemble_kit.audit.groups import infer_groups
from ensemble_kit.errors import DataError
from ensemble_kit.experiment import Experiment
from ensemble_kit.files import cache_folder, digest_json
from ensemble_kit.folds import Folds, hold_out, hold_out_groups, make_folds, read_splits
from ensemble_kit.folds.conflicting_settings import ignored_settings, refuse_ignored
from ensemble_kit.folds.own_split import validation_as_test, validation_note, without_split
from ensemble_kit.images.digests import with_digests
from ensemble_kit.images.skip_unreadable import without_unreadable
from ensemble_kit.images.stain_normalization import with_stain_normalisation
from ensemble_kit.manifest.class_order import with_class_order
from ensemble_kit.manifest.data_settings import UNKNOWN, DataSettings
from ensemble_kit.manifest.layouts.detect import read_manifest
from ensemble_kit.manifest.phantom.write import write_phantom
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.run.records import folds_as_made

# Findings of the data check that are already in the notes of the split.
SHOWN_FINDINGS = ("few-groups", "no-groups", "imbalance")
PHANTOM: dict[str, Any] = {"n_patients": 80, "images_per_patient": 6, "image_size": 128, "seed": 0}


def prepare(experiment: Experiment) -> tuple[Manifest, Folds]:
    """The manifest with its test part, and the folds of its training part.

    A run that exists keeps its split: the same settings give the same split.

    Raises
    ------
    DataError
        The data are invalid, there are too few groups, or a class cannot be split.
    UsageError
        A setting of the split would be ignored because of another setting.
    """
    data = experiment.data
    refuse_ignored(data, ignored_settings(data))
    whole = read_data(data)
    manifest, folds = _parted(_prepared(whole, data), whole, experiment)
    found = [
        f
        for f in quick_check(manifest).findings
        if f.severity != "note" and f.kind not in SHOWN_FINDINGS
    ]
    manifest = manifest.with_notes(*(_text_of(f) for f in found))
    if folds is not None:
        return manifest, folds_as_made(experiment.run_path, folds, data.split_by)
    seed = experiment.seed if data.fold_seed is None else data.fold_seed
    return manifest, make_folds(manifest, data.folds, seed=seed, by=data.split_by)


def _text_of(finding: Finding) -> str:
    examples = f" ({'; '.join(finding.examples[:2])})" if finding.examples else ""
    return f"Data check: {finding.message}{examples}"


def _prepared(manifest: Manifest, data: DataSettings) -> Manifest:
    if data.on_bad_image == "skip":
        manifest = without_unreadable(manifest, max_bad=data.max_bad)
    if data.infer_groups:
        manifest = infer_groups(manifest)
    if data.stain_norm != "none":
        manifest = with_stain_normalisation(manifest, data.stain_norm)
    return with_digests(manifest)


def _parted(
    manifest: Manifest, whole: Manifest, experiment: Experiment
) -> tuple[Manifest, Folds | None]:
    """The manifest with its test part, and the user's folds if given; `whole` has all images."""
    data = experiment.data
    if data.splits:
        left_out = whole.take(~np.isin(whole.sample_ids, manifest.sample_ids))
        parted, folds = read_splits(data.splits, manifest, by=data.split_by, left_out=left_out)
        return _read_as(parted, f"split: the table '{data.splits}'"), folds
    if data.test_groups:
        held_out = hold_out_groups(manifest, data.test_groups, by=data.split_by)
        return _read_as(held_out, "test part: test_groups"), None
    if data.test_part == "valid":
        refuse_ignored(data, {"test_size": "test_part"})
        parted = validation_as_test(manifest, by=data.split_by)
        return _read_as(parted, "test part: the validation images"), None
    if data.test_part == "drawn":
        manifest = without_split(manifest)
    if len(manifest.part("test")):
        cause = "the test part of the data (to replace it: --test-part drawn)"
        refuse_ignored(data, {"test_size": cause})
        return _read_as(manifest, "test part: as in the data"), None
    parted = hold_out(manifest, test_size=data.test_size, seed=experiment.seed, by=data.split_by)
    requested = () if data.test_part == "drawn" else validation_note(manifest)
    text = f"test part: random, about {data.test_size:.0%} of each class"
    return _read_as(parted.with_notes(*requested), text), None


def _read_as(manifest: Manifest, test_part: str) -> Manifest:
    layout = f"{manifest.layout}; {test_part}" if manifest.layout else test_part
    return dataclasses.replace(manifest, layout=layout)


def read_data(data: DataSettings) -> Manifest:
    """The manifest of the settings' data, its classes in the order of the settings.

    Raises
    ------
    DataError
        The data cannot be read, or `classes` differ from those of the data.
    """
    return with_class_order(
        _as_recognised(data), data.classes, ordinal=data.ordinal, positive=data.positive
    )


def _as_recognised(data: DataSettings) -> Manifest:
    """The manifest of the reader; a phantom is first written into the cache folder."""
    if data.path == UNKNOWN:
        raise DataError(
            "No --data was given, and the settings of this run have no path of the data",
            "a run of imported predictions, or one that was made from Python, needs --data",
            "Give the data of the run: --data DATA; or name another run: --run DIR",
        )
    if data.path == "digits":
        return Manifest.from_digits(**data.reader_options())
    path = Path(data.path)
    if data.path == "phantom":
        path = write_phantom(cache_folder() / f"phantom-{digest_json(PHANTOM)[:8]}", **PHANTOM)
    # A split that is replaced, or by image on purpose, may have groups on both sides.
    straddling = bool(
        data.split_by == "image" or data.splits or data.test_groups or data.test_part == "drawn"
    )
    return read_manifest(path, straddling=straddling, **data.reader_options())
