"""The facts of a model card: data, split, metrics, verdicts, members and licences of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.evaluation.runs.ensemble_folder import METRICS
from ensemble_kit.evaluation.runs.stored_ensembles import read_metrics
from ensemble_kit.files import read_json
from ensemble_kit.inference.bundle import DATA
from ensemble_kit.inference.stored_method import StoredMethod
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs import fold_files
from ensemble_kit.members.registry import timm_name
from ensemble_kit.run import Run

METRICS_SHOWN = ("balanced_accuracy", "accuracy", "auroc", "log_loss", "brier", "ece")
PARTS = {"cross_fitted": "cross-fitted", "test": "test part"}
UNKNOWN, NONE = "unknown", "none: trained from random weights"


def run_facts(run: Run, stored: StoredMethod, manifest: Manifest) -> dict[str, Any]:
    """The facts of a method of a run, as JSON values."""
    folder = run.ensemble_dir(stored.name)
    metrics = read_metrics(run, stored.name) if (folder / METRICS).is_file() else None
    folds = run.folds()
    return {
        "name": run.path.resolve().name,
        "method": stored.name,
        "class_names": list(stored.class_names),
        "group_kind": stored.group_kind,
        "positive": manifest.positive,
        "data": {"name": manifest.name, **data_settings_of(manifest)},
        "magnifications": _magnifications(manifest),
        "counts": manifest.counts().to_dict("records"),
        "split_by": folds.split_by,
        "n_folds": folds.n_splits,
        "metrics": {} if metrics is None else _metrics(metrics),
        "primary_metric": None if metrics is None else metrics["metric"],
        "verdicts": [] if metrics is None else [v["sentence"] for v in metrics["verdicts"]],
        "notes": list(
            dict.fromkeys(
                (
                    *run.notes(),
                    *stored.notes,
                    *stored.decision_notes,
                    *([] if metrics is None else metrics["notes"]),
                )
            )
        ),
        "members": [_member(run, name) for name in stored.member_names],
        "sets": None if stored.sets is None else {"alpha": stored.sets.alpha},
        "has_decision": stored.decision is not None,
        "versions": run.record["versions"],
    }


def data_settings_of(manifest: Manifest) -> dict[str, str]:
    """The settings by which images become tiles. Different values are joined by `and`."""
    found = {c: sorted(set(manifest.table[c].astype(str))) for c in DATA if c in manifest.table}
    return {column: " and ".join(words) for column, words in found.items()}


def _magnifications(manifest: Manifest) -> list[str]:
    if "magnification" not in manifest.table:
        return []
    return sorted(set(manifest.table["magnification"].astype(str)))


def _metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {
        part: {
            "n": metrics[part]["n"],
            "n_groups": metrics[part]["n_groups"],
            **{m: metrics[part][m] for m in METRICS_SHOWN if m in metrics[part]},
        }
        for part in PARTS
        if metrics[part]
    }


def _member(run: Run, name: str) -> dict[str, Any]:
    folds = sorted(run.store.read_index(name)["made_of"]["folds_done"])
    home = run.member_dir(name) / f"fold-{folds[0]}"
    record = fold_files.read_record(home)
    assert record is not None  # `load_ensemble` has opened the networks
    settings = record["made_of"]["member"]
    return {
        "name": name,
        "network": settings["network"],
        "image_size": settings["recipe"]["regularize"]["eval_size"] or settings["image_size"],
        "n_networks": len(folds),
        "weights_licence": _licence(settings, run.fold_dir(name, folds[0])),
    }


def _licence(settings: Mapping[str, Any], folder: Path) -> str:
    """The licence of the weights that training started from."""
    if settings["weights"]:
        return UNKNOWN
    if not settings["pretrained"]:
        return NONE
    stored = read_json(folder / "config.json")["pretrained_cfg"].get("license")
    if stored:
        return str(stored)
    import timm

    config = timm.get_pretrained_cfg(timm_name(settings["network"]))
    return str(config.license) if config is not None and config.license else UNKNOWN
