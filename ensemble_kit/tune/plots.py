"""Optuna's plots of the studies, as PNG files in the run folder, with plain axis labels."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.visualization import matplotlib as drawn

from ensemble_kit.atomic_write import atomic_write
from ensemble_kit.run import Run
from ensemble_kit.tune.stored import stored_studies
from ensemble_kit.tune.trials import OUTCOME, PRUNED, ended, known_values

LOSS, LOG2 = "log loss", "_log2"
PLOTS: dict[str, Callable[[optuna.Study], Any]] = {
    "history": lambda study: drawn.plot_optimization_history(study, target_name=LOSS),
    "importances": lambda study: drawn.plot_param_importances(
        study, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), target_name=LOSS
    ),
    "slice": lambda study: drawn.plot_slice(study, target_name=LOSS),
    "contour": lambda study: drawn.plot_contour(study, params=_two(study), target_name=LOSS),
    "parallel": lambda study: drawn.plot_parallel_coordinate(study, target_name=LOSS),
}
# Importances and contours need at least this number of trials.
FEWEST = 4
OF_SEVERAL = ("importances", "contour", "parallel")


def draw_studies(run: Run, storage: str | None = None) -> list[Path]:
    """Draw every study of a run into `tuned/plots`; return the paths of the files."""
    paths: list[Path] = []
    for name, study in stored_studies(run, storage).items():
        if len(known_values(ended(study))) >= FEWEST:
            alone = len(_two(study)) < 2
            plots = [plot for plot in PLOTS if not (alone and plot in OF_SEVERAL)]
            paths += [_draw(run, name, study, plot) for plot in plots]
    return paths


def _draw(run: Run, name: str, study: optuna.Study, plot: str) -> Path:
    from matplotlib import pyplot

    path = run.path / "tuned" / "plots" / f"{name}-{plot}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with pyplot.style.context("default"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = PLOTS[plot](study)
        figure = getattr(axes, "figure", None) or axes.flat[0].figure
        if plot == "history":
            _mark_pruned(figure.axes[0], study)
        if plot == "parallel":
            _tidy_parallel(figure)
        _name_axes(figure)
        _title(figure, name)
        try:
            atomic_write(path, lambda file: figure.savefig(file, dpi=120, bbox_inches="tight"))
        finally:
            pyplot.close("all")
    return path


def _two(study: optuna.Study) -> list[str]:
    """Learning rate and batch size if both are tuned, else the first two settings."""
    names = list(dict.fromkeys(name for trial in ended(study) for name in trial.params))
    wanted = [f"batch_size{LOG2}", "learning_rate"]
    return wanted if set(wanted) <= set(names) else names[:2]


def _title(figure: Any, name: str) -> None:
    """Put the study's name before the title of each plot."""
    titles = [(axes, place) for axes in figure.axes for place in ("left", "center")]
    titled = [(axes, place) for axes, place in titles if axes.get_title(place)]
    for axes, place in titled:
        words = axes.get_title(place).lower().removesuffix(" plot")
        axes.set_title("", loc=place)
        axes.set_title(f"{name}: {words}")
    if not titled:
        figure.suptitle(f"{name}: slices")


def _mark_pruned(axes: Any, study: optuna.Study) -> None:
    """Hollow points for pruned trials, whose loss is an estimate."""
    pruned = [t for t in ended(study) if t.user_attrs[OUTCOME] == PRUNED]
    if pruned:
        axes.scatter(
            [t.number for t in pruned], [t.value for t in pruned], facecolors="white",
            edgecolors="tab:blue", zorder=3, label="pruned (estimated)",
        )  # fmt: skip
    axes.legend(loc="best")


def _tidy_parallel(figure: Any) -> None:
    """Show batch sizes on their axis, and remove legends over the title."""
    main, _, *others = figure.axes  # the second one is the colour bar
    legends = [axes.get_legend() for axes in figure.axes if axes.get_legend()]
    for legend in (*legends, *figure.legends):
        legend.remove()
    labels = [label.get_text() for label in main.get_xticklabels()]
    for label, axes in zip(labels[1:], others, strict=False):
        if label.endswith(LOG2):
            _powers(axes.yaxis)
    main.set_xticklabels([_plain(label) for label in labels], rotation=0)


def _name_axes(figure: Any) -> None:
    """Plain names of settings, and batch sizes instead of their logarithms."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            label = axis.get_label_text()
            if label.endswith(LOG2):
                _powers(axis)
            axis.set_label_text(_plain(label))
        texts = [tick.get_text() for tick in axes.get_yticklabels()]
        if any(text.endswith(LOG2) or "_" in text for text in texts):  # importances
            axes.set_yticks(axes.get_yticks(), [_plain(text) for text in texts])


def _powers(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{2**x:g}" if x == round(x) else ""))


def _plain(label: str) -> str:
    return label.removesuffix(LOG2).replace("_", " ")
