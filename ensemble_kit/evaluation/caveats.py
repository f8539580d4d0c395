"""What must be said beside figures: about the tables they come from, and about a combiner.

Words only; computes no figure.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ensemble_kit.combiners.base import Combined, Combiner
from ensemble_kit.combiners.rules.voting import MajorityVote
from ensemble_kit.errors import first_few
from ensemble_kit.evaluation.scores.per_image import Scored
from ensemble_kit.metrics import OVER_CLASSES
from ensemble_kit.predictions.table import Predictions

FEW_GROUPS = 10


def table_notes(oof: Predictions, test: Predictions | None) -> tuple[str, ...]:
    """What must be said beside every figure from these tables."""
    notes = [*oof.notes, *(test.notes if test is not None else ())]
    if oof.split_by == "image" and not any("by image" in note.lower() for note in notes):
        notes.insert(
            0,
            "Split by image: images of one group stand on both sides. Not comparable with a split by group.",
        )
    elif oof.group_kind == "image" and not any("no groups" in note.lower() for note in notes):
        notes.insert(0, "No groups are known: each image is its own group.")
    for part, table in (("out-of-fold", oof), ("test", test)):
        if table is None:
            continue
        absent = [name for c, name in enumerate(table.class_names) if not (table.labels == c).any()]
        if absent:
            notes.append(
                f"No {part} sample is of class {first_few(map(repr, absent))}: figures do not speak of it."
            )
        if table.n_groups < FEW_GROUPS:
            notes.append(
                f"The {part} part has {table.n_groups} {table.group_kind}s only: intervals over so few are rough."
            )
    return tuple(dict.fromkeys(notes))


def combiner_notes(combiner: Combiner) -> tuple[str, ...]:
    """What must be said beside every figure of this combiner."""
    if combiner.needs_labels:
        return (
            "The oracle looks at the labels and takes a right member where there is one: a ceiling "
            "for choosing among members, not for combining them.",
        )
    if isinstance(combiner, MajorityVote):
        return (
            "vote's probabilities are shares of hard votes: where all members err it is as wrong as "
            "can be, so do not hold its log loss and calibration against those of probabilities.",
        )
    if combiner.needs_features:
        return (
            "Each fold's models have features of their own, so networks are fitted in each of these "
            "spaces, to the rows that its models kept out: far fewer rows than other stackers learn "
            "from. The models and networks that answer a cross-fitted row were trained without it.",
        )
    if combiner.is_fitted_to_labels:
        return (
            "Fitted to out-of-fold predictions, whose members saw the labels of the other folds: "
            "cross-fitted figures are free of the combiner's own optimism, not of that coupling; "
            "those of --nested are.",
        )
    return ()


def order_note(table: Predictions) -> str:
    """That classes are taken for grades without anything that says so."""
    return (
        f"Figures of grades take the classes in the order {', '.join(table.class_names)}; nothing "
        "says that this order means something. Imported ones are ordered by --classes and --ordinal."
    )


def cost_note() -> str:
    """That classes are not the likeliest ones."""
    return "Decided for the class of least expected cost, not for the likeliest, the oracle apart."


def abstention_note(name: str, crossed: Combined, tested: Combined | None) -> tuple[str, ...]:
    """How much a method decides, and how figures take what it does not; nothing if it decides all.

    Examples
    --------
    >>> import numpy as np
    >>> silent = Combined(np.full((4, 2), 0.5), np.array([0, 1, 1, -1]), np.ones(4, dtype=bool))
    >>> abstention_note("vote", silent, None)[0].partition(";")[0]
    'vote abstains, cross-fitted, on 1 of 4 rows (coverage 0.750)'
    """
    parts = {"cross-fitted": crossed, **({} if tested is None else {"on the test": tested})}
    said = [
        f"{part}, on {one.n_abstained} of {len(one.predicted)} rows "
        f"(coverage {1 - one.n_abstained / len(one.predicted):.3f})"
        for part, one in parts.items()
        if one.n_abstained
    ]
    if not said:
        return ()
    how = "an abstention counts as an error, shared out evenly among the wrong classes."
    return (f"{name} abstains, {', and '.join(said)}; {how}",)


def interval_note(scored: Mapping[str, Scored], table: Predictions, part: str) -> tuple[str, ...]:
    """Which metrics have no interval because a class is held by one group alone."""
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
        f"Class {first_few(map(repr, alone))} comes from one {table.group_kind} only ({part}): metrics "
        "that average over classes have no interval.",
    )


def below_best_note(*names: str) -> tuple[str, ...]:
    """That one member alone is better than fitted methods; nothing where none is named.

    Examples
    --------
    >>> below_best_note("mlp")[0].partition(":")[0]
    'mlp does not beat the best member cross-fitted, neither on the metric nor on log loss'
    """
    if not names:
        return ()
    do = "does" if len(names) == 1 else "do"
    return (
        f"{', '.join(names)} {do} not beat the best member cross-fitted, neither on the metric nor "
        "on log loss: that member alone is the better choice.",
    )


def replaced_note(*names: str) -> str:
    """That methods were replaced by the mean.

    Examples
    --------
    >>> replaced_note("mlp").partition(":")[0]
    'mlp does not beat the mean cross-fitted, neither on the metric nor on log loss'
    """
    do = "does" if len(names) == 1 else "do"
    place = "its" if len(names) == 1 else "their"
    return (
        f"{', '.join(names)} {do} not beat the mean cross-fitted, neither on the metric nor on log "
        f"loss: the plain mean is used in {place} place (*)."
    )
