"""Caveats that are shown beside results: about the prediction tables, and about a combiner."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import counted, first_few
from ensemble_kit.evaluation.scores.per_image import Scored
from ensemble_kit.metrics import OVER_CLASSES
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.predictions.table import Predictions

FEW_GROUPS = 10


def table_notes(oof: Predictions, test: Predictions | None) -> tuple[str, ...]:
    """Caveats on every metric that is computed from these tables."""
    notes = [*oof.notes, *(test.notes if test is not None else ())]
    if oof.split_by == "image" and not any("by image" in note.lower() for note in notes):
        notes.insert(
            0,
            "Split by image: images of one group are on both sides of the split. Do not compare these "
            "metrics with metrics of a split by group.",
        )
    elif oof.group_kind == "image" and not any("no groups" in note.lower() for note in notes):
        notes.insert(0, "No groups are known: every image is treated as its own group.")
    for part, table in (("out-of-fold", oof), ("test", test)):
        if table is None:
            continue
        absent = [name for c, name in enumerate(table.class_names) if not (table.labels == c).any()]
        if absent:
            notes.append(
                f"The {part} part has no image of class {first_few(map(repr, absent))}. The metrics "
                "say nothing about that class."
            )
        if table.n_groups < FEW_GROUPS:
            notes.append(
                f"The {part} part has only {counted(table.n_groups, table.group_kind)}: "
                "its intervals are rough."
            )
    return tuple(dict.fromkeys(notes))


def combiner_notes(combiner: Combiner) -> tuple[str, ...]:
    """Caveats on every metric of this combiner."""
    if combiner.needs_labels:
        return (
            "The oracle uses the labels: it takes a member that is right, if there is one. It is an "
            "upper bound for methods that choose one member per image. A combination can exceed it.",
        )
    if combiner.gives_vote_shares:
        return (
            "`vote` outputs vote shares, not probabilities. Do not compare its log loss or "
            "calibration with other methods.",
        )
    if combiner.needs_features:
        return (
            "The models of each fold have their own feature space. One network is therefore fitted "
            "per fold, on the held-out images of that fold only: far fewer images than other stackers "
            "learn from. A cross-fitted prediction comes from models and networks that were trained "
            "without that image.",
        )
    if combiner.is_fitted_to_labels:
        return (
            "Cross-fitted metrics can still be slightly optimistic: the members were trained on the "
            "labels of the other folds. `--nested` removes this bias.",
        )
    return ()


def nested_note(oof: Predictions) -> str:
    """What must be said beside nested figures."""
    n = len(np.unique(oof.fold))
    return (
        f"Nested: members and combiners are blind to the fold judged. Its members train on {n - 2} "
        f"of {n} folds, not {n - 1}, and {n - 1} of them answer together: how far the mean itself "
        "moves says what that does; what a fitted method moves beyond it is the coupling, and that it "
        "has fewer rows to fit."
    )


def order_note(table: Predictions) -> str:
    """Caveat that ordinal metrics assume the order of the class names."""
    return (
        f"The ordinal metrics assume the class order {', '.join(table.class_names)}. The data do not "
        "say that the classes are ordered. For imported predictions, set the order with --classes "
        "and --ordinal."
    )


def cost_note() -> str:
    """Caveat that predicted classes minimise the expected cost."""
    return (
        "Predicted classes are the classes of least expected cost, not the most probable classes. "
        "The oracle is the exception."
    )


def abstention_note(name: str, crossed: Combined, tested: Combined | None) -> tuple[str, ...]:
    """Caveat on a method that abstains: its coverage, and how abstentions count; else empty.

    Examples
    --------
    >>> import numpy as np
    >>> one = Combined(np.full((4, 2), 0.5), np.array([0, 1, 1, -1]), np.ones(4, dtype=bool))
    >>> abstention_note("vote", one, None)[0].partition(".")[0]
    'vote abstains on 1 of 4 images cross-fitted (coverage 0'
    """
    parts = {"cross-fitted": crossed, **({} if tested is None else {"of the test part": tested})}
    shares = [
        f"{one.n_abstained} of {len(one.predicted)} images {part} "
        f"(coverage {1 - one.n_abstained / len(one.predicted):.3f})"
        for part, one in parts.items()
        if one.n_abstained
    ]
    if not shares:
        return ()
    how = "An abstention counts as an error, divided equally among the wrong classes."
    return (f"{name} abstains on {' and on '.join(shares)}. {how}",)


def interval_note(scored: Mapping[str, Scored], table: Predictions, part: str) -> tuple[str, ...]:
    """Caveat that metrics lack an interval because all images of a class come from one group."""
    lacking = {
        name.replace("_", " ")
        for one in scored.values()
        for name, left_out in one.left_out.items()
        if name in OVER_CLASSES and not np.isfinite(left_out).all()
    }
    if not lacking:
        return ()
    alone = [
        table.class_names[c]
        for c in np.unique(table.labels)
        if len(np.unique(table.groups[table.labels == c])) == 1
    ]
    if not alone:
        return ()
    return (
        f"All images of class {first_few(map(repr, alone))} come from one {table.group_kind} ({part}): "
        "metrics that average over classes have no interval.",
    )


def below_best_note(*names: str) -> tuple[str, ...]:
    """Caveat that fitted methods are not better than the best member; empty without names.

    Examples
    --------
    >>> below_best_note("mlp")[0].partition(":")[0]
    'mlp is not better than the best member cross-fitted, neither in the metric nor in log loss'
    """
    if not names:
        return ()
    verb = "is" if len(names) == 1 else "are"
    return (
        f"{', '.join(names)} {verb} not better than the best member cross-fitted, neither in the "
        "metric nor in log loss: prefer the best member alone.",
    )


def replaced_note(*names: str) -> str:
    """Caveat that methods were replaced by the mean.

    Examples
    --------
    >>> replaced_note("mlp").partition(", and")[0]
    'mlp is not better than the mean cross-fitted, neither in the metric nor in log loss'
    """
    verb, was = ("is", "was") if len(names) == 1 else ("are", "were")
    return (
        f"{', '.join(names)} {verb} not better than the mean cross-fitted, neither in the metric nor "
        f"in log loss, and {was} replaced by the mean (*)."
    )
