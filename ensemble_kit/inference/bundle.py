"""Reading a bundle: its method, networks and data settings, each checked against the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from ensemble_kit.arrays import Array
from ensemble_kit.combiners.saved import unpacked
from ensemble_kit.errors import EnsembleKitError, IntegrityError
from ensemble_kit.evaluation.decisions.conformal import ConformalSets
from ensemble_kit.evaluation.decisions.threshold_rules import Threshold
from ensemble_kit.inference.bundle_files import AGAIN, ODD_PARTS, BundleFiles
from ensemble_kit.inference.fold_networks import (
    FoldNetwork,
    MemberNetworks,
    member_of,
    trained_network,
)
from ensemble_kit.inference.image_caveats import KnownImages
from ensemble_kit.inference.pooling import Pooling
from ensemble_kit.inference.stored_decisions import StoredDecision, StoredSets
from ensemble_kit.inference.stored_method import StoredMethod
from ensemble_kit.manifest.table import Manifest

COMBINER_ARRAYS = "combiner.safetensors"
# Columns of a manifest that decide how an image becomes a tile.
DATA = ("join", "color", "stain_norm", "stain")
# Exceptions of parts that were edited by hand.
_FAULTS = (EnsembleKitError, SafetensorError, RuntimeError, *ODD_PARTS)
EDITED = "The model card of this bundle was edited after the export. Predictions do not use it."


@dataclasses.dataclass(frozen=True, eq=False)
class BundleParts:
    """The parts of an ensemble.

    Parameters
    ----------
    stored : StoredMethod
    members : tuple of MemberNetworks
        Empty if the networks are not opened.
    manifest : Manifest
        One row with the data settings. Its image does not exist.
    """

    stored: StoredMethod
    members: tuple[MemberNetworks, ...]
    manifest: Manifest


def read_bundle(files: BundleFiles, device: torch.device | None) -> BundleParts:
    """The parts of a bundle. Without a device the networks are not opened.

    Raises
    ------
    IntegrityError
        A file is damaged, or the parts do not belong together.
    """
    try:
        manifest = data_settings(files.record)
        stored = _method(files)
        members = [] if device is None else _members(files, manifest, device)
        if stored.combiner.needs_features and len({tuple(one.by_fold) for one in members}) > 1:
            raise ValueError("its members have networks of different folds")
        return BundleParts(stored, tuple(members), manifest)
    except IntegrityError:
        raise
    except _FAULTS as error:
        raise IntegrityError(
            f"The bundle '{files.path}' cannot be opened",
            f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}",
            AGAIN,
        ) from error


def data_settings(record: Mapping[str, Any]) -> Manifest:
    """A manifest of one row with the settings by which images become tiles."""
    first, *others = record["class_names"]
    data = {key: record["data"][key] for key in DATA if key in record["data"]}
    columns = ("sample_id", "path", "label", "group", "split", "pair_path", *data)
    row = ("image", "image", first, "group", "train", "pair", *data.values())
    return Manifest.from_records(
        [row],
        columns=columns,
        class_names=record["class_names"],
        absent=others,
        group_kind=record["group_kind"],
        ordinal=bool(record["ordinal"]),
        name=record["data"]["name"],
        positive=record["positive"],
    )


def known_images(record: Mapping[str, Any]) -> KnownImages:
    """The digests of the run's images. An image that trained the networks gets a caveat."""
    known = record.get("known_images") or {"digests": {}, "magnifications": []}
    return KnownImages(
        dict(known["digests"]), bool(known["digests"]), frozenset(known["magnifications"])
    )


def known_json(manifest: Manifest) -> dict[str, Any]:
    """The digests and splits of the run's images, as a bundle stores them."""
    table, known = manifest.table, KnownImages.of(manifest)
    digests = dict(zip(table["sha256"], table["split"], strict=True)) if "sha256" in table else {}
    return {"digests": digests, "magnifications": sorted(known.magnifications)}


