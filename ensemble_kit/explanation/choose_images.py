"""Choosing images of a run by its stored predictions: worst, disputed, or right.

Test images are preferred, because no network was trained on them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, softmax
from ensemble_kit.errors import DataError, UsageError, did_you_mean
from ensemble_kit.evaluation.diversity.shapley import MAX_MEMBERS, member_values
from ensemble_kit.explanation.combiner_slope import refuse_features
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.image_predictions import ImagePredictions
from ensemble_kit.inference.sources import Source, file_source
from ensemble_kit.predictions.method_predictions import decided
from ensemble_kit.predictions.table import Predictions
from ensemble_kit.run import Run

TRAINED = (
    "The run has no test part. In each member, all networks but one were trained on these images. "
    "The maps are therefore maps of training images."
)


@dataclasses.dataclass(frozen=True, eq=False)
class ChosenImages:
    """Images to explain.

    Parameters
    ----------
    kind : str
        `worst`, `disputed`, `right`, or `images` (named by the user).
    sources : tuple of Source
    truth : tuple of str
        The class of each image, or "" if unknown.
    notes : tuple of str
    values : mapping of member to float
        Shapley value of each member: its mean gain in out-of-fold balanced accuracy of the mean.
        Empty if unknown.
    """

    kind: str
    sources: tuple[Source, ...]
    truth: tuple[str, ...]
    notes: tuple[str, ...] = ()
    values: Mapping[str, float] = dataclasses.field(default_factory=dict)


def _worst(found: ImagePredictions, labels: Ints) -> Array:
    """Sort by probability of the true class, lowest first."""
    return found.proba[np.arange(len(labels)), labels]


def _right(found: ImagePredictions, labels: Ints) -> Array:
    """Sort correct predictions by probability, highest first. Wrong ones are NaN."""
    right = found.combined.predicted == labels
    return np.where(right, -_worst(found, labels), np.nan)


def _disputed(found: ImagePredictions, labels: Ints) -> Array:  # noqa: ARG001
    """Sort by disagreement of the members (mutual information), highest first."""
    return -found.mutual_information


KINDS: dict[str, Callable[[ImagePredictions, Ints], Array]] = {
    "worst": _worst,
    "disputed": _disputed,
    "right": _right,
}


def choose_images(run: Run, ensemble: Ensemble, kind: str, n_images: int) -> ChosenImages:
    """The first `n_images` of one kind.

    Parameters
    ----------
    run : Run
        The run of the ensemble.
    kind : {"worst", "disputed", "right"}
        `worst`: lowest probability of the true class. `disputed`: highest mutual information of the
        members. `right`: correct predictions with the highest probability.

    Raises
    ------
    UsageError
        The kind is unknown.
    DataError
        The run has no such image.
    """
    if kind not in KINDS:
        raise UsageError(
            f"Unknown choice '{kind}'", f"choices: {', '.join(KINDS)}", did_you_mean(kind, KINDS)
        )
    refuse_features(ensemble.stored.combiner)
    manifest = run.manifest()
    has_test = len(manifest.part("test")) > 0
    table = _complete(run, "test" if has_test else "oof", ensemble)
    names = [Source(str(one), "", _not_read) for one in table.sample_ids]
    score = KINDS[kind](ensemble.predictions_of(table.logits, names), table.labels)
    order = np.argsort(score, kind="stable")[: int(np.isfinite(score).sum())][:n_images]
    if not len(order):
        raise DataError(
            f"No image matches '{kind}'",
            f"{len(table)} images have predictions of all members",
            "Choose another kind, e.g. --worst 12",
        )
    place = {name: i for i, name in enumerate(manifest.sample_ids)}
    rows = manifest.table.iloc[[place[str(table.sample_ids[i])] for i in order]]
    sources = [
        dataclasses.replace(
            file_source(
                manifest.root, row["path"], name=row["path"], pair_path=row.get("pair_path", "")
            ),
            group=row["group"],
        )
        for row in rows.to_dict("records")
    ]
    truth = tuple(table.class_names[table.labels[i]] for i in order)
    notes = () if has_test else (TRAINED,)
    oof = _complete(run, "oof", ensemble)
    return ChosenImages(kind, tuple(sources), truth, notes, _values(oof))


def _complete(run: Run, part: str, ensemble: Ensemble) -> Predictions:
    """The rows of a part with predictions of all members of the ensemble."""
    table = run.predictions(part, partial=True).select(list(ensemble.member_names))
    return table.take(np.flatnonzero(table.available.all(axis=1)))


def _values(table: Predictions) -> dict[str, float]:
    """Shapley values as in `diversity`. Empty with one member, or with too many."""
    if not 1 < table.n_members <= MAX_MEMBERS:
        return {}
    classes = np.unique(table.labels)

    def balanced_accuracy(proba: Array) -> float:
        hits = decided(proba).predicted == table.labels
        return float(np.mean([hits[table.labels == c].mean() for c in classes]))

    found = member_values(softmax(table.logits), balanced_accuracy, empty=1 / table.n_classes)
    return dict(zip(table.member_names, map(float, found["shapley"]), strict=True))


def _not_read(path: str) -> npt.NDArray[np.uint8]:
    raise AssertionError(path)
