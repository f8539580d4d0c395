"""Ensembles of image classifiers: trained and evaluated by patient, without leakage.

Names load on first use: `import ensemble_kit as ek` is fast, and combiners never load torch.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

# Public name -> its module, in the order of the steps of a project.
_HOME = {
    "EnsembleKitError": "errors",
    "DataError": "errors",
    "IntegrityError": "errors",
    "Manifest": "manifest.table",
    "read_manifest": "manifest.layouts.detect",
    "Folds": "folds",
    "hold_out": "folds",
    "make_folds": "folds",
    "Predictions": "predictions.table",
    "PredictionStore": "predictions.store",
    "Run": "run",
    "Augmentation": "images.augmentation.presets",
    "with_stain_normalisation": "images.stain_normalization",
    "build_tiles": "images.tiles.build",
    "Batches": "images.loading.batches",
    "check_data": "audit.check",
    "infer_groups": "audit.groups",
    "Recipe": "members.recipe",
    "Optim": "members.recipe_sections",
    "Regularize": "members.recipe_sections",
    "Member": "members.member",
    "make_members": "members.spec_string",
    "fit_members": "members.fit_members",
    "run_status": "members.jobs.status",
    "LocalEngine": "launch.local",
    "RayEngine": "launch.ray",
    "SlurmEngine": "launch.slurm",
    "tune_members": "tune.tune_members",
    "Combiner": "combiners.base",
    "make_combiner": "combiners",
    "load_combiner": "combiners.saved",
    "METRICS": "metrics",
    "metric": "metrics",
    "risk_coverage": "metrics.selective",
    "read_costs": "metrics.costs",
    "Protocol": "evaluation.protocol",
    "cross_fitted_proba": "evaluation.cross_validation.cross_fit",
    "wilson_interval": "evaluation.uncertainty.hypothesis_tests",
    "mcnemar_exact": "evaluation.uncertainty.hypothesis_tests",
    "delong": "evaluation.uncertainty.hypothesis_tests",
    "nadeau_bengio": "evaluation.uncertainty.hypothesis_tests",
    "holm": "evaluation.uncertainty.hypothesis_tests",
    "metric_interval": "evaluation.from_arrays",
    "compare_predictions": "evaluation.from_arrays",
    "net_benefit": "evaluation.from_arrays",
    "ClinicalOptions": "evaluation.clinical.block",
    "evaluate": "evaluation.evaluate",
    "evaluate_all": "evaluation.evaluate",
    "compare": "evaluation.compare",
    "permutation_test": "evaluation.permutation_test",
    "stack_run": "evaluation.runs.stack_run",
    "compare_runs": "evaluation.runs.compare_runs",
    "compare_repeats": "evaluation.runs.repeated_cv",
    "import_predictions": "evaluation.imports.import_predictions",
    "verify_claim": "evaluation.grim",
    "pareto_table": "evaluation.diversity.pareto",
    "study_members": "evaluation.diversity.member_study",
    "member_values": "evaluation.diversity.shapley",
    "image_split_bias": "evaluation.runs.image_split_bias",
    "conformal_sets": "evaluation.runs.prediction_sets",
    "SetOptions": "evaluation.decisions.set_coverage",
    "operating_point": "evaluation.runs.operating_point",
    "DecisionOptions": "evaluation.runs.operating_point",
    "ThresholdTarget": "evaluation.decisions.thresholds",
    "RejectOption": "evaluation.decisions.thresholds",
    "load_ensemble": "inference.ensemble",
    "export_bundle": "export.bundle",
    "write_report": "report.page",
    "explain": "explanation.explain",
}

# `dir(ek)` lists the main steps of a project, then namespaces for everything else.
_SHOWN = (
    "read_manifest", "make_folds", "Member", "Recipe", "fit_members", "tune_members", "Run",
    "Predictions", "evaluate", "compare", "stack_run", "load_ensemble", "explain", "write_report",
    "EnsembleKitError",
)  # fmt: skip
_NAMESPACES = {
    "decisions": (
        "operating_point", "DecisionOptions", "ThresholdTarget", "RejectOption", "conformal_sets", "SetOptions",
        "net_benefit", "read_costs",
    ),
    "diversity": ("study_members", "member_values", "pareto_table"),
    "engines": ("LocalEngine", "RayEngine", "SlurmEngine", "run_status"),
    "uncertainty": (
        "metric_interval", "compare_predictions", "permutation_test", "wilson_interval",
        "mcnemar_exact", "delong", "nadeau_bengio", "holm", "verify_claim",
    ),
}  # fmt: skip
_PACKAGES = ("combiners", "folds", "metrics", "testing")

__all__ = [*_HOME, *_NAMESPACES, *_PACKAGES]


class _Namespace(ModuleType):
    """Names of one purpose, loaded on first use."""

    def __getattr__(self, name: str) -> Any:
        if name not in _NAMESPACES[self.__name__]:
            raise AttributeError(f"'ek.{self.__name__}' has no '{name}'")
        return getattr(importlib.import_module(f"ensemble_kit.{_HOME[name]}"), name)

    def __dir__(self) -> list[str]:
        return sorted(_NAMESPACES[self.__name__])


def __getattr__(name: str) -> Any:
    if name in _NAMESPACES:
        return _Namespace(name)
    if name in _PACKAGES:
        return importlib.import_module(f"ensemble_kit.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"ensemble_kit.{_HOME[name]}"), name)
    if name[:1].isupper():  # a class of combiners
        return getattr(importlib.import_module("ensemble_kit.combiners"), name)
    raise AttributeError(f"module 'ensemble_kit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*_SHOWN, *_NAMESPACES, *_PACKAGES, "__version__"])
