"""Caveats of a method, from the run's stored results."""

from __future__ import annotations

from ensemble_kit.errors import command
from ensemble_kit.evaluation.runs.ensemble_folder import DECISION, METRICS, SETS_JSON
from ensemble_kit.evaluation.runs.stored_ensembles import read_metrics, stored_methods
from ensemble_kit.evaluation.scores.verdict import PARTS
from ensemble_kit.evaluation.tables.chance import chance_of
from ensemble_kit.evaluation.tables.recommendation import is_at_chance, part_of
from ensemble_kit.evaluation.uncertainty.interval import Interval
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run

_STORED = {SETS_JSON: ("Prediction sets", "conformal"), DECISION: ("Decisions", "operating-point")}


def of_run(run: Run, oof: Predictions) -> list[str]:
    """The caveats of the run's data and networks. Caveats of the folds concern metrics only."""
    return [note for note in oof.notes if note not in run.record["folds"]["notes"]]


def of_other_methods(run: Run, name: str) -> list[str]:
    """Caveats if sets or decisions are stored for other methods but not for this one."""
    sentences = []
    for file, (what, source) in _STORED.items():
        others = [one for one in stored_methods(run) if (run.ensemble_dir(one) / file).is_file()]
        if others and name not in others:
            again = command(source, "--method", name, "--run", run.path)
            sentences.append(
                f"{what} are stored for {', '.join(others)}, but not for {name}. "
                f"Use --method {others[0]}, or run {again}."
            )
    return sentences


def of_chance(run: Run, name: str) -> list[str]:
    """A caveat if the method is not shown to be better than chance in its own evaluation."""
    if not (run.ensemble_dir(name) / METRICS).is_file():
        return []
    stored = read_metrics(run, name)
    if not is_at_chance(stored):
        return []
    metric = stored["metric"]
    values = [
        f"{Interval(**stored[part][metric])} {PARTS[part]}"
        for part in ("cross_fitted", "test")
        if stored[part]
    ]
    chance = chance_of(metric, stored[part_of(stored)]) or chance_of(metric, stored["cross_fitted"])
    return [
        f"{name} is not shown to be better than chance in its own evaluation: "
        f"{metric.replace('_', ' ')} {', '.join(values)}; chance level {chance}."
    ]
