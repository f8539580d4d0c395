"""Evaluate combiners on a run's stored predictions and write the results to `ensembles/`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ensemble_kit.checked import write_checked
from ensemble_kit.combiners import COMBINERS, DYNAMIC, PUBLISHED, combiner_class, make_combiner
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import IntegrityError, UsageError
from ensemble_kit.evaluation.caveats import combiner_notes
from ensemble_kit.evaluation.clinical.block import Clinical, ClinicalOptions, clinical_of
from ensemble_kit.evaluation.clinical.subgroups import column_of
from ensemble_kit.evaluation.compare import all_notes, chosen, chosen_verdict
from ensemble_kit.evaluation.cross_validation.baselines import REFERENCE_METHODS, with_best_and_mean
from ensemble_kit.evaluation.cross_validation.nested import refuse_features
from ensemble_kit.evaluation.diversity.pareto import pareto_table
from ensemble_kit.evaluation.diversity.pareto_file import write_pareto
from ensemble_kit.evaluation.evaluate import evaluate_all
from ensemble_kit.evaluation.permutation_test import PermutationTest, permutation_test
from ensemble_kit.evaluation.protocol import Protocol
from ensemble_kit.evaluation.result import Evaluation
from ensemble_kit.evaluation.runs.ensemble_files import metrics_json
from ensemble_kit.evaluation.runs.ensemble_folder import write_ensembles
from ensemble_kit.evaluation.runs.stored_ensembles import read_metrics, stored_methods, what_changed
from ensemble_kit.evaluation.scores.baseline_tests import sentence_of_tests
from ensemble_kit.evaluation.tables.permutation_test import PERMUTATION_TEST, permutation_json
from ensemble_kit.evaluation.tables.scores import long_scores
from ensemble_kit.files import write_csv
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.predictions.quorum import with_quorum
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run
from ensemble_kit.run.folder import ENSEMBLES

SCORES = "scores.csv"


@dataclasses.dataclass(frozen=True, eq=False)
class Stacked:
    """The result of stacking a run.

    Parameters
    ----------
    oof, test : Predictions
        The evaluated predictions; `test` is None for a run without a test part.
    evaluations : mapping of method to Evaluation
        The requested methods, the baselines and the oracle.
    protocol : Protocol
    pareto : DataFrame or None
        Sets of members by cost; None without `costs`.
    permutation : PermutationTest or None
        The permutation test; None without `permutation_draws`.
    """

    oof: Predictions
    test: Predictions | None
    evaluations: Mapping[str, Evaluation]
    protocol: Protocol
    pareto: pd.DataFrame | None = None
    permutation: PermutationTest | None = None

    @property
    def verdict(self) -> str:
        """One sentence on the best method by cross-validation."""
        return chosen_verdict(self.evaluations, self.protocol)

    @property
    def nested_verdict(self) -> str:
        """The verdict of nested cross-validation on that method; empty without it."""
        outcomes = chosen(self.evaluations, self.protocol).verdicts
        return next(
            (v.sentence for v in outcomes if (v.part, v.against) == ("nested", "best-member")), ""
        )

    @property
    def tests_sentence(self) -> str:
        """P values (McNemar, DeLong) of that method, on the part of its verdict; may be empty."""
        best = chosen(self.evaluations, self.protocol)
        part = "test" if self.test is not None else "cross_fitted"
        text = sentence_of_tests(best.tests, part)
        return f"{best.shown_name} {text}" if text else ""

    @property
    def clinical(self) -> Clinical | None:
        """The clinical block of that method, or of the mean if there are only baselines."""
        return next((c for one in self.evaluations.values() if (c := one.clinical)), None)

    @functools.cached_property
    def stored(self) -> dict[str, dict[str, Any]]:
        """Every method as in its `metrics.json`."""
        return {name: metrics_json(one, self.oof) for name, one in self.evaluations.items()}

    @property
    def caveats(self) -> list[str]:
        """The caveats that change how values are read, without the explanations of methods."""
        about = {n for one in self.evaluations.values() for n in combiner_notes(one.combiner)}
        return [note for note in self.notes if note not in about]

    @property
    def notes(self) -> list[str]:
        """All caveats, each once."""
        return all_notes(self.evaluations)


def all_methods(n_members: int, *, features: bool = False) -> list[str]:
    """The methods of `--method all`; with one member only the mean, which is this member.

    Left out: best member and oracle; dynamic selection, which needs a large and varied pool of
    members; methods of publications; methods on features, if the run stores no features; and the
    trimmed mean with fewer than five members, which would equal the mean.
    """
    if n_members == 1:
        return ["mean"]
    dropped = {*REFERENCE_METHODS, *DYNAMIC, *PUBLISHED} - {"mean"}
    if n_members < 5:
        dropped.add("trimmed-mean")
    named = [name for name in COMBINERS if name not in dropped]
    return [name for name in named if features or not combiner_class(name).needs_features]


def stack_run(
    run: Run,
    methods: Sequence[str] | Mapping[str, Combiner],
    *,
    protocol: Protocol | None = None,
    quorum: int | None = None,
    costs: Mapping[str, float] | None = None,
    cost_unit: str = "cost",
    budget: float | None = None,
    max_members: int | None = None,
    nested: bool = False,
    permutation_draws: int = 0,
    clinical: ClinicalOptions | None = None,
    write: bool = True,
) -> Stacked:
    """Combine a run's stored predictions with each method, evaluate, and write the results.

    Parameters
    ----------
    run : Run
        All folds of all members must be finished, unless `quorum` is given.
    methods : sequence of names, or mapping of name to Combiner
    protocol : Protocol, optional
        Settings of the evaluation.
    quorum : int, optional
        Accept members that lack folds, if at least this many members predicted every image.
    costs : mapping of member to cost, optional
        Inference cost of each member. Means of growing sets of members are evaluated out-of-fold
        against their cost, and written to `ensembles/pareto.csv`.
    cost_unit : str
        Unit of a cost, e.g. "GMACs per image".
    budget : float, optional
        Largest cost of a set of members.
    max_members : int, optional
        Largest number of members in a set.
    nested : bool
        Add nested cross-validation. The run needs models without each pair of folds.
    permutation_draws : int
        Number of draws of the permutation test, written to `ensembles/permutation-test.json`; 0: no test.
    clinical : ClinicalOptions, optional
        Settings of the clinical block of the best method. The positive class comes from the
        protocol, else from the data.
    write : bool
        Write `ensembles/<method>/`; of the oracle only the metrics are written.

    Returns
    -------
    Stacked

    Raises
    ------
    UsageError
        No or unknown method.
    DataError
        No predictions, an unfinished member, or `nested` without the models that it needs.
    RunLockedError
        Another process writes results in this run.
    """
    made = _checked_methods(methods, nested=nested, quorum=quorum)
    manifest = run.manifest()
    protocol = (protocol or Protocol()).for_data(manifest)
    protocol.positive_of(manifest.class_names)
    for column in clinical.by if clinical is not None else ():
        column_of(manifest, column, [])
    features = any(one.needs_features for one in made.values())
    pareto, permutation = None, None
    with run.writing_results() if write else contextlib.nullcontext():
        oof = _table(run, "oof", quorum, features)
        test = _table(run, "test", quorum, features) if len(manifest.part("test")) else None
        nested_oof = run.nested_predictions() if nested else None
        evaluations = evaluate_all(made, oof, test, protocol=protocol, nested=nested_oof)
        evaluations = _with_clinical(evaluations, oof, test, manifest, protocol, clinical)
        if costs is not None:
            pareto = pareto_table(
                oof, costs, unit=cost_unit, budget=budget, max_members=max_members,
                protocol=protocol,
            )  # fmt: skip
        if permutation_draws:
            methods_run = with_best_and_mean(made, protocol, oof.class_names)
            permutation = permutation_test(
                methods_run, oof, protocol=protocol, n_draws=permutation_draws
            )
        done = Stacked(oof, test, evaluations, protocol, pareto, permutation)
        if write:
            _write(run, done)
    return done


def _checked_methods(
    methods: Sequence[str] | Mapping[str, Combiner], *, nested: bool, quorum: int | None
) -> dict[str, Combiner]:
    """The methods by name; raises UsageError if nested cross-validation is not possible for them."""
    if not methods:
        raise UsageError("No method was given", "at least one is needed", "Use e.g. --method vote")
    made = dict(methods) if isinstance(methods, Mapping) else {n: make_combiner(n) for n in methods}
    if nested and quorum is not None:
        raise UsageError(
            f"Nested cross-validation cannot be used with a quorum (here {quorum})",
            "every member needs models without every pair of folds",
            "Leave out --quorum, or --nested",
        )
    if nested:
        refuse_features(made)
    return made


def _write(run: Run, done: Stacked) -> None:
    """Write the tables of this call, each method, and the scores of all stored methods."""
    if done.permutation is not None:
        write_checked(run.path / ENSEMBLES / PERMUTATION_TEST, permutation_json(done.permutation))
    if done.pareto is not None:
        write_pareto(run, done.pareto, done.oof)
    write_ensembles(run, done.evaluations, done.oof, done.test)
    write_csv(run.path / ENSEMBLES / SCORES, long_scores(_with_stored(run, done)))


def _with_clinical(
    evaluations: Mapping[str, Evaluation],
    oof: Predictions,
    test: Predictions | None,
    manifest: Manifest,
    protocol: Protocol,
    options: ClinicalOptions | None,
) -> dict[str, Evaluation]:
    """The same evaluations, with a clinical block for the best method, or else for the mean."""
    one, best = chosen(evaluations, protocol), evaluations["best-member"]
    parts = {"cross_fitted": (oof, one.oof_combined, best.oof_combined)}
    if test is not None and one.test_combined is not None and best.test_combined is not None:
        parts["test"] = (test, one.test_combined, best.test_combined)
    found = clinical_of(one.shown_name, parts, manifest, protocol, options)
    return {**evaluations, one.name: dataclasses.replace(one, clinical=found)}


def _with_stored(run: Run, done: Stacked) -> dict[str, dict[str, Any]]:
    """The methods of this call, then those that earlier calls stored over the same predictions."""
    found = dict(done.stored)
    for name in stored_methods(run):
        if name in found:
            continue
        with contextlib.suppress(IntegrityError):  # damaged folders are reported when they are read
            metrics = read_metrics(run, name)
            if not what_changed(run, name, metrics, done.oof, done.test):
                found[name] = metrics
    return found


def _table(run: Run, kind: str, quorum: int | None, features: bool) -> Predictions:
    if quorum is None:
        return run.predictions(kind, features=features)
    if features:
        raise UsageError(
            f"Methods on features cannot be used with a quorum (here {quorum})",
            "they need the features of every member and fold",
            "Leave out --quorum, or feature-mlp and pooled-mlp",
        )
    return with_quorum(run.predictions(kind, partial=True), quorum)
