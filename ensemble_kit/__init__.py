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
    "Augmentation": "images.presets",
    "with_stain_normalisation": "images.normalise",
    "build_tiles": "images.tiles",
    "Batches": "images.batches",
    "check_data": "audit.check",
    "infer_groups": "audit.groups",
    "Recipe": "members.recipe",
    "Optim": "members.recipe_tables",
    "Regularize": "members.recipe_tables",
    "Member": "members.member",
    "make_members": "members.short_form",
    "fit_members": "members.crossfit",
    "run_status": "members.status",
    "LocalEngine": "launch.local",
    "RayEngine": "launch.ray",
    "SlurmEngine": "launch.slurm",
    "tune_member": "tune.study",
    "Combiner": "combiners.base",
    "MajorityVote": "combiners.voting",
    "MeanProba": "combiners.averaging",
    "MeanLogits": "combiners.averaging",
    "MedianProba": "combiners.averaging",
    "TrimmedMeanProba": "combiners.averaging",
    "MaxProba": "combiners.averaging",
    "MinProba": "combiners.averaging",
    "ProductProba": "combiners.averaging",
    "BestMember": "combiners.bounds",
    "Oracle": "combiners.bounds",
    "SimplexWeights": "combiners.weighting",
    "ClasswiseWeights": "combiners.weighting",
    "GreedySelection": "combiners.selection",
    "KnoraUnion": "combiners.dynamic",
    "KnoraEliminate": "combiners.dynamic",
    "LocalAccuracy": "combiners.dynamic",
    "LocalClassAccuracy": "combiners.dynamic",
    "TemperatureScaled": "combiners.calibrated",
    "CalibratedMembers": "combiners.calibrated",
    "DirichletMembers": "combiners.calibrated",
    "LogisticStacker": "combiners.linear",
    "RidgeStacker": "combiners.linear",
    "BoostingStacker": "combiners.boosting",
    "MLPStacker": "combiners.stacking",
    "FeatureMLP": "combiners.feature_mlp",
    "TwoLayerStack": "combiners.layers",
    "make_combiner": "combiners",
    "load_combiner": "combiners.saved",
    "METRICS": "metrics",
    "metric": "metrics",
    "risk_coverage": "metrics.selective",
    "read_costs": "metrics.costs",
    "Protocol": "evaluation.protocol",
    "cross_fitted_proba": "evaluation.crossfit",
    "wilson_interval": "evaluation.significance",
    "mcnemar_exact": "evaluation.significance",
    "delong": "evaluation.significance",
    "nadeau_bengio": "evaluation.significance",
    "holm": "evaluation.significance",
    "metric_interval": "evaluation.from_arrays",
    "compare_predictions": "evaluation.from_arrays",
    "net_benefit": "evaluation.from_arrays",
    "ClinicalOptions": "evaluation.clinical",
    "evaluate": "evaluation.evaluate",
    "evaluate_all": "evaluation.evaluate",
    "compare": "evaluation.compare",
    "null_check": "evaluation.null",
    "stack_run": "evaluation.stack",
    "compare_runs": "evaluation.across_runs",
    "compare_repeats": "evaluation.repeats",
    "import_predictions": "evaluation.imported",
    "verify_claim": "evaluation.claims",
    "pareto_table": "evaluation.costs",
    "study_members": "evaluation.members",
    "member_values": "evaluation.contribution",
    "inflation": "evaluation.inflation",
    "conformal_sets": "evaluation.prediction_sets",
    "SetOptions": "evaluation.set_figures",
    "operating_point": "evaluation.operating_point",
    "DecisionOptions": "evaluation.operating_point",
    "Aim": "evaluation.thresholds",
    "Referral": "evaluation.thresholds",
    "write_report": "report.page",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ensemble_kit' has no attribute '{name}'")
    return getattr(importlib.import_module(f"ensemble_kit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
