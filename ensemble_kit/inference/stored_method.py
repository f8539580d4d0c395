"""The method of a run that predicts new images: its fitted combiner, members and stored decisions.

The default method is the one that `stack` chose. All stored files are checked against each other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.combiners import COMBINERS
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.combiners.rules.averaging import MeanProba
from ensemble_kit.combiners.saved import JSON_NAME, load_combiner, read_saved
from ensemble_kit.combiners.stacking.feature_combiner import FeatureCombiner
from ensemble_kit.errors import DataError, IntegrityError, UsageError, command, did_you_mean
from ensemble_kit.evaluation.cross_validation.baselines import MEAN
from ensemble_kit.evaluation.runs.ensemble_folder import METRICS, made_of
from ensemble_kit.evaluation.runs.stored_ensembles import (
    read_metrics,
    refuse_stale,
    stored_methods,
    what_changed,
)
from ensemble_kit.evaluation.tables.recommendation import (
    BEST_MEMBER,
    chosen_of,
    method_to_use,
    none_to_use,
    recommendation,
)
from ensemble_kit.inference.method_caveats import of_chance, of_other_methods, of_run
from ensemble_kit.inference.pooling import Pooling, pooling_of
from ensemble_kit.inference.stored_decisions import (
    StoredDecision,
    StoredSets,
    read_decision,
    read_sets,
)
from ensemble_kit.metrics.costs import CostMatrix, least_cost
from ensemble_kit.predictions.features import PooledFeatures
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True, eq=False)
class StoredMethod:
    """A method that can predict.

    Parameters
    ----------
    name : str
        A stacked method, a member, or `mean`.
    member_names : tuple of str
        In the order of the combiner's inputs.
    combiner : Combiner
        Fitted to all out-of-fold rows.
    costs : array, shape (n_classes, n_classes), optional
        Costs of errors, if the method decides for the least expected cost.
    sets : StoredSets, optional
    decision : StoredDecision, optional
    made_of : mapping
        Digests of the predictions that the combiner was fitted to.
    notes : tuple of str
        Caveats of the choice of the method, of the run, and of the evaluation.
    decision_notes : tuple of str
        Caveats on missing prediction sets or decisions, and on the stored decision.
    pooling : Pooling
        The rule that pools a patient's images.
    """

    name: str
    class_names: tuple[str, ...]
    member_names: tuple[str, ...]
    combiner: Combiner
    costs: Array | None
    sets: StoredSets | None
    decision: StoredDecision | None
    group_kind: str
    made_of: Mapping[str, Any]
    notes: tuple[str, ...]
    pooling: Pooling = dataclasses.field(default_factory=Pooling)
    decision_notes: tuple[str, ...] = ()

    def combine(self, logits: Array, features: PooledFeatures | None = None) -> Combined:
        """Probabilities and classes of new images.

        Parameters
        ----------
        logits : array, shape (n_samples, n_members, n_classes)
        features : PooledFeatures, optional
            Features of the same images and members. Required by combiners over features.
        """
        if isinstance(self.combiner, FeatureCombiner):
            combined = self.combiner.combine(logits, features)
        else:
            combined = self.combiner.combine(logits)
        return combined if self.costs is None else least_cost(combined, self.costs)


def open_method(run: Run, name: str | None = None) -> StoredMethod:
    """The method or member `name`. Default: the method that `stack` chose.

    Raises
    ------
    UsageError
        The method is unknown, or it cannot predict new images.
    DataError
        There is no run, or the run is imported and has no networks.
    IntegrityError
        A stored file is damaged, or the run's predictions changed after it was written.
    """
    _refuse_imported(run)
    oof = run.predictions("oof", partial=True)
    has_test = len(run.manifest().part("test")) > 0
    test = run.predictions("test", partial=True) if has_test else None
    notes: tuple[str, ...] = ()
    if name is None:
        name, notes = _chosen(run, oof, test)
    combiner, members, about = _fitted(run, name, oof, test)
    now = made_of(oof.select(members), None if test is None else test.select(members))
    folder = run.ensemble_dir(name)
    sets, about_sets = read_sets(folder, oof.class_names, now)
    decision = read_decision(folder, oof.class_names, now)
    return StoredMethod(
        name=name,
        class_names=oof.class_names,
        member_names=tuple(members),
        combiner=combiner,
        costs=_costs(about, oof.class_names),
        sets=sets,
        decision=decision,
        group_kind=oof.group_kind,
        made_of=now,
        notes=(*notes, *of_run(run, oof), *of_chance(run, name)),
        pooling=pooling_of(run, name),
        decision_notes=(
            *of_other_methods(run, name),
            *([about_sets] if about_sets else []),
            *(() if decision is None else decision.notes),
        ),
    )


def _refuse_imported(run: Run) -> None:
    # A folder without a run fails later, when its record is read.
    if run.record and run.is_imported:
        raise DataError(
            f"'{run.path}' has imported predictions and no networks",
            "new images need the networks of a run",
            f"Train members here: {command('train-members', '--data', 'DIR')}, then predict with that run",
        )


def _chosen(run: Run, oof: Predictions, test: Predictions | None) -> tuple[str, tuple[str, ...]]:
    """The method that `stack` chose, and caveats of the choice."""
    latest_first = sorted(
        stored_methods(run),
        key=lambda one: (
            -(run.ensemble_dir(one) / METRICS).stat().st_mtime_ns
            if (run.ensemble_dir(one) / METRICS).is_file()
            else 0
        ),
    )
    stored = {one: read_metrics(run, one) for one in latest_first}
    if not stored:
        again = command("stack", "--method", "all", "--run", run.path)
        caveat = "No method was stacked. The mean of all members predicts."
        return MEAN, (f"{caveat} To choose a method, run {again}.",)
    current = {
        one: metrics
        for one, metrics in stored.items()
        if not what_changed(run, one, metrics, oof, test)
    }
    if not current:
        first, metrics = next(iter(stored.items()))
        raise IntegrityError(
            f"The stacked results of '{run.path}' are older than its networks",
            what_changed(run, first, metrics, oof, test),
            f"Run {command('stack', '--method', 'all', '--run', run.path)} again",
        )
    metric = next(iter(current.values()))["metric"]
    comparable = {one: m for one, m in current.items() if metric in m["cross_fitted"]}
    chosen = chosen_of(comparable) or MEAN
    used = method_to_use(comparable)
    if used in (None, chosen) or len(oof.member_names) == 1:
        return chosen, ()
    member = comparable.get(BEST_MEMBER, {}).get("best_member")
    other = MEAN if used == MEAN else member
    how = f" To predict with it: --method {other}."
    if other is None or none_to_use(comparable, comparable[chosen]):
        how = ""
    return chosen, (f"{recommendation(comparable)}{how}",)


def _fitted(
    run: Run, name: str, oof: Predictions, test: Predictions | None
) -> tuple[Combiner, list[str], Mapping[str, Any]]:
    """The fitted combiner, its members, and its stored settings."""
    if name == "oracle":
        raise UsageError(
            "The method 'oracle' was given",
            "the oracle cannot predict new images, because it uses the true labels",
            "Use e.g. mean",
        )
    folder = run.ensemble_dir(name)
    if (folder / JSON_NAME).is_file() or (folder / METRICS).is_file():
        refuse_stale(run, name, read_metrics(run, name), oof, test)
        about = read_saved(folder)["about"]
        combiner = load_combiner(folder)
        _same_axes(run, name, combiner, about, oof)
        return combiner, list(about["member_names"]), about
    if name == MEAN:
        return _mean_of(oof, list(oof.member_names))
    if name in oof.member_names:
        return _mean_of(oof, [name])
    known = [n for n in stored_methods(run) if n != "oracle"]
    raise UsageError(
        f"'{run.path}' has no stacked method and no member '{name}'",
        "one of them is needed",
        f"Run {command('stack', '--method', name, '--run', run.path)} first"
        if name in COMBINERS
        else did_you_mean(name, {*known, MEAN, *oof.member_names}),
    )


def _mean_of(oof: Predictions, members: list[str]) -> tuple[Combiner, list[str], dict[str, Any]]:
    table = oof.select(members)
    rows = np.flatnonzero(table.available.all(axis=1))
    return MeanProba().fit_to(table.take(rows)), members, {}


def _same_axes(
    run: Run, name: str, combiner: Combiner, about: Mapping[str, Any], oof: Predictions
) -> None:
    """Refuse a combiner with other classes or members, or in another order, than the run."""
    stored, members = list(about["class_names"]), list(about["member_names"])
    shape = combiner.n_members_, len(combiner.classes_)
    if stored != list(oof.class_names) or shape != (len(members), len(stored)):
        raise IntegrityError(
            f"The combiner of '{name}' has other classes or members: {shape[0]} members and the classes "
            f"{', '.join(stored)}",
            f"its record has {len(members)} members; the run has the classes {', '.join(oof.class_names)}",
            f"Run {command('stack', '--method', name, '--run', run.path)} again",
        )


def _costs(about: Mapping[str, Any], class_names: tuple[str, ...]) -> Array | None:
    if about.get("decision") != "least expected cost":
        return None
    costs = about["costs"]
    rows = tuple(
        tuple(costs[true][prediction] for prediction in class_names) for true in class_names
    )
    return CostMatrix(class_names, rows).of(class_names)
