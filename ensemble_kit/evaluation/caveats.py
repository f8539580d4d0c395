"""Caveats that are shown beside results: about the prediction tables, and about a combiner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ensemble_kit.arrays import Ints
from ensemble_kit.combiners.base import Combiner
from ensemble_kit.errors import counted, first_few
from ensemble_kit.evaluation.scores.per_image import Scored
from ensemble_kit.metrics import OVER_CLASSES
from ensemble_kit.predictions.method_predictions import Combined
from ensemble_kit.predictions.table import Predictions

FEW_GROUPS = 10
CONSTANT = ": one class is predicted"


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
    """Caveat on nested metrics: what they are, and how they differ from cross-fitted ones."""
    n = len(np.unique(oof.fold))
    return (
        "Nested: neither members nor combiners have seen the evaluated fold. The members are trained on "
        f"{n - 2} of {n} folds instead of {n - 1}, and the mean of {n - 1} such models predicts. The change "
        "of the mean of all members shows this effect. A larger change of a fitted method is base-model "
        "leakage, or the effect of fewer rows to fit."
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
        "metrics that average over classes have no interval, because nothing is known about another "
        f"{table.group_kind} of that class.",
    )


def constant_note(name: str, class_name: str, n: int, part: str) -> str:
    """Caveat that a method predicts one class for all images of a part.

    Examples
    --------
    >>> constant_note("mlp", "malignant", 69, "test").partition(". ")[0]
    "mlp: one class is predicted for all 69 images (test), 'malignant'"
    """
    return (
        f"{name}{CONSTANT} for all {n} images ({part}), '{class_name}'. Accuracy and balanced accuracy "
        "follow from that alone, and their intervals have no meaning."
    )


def constant_notes(
    name: str, combined: Combined, labels: Ints, class_names: Sequence[str], part: str
) -> tuple[str, ...]:
    """The caveat of `constant_note` if all images, of several classes, get one class; else empty."""
    predicted = np.unique(combined.predicted)
    if len(predicted) != 1 or predicted[0] < 0 or len(np.unique(labels)) < 2:
        return ()
    return (constant_note(name, class_names[int(predicted[0])], len(labels), part),)


def below_best_note(name: str) -> str:
    """Caveat that a fitted method is not better than the best member."""
    return (
        f"{name}: not better than the best member cross-fitted, neither in the metric nor in log "
        "loss. Prefer the best member alone."
    )


def replaced_note(name: str) -> str:
    """Caveat that a method was replaced by the mean."""
    return (
        f"{name}: replaced by the mean. Not better than the mean cross-fitted, neither in the metric "
        "nor in log loss."
    )


def merged_notes(notes: Mapping[str, Sequence[str]]) -> list[str]:
    """Each caveat once, those on constant predictions first.

    Parameters
    ----------
    notes : mapping of method to its caveats
        Caveats that begin with the name of their method and a colon, and that are otherwise equal,
        become one caveat with all names.

    Examples
    --------
    >>> merged_notes({"vote": ["Few patients.", "vote: slow."], "mlp": ["Few patients.", "mlp: slow."]})
    ['Few patients.', 'vote, mlp: slow.']
    """
    owners: dict[tuple[bool, str], list[str]] = {}
    for name, some in notes.items():
        for note in some:
            is_own = note.startswith(f"{name}: ")
            fact = note.removeprefix(f"{name}: ") if is_own else note
            names = owners.setdefault((is_own, fact), [])
            if name not in names:
                names.append(name)
    merged = [f"{', '.join(of)}: {fact}" if own else fact for (own, fact), of in owners.items()]
    return sorted(dict.fromkeys(merged), key=lambda note: CONSTANT not in note)