def _method(files: BundleFiles) -> StoredMethod:
    record = files.record
    combiner = record["combiner"]
    names, members = tuple(record["class_names"]), tuple(m["name"] for m in record["members"])
    _refuse_other_classes(files, combiner["class_names"], "the combiner")
    arrays = files.read(COMBINER_ARRAYS) if combiner["arrays"] else None
    fitted = unpacked(combiner, arrays)
    if (fitted.n_members_, len(fitted.classes_)) != (len(members), len(names)):
        raise IntegrityError(
            f"The combiner of '{files.path}' does not fit the bundle",
            f"it combines {fitted.n_members_} members and {len(fitted.classes_)} classes; "
            f"the bundle has {len(members)} members and {len(names)} classes",
            AGAIN,
        )
    return StoredMethod(
        name=record["method"],
        class_names=names,
        member_names=members,
        combiner=fitted,
        costs=None if record["costs"] is None else np.array(record["costs"], dtype=np.float64),
        sets=_sets(record["sets"], names),
        decision=_decision(record["decision"], names),
        group_kind=record["group_kind"],
        made_of=record["made_of"],
        pooling=Pooling.from_mapping(record.get("pooling", {})),
        notes=(*record["notes"], *((EDITED,) if files.card_changed else ())),
    )


def _sets(stored: Mapping[str, Any] | None, names: Sequence[str]) -> StoredSets | None:
    if stored is None:
        return None
    limits = [np.inf if (one := stored["thresholds"][c]) is None else one for c in names]
    return StoredSets(ConformalSets(stored["score"], np.array(limits)), float(stored["alpha"]))


def _decision(stored: Mapping[str, Any] | None, names: Sequence[str]) -> StoredDecision | None:
    if stored is None:
        return None
    target = None if stored["class"] is None else names.index(stored["class"])
    points = {unit: Threshold(**one) for unit, one in stored["units"].items()}
    return StoredDecision(target, points)


def _members(files: BundleFiles, manifest: Manifest, device: torch.device) -> list[MemberNetworks]:
    return [_member(files, one, manifest, device) for one in files.record["members"]]


def _member(
    files: BundleFiles, about: Mapping[str, Any], manifest: Manifest, device: torch.device
) -> MemberNetworks:
    member = member_of(about["settings"])
    opened: dict[int, FoldNetwork] = {}
    for one in about["networks"]:
        _refuse_other_classes(files, one["outputs"], one["weights"], any_order=True)
        opened[int(one["fold"])] = trained_network(
            member,
            files.read(one["weights"]),
            manifest,
            mean=one["mean"],
            std=one["std"],
            by_name=np.array([one["outputs"].index(c) for c in manifest.class_names]),
            device=device,
            like=next(iter(opened.values()), None),
        )
    if not opened or len(opened) < len(about["networks"]):
        raise IntegrityError(
            f"The bundle '{files.path}' has no network of the member '{about['name']}', or two of one fold",
            "each member has at least one, and one for each fold",
            AGAIN,
        )
    return MemberNetworks(about["name"], opened)


def _refuse_other_classes(
    files: BundleFiles, found: Sequence[str], whose: str, *, any_order: bool = False
) -> None:
    """Refuse other class names. The combiner's classes must also have the bundle's order."""
    wanted = list(files.record["class_names"])
    same = sorted(found) == sorted(wanted) if any_order else list(found) == wanted
    if not same:
        raise IntegrityError(
            f"The classes of '{files.path}' do not agree",
            f"{whose} has {', '.join(found)}; the bundle has {', '.join(wanted)}",
            AGAIN,
        )


def sets_json(sets: StoredSets | None, names: Sequence[str]) -> dict[str, Any] | None:
    """Prediction sets as a bundle stores them. An infinite threshold becomes null."""
    if sets is None:
        return None
    limits: Array = sets.rule.thresholds
    by_class = {c: float(t) if np.isfinite(t) else None for c, t in zip(names, limits, strict=True)}
    return {"score": sets.rule.score, "alpha": sets.alpha, "thresholds": by_class}


def decision_json(decision: StoredDecision | None, names: Sequence[str]) -> dict[str, Any] | None:
    """An operating point as a bundle stores it."""
    if decision is None:
        return None
    return {
        "class": None if decision.target is None else names[decision.target],
        "units": {unit: dataclasses.asdict(point) for unit, point in decision.points.items()},
    }
