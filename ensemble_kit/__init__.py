"""Ensembles of image classifiers: trained over patient-safe folds, combined, and judged without leaks.

Names load on first use, so that `import ensemble_kit as ek` costs nothing and combining never
loads torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public names in the order of the line: where each one lives.
_HOME = {
    "EnsembleKitError": "errors",
    "DataError": "errors",
    "IntegrityError": "errors",
    "Manifest": "manifest.table",
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
    "MajorityVote": "combiners.rules.voting",
    "MeanProba": "combiners.rules.averaging",
    "MeanLogits": "combiners.rules.averaging",
    "MedianProba": "combiners.rules.averaging",
    "TrimmedMeanProba": "combiners.rules.averaging",
    "MaxProba": "combiners.rules.averaging",
    "MinProba": "combiners.rules.averaging",
    "ProductProba": "combiners.rules.averaging",
    "BestMember": "combiners.baselines",
    "Oracle": "combiners.baselines",
    "SimplexWeights": "combiners.weights.simplex",
    "ClasswiseWeights": "combiners.weights.simplex",
    "GreedySelection": "combiners.weights.greedy_selection",
    "KnoraUnion": "combiners.dynamic_selection",
    "KnoraEliminate": "combiners.dynamic_selection",
    "LocalAccuracy": "combiners.dynamic_selection",
    "LocalClassAccuracy": "combiners.dynamic_selection",
    "TemperatureScaled": "combiners.calibrated",
    "CalibratedMembers": "combiners.calibrated",
    "DirichletMembers": "combiners.calibrated",
    "LogisticStacker": "combiners.stacking.linear",
    "RidgeStacker": "combiners.stacking.linear",
    "BoostingStacker": "combiners.stacking.boosting",
    "MLPStacker": "combiners.stacking.mlp",
    "FeatureMLP": "combiners.stacking.feature_mlp",
    "PooledMLP": "combiners.stacking.pooled_mlp",
    "TwoLayerStack": "combiners.stacking.super_learner",
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
    "inflation": "evaluation.runs.split_inflation",
    "conformal_sets": "evaluation.runs.prediction_sets",
    "SetOptions": "evaluation.decisions.set_coverage",
    "operating_point": "evaluation.runs.operating_point",
    "DecisionOptions": "evaluation.runs.operating_point",
    "Aim": "evaluation.decisions.thresholds",
    "Referral": "evaluation.decisions.thresholds",
    "load_ensemble": "inference.ensemble",
    "export_bundle": "export.bundle",
    "write_report": "report.page",
    "explain": "explanation.explain",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ensemble_kit' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ensemble_kit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
