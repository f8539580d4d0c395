"""Optuna's own plots of the studies, as PNG files in the run folder.

Draws; computes nothing of its own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.visualization import matplotlib as drawn

from ensemble_kit.files import atomic_write
from ensemble_kit.run import Run
from ensemble_kit.tune.stored import stored_studies
from ensemble_kit.tune.trials import ended, known_values

PLOTS: dict[str, Callable[[optuna.Study], Any]] = {
    "history": lambda study: drawn.plot_optimization_history(study, target_name="log loss"),
    "importances": lambda study: drawn.plot_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), target_name="log loss"
    ),
    "slice": lambda study: drawn.plot_slice(study, target_name="log loss"),
    "contour": lambda study: drawn.plot_contour(study, target_name="log loss"),
    "parallel": lambda study: drawn.plot_parallel_coordinate(study, target_name="log loss"),
}
# Fewer trials say nothing about importances, and a contour needs points around it.
FEWEST = 4


def draw_studies(run: Run, storage: str | None = None) -> list[Path]:
    """Draw every study of a run into `tuned/plots`; the paths of the files."""
    paths: list[Path] = []
    for name, study in stored_studies(run, storage).items():
        if len(known_values(ended(study))) >= FEWEST:
            paths += [_draw(run, name, study, plot) for plot in PLOTS]
    return paths


def _draw(run: Run, name: str, study: optuna.Study, plot: str) -> Path:
    from matplotlib import pyplot

    path = run.path / "tuned" / "plots" / f"{name}-{plot}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyplot.style.context("default"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = PLOTS[plot](study)
        figure = getattr(axes, "figure", None) or axes.flat[0].figure
        figure.suptitle(name)
        try:
            atomic_write(path, lambda file: figure.savefig(file, dpi=150, bbox_inches="tight"))
        finally:
            pyplot.close("all")
    return path
