"""An ensemble's predictions of images: classes, votes, uncertainty, prediction sets and decisions.

They are available as arrays, as a table, and as JSON values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ensemble_kit.arrays import Array, Bools, softmax
from ensemble_kit.inference.image_caveats import SEPARATOR, KnownImages
from ensemble_kit.inference.sources import Source
from ensemble_kit.inference.stored_method import StoredMethod
from ensemble_kit.predictions.features import PooledFeatures
from ensemble_kit.predictions.method_predictions import ABSTAINED, Combined

ERROR = "error"


@dataclasses.dataclass(frozen=True, eq=False)
class ImagePredictions:
    """Predictions of images. Axis 0 is always the images.

    Parameters
    ----------
    names : tuple of str
        The path or number of each image.
    class_names, member_names : tuple of str
    combined : Combined
        The ensemble's probabilities and classes.
    member_proba : array, shape (n_images, n_members, n_classes)
    sets : array of bool, shape (n_images, n_classes), optional
        Conformal prediction sets, if the run has thresholds for them.
    decisions : tuple of str, optional
        A class, `not CLASS` or `refer`, if the run has an operating point.
    caveats : tuple of tuple of str
        Caveats of each image: see `image_caveats`.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    member_names: tuple[str, ...]
    combined: Combined
    member_proba: Array
    sets: Bools | None = None
    decisions: tuple[str, ...] | None = None
    caveats: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def proba(self) -> Array:
        """Probabilities of the ensemble, shape (n_images, n_classes)."""
        return self.combined.proba

    @property
    def classes(self) -> npt.NDArray[np.str_]:
        """The predicted class of each image, "" if the method abstained."""
        names = np.array([*self.class_names, ""])
        return np.asarray(
            names[np.where(self.combined.predicted == ABSTAINED, -1, self.combined.predicted)]
        )

    @property
    def votes(self) -> npt.NDArray[np.str_]:
        """The most probable class of each member, shape (n_images, n_members)."""
        return np.asarray(np.array(self.class_names)[self._voted])

    @property
    def disagreement(self) -> Array:
        """Proportion of members that voted for another class than the ensemble, in [0, 1]."""
        return np.asarray((self._voted != self.combined.predicted[:, None]).mean(axis=1))

    @property
    def entropy(self) -> Array:
        """Entropy of the members' mean probabilities, in nats: the total uncertainty."""
        return _entropy(self.member_proba.mean(axis=1))

    @property
    def mutual_information(self) -> Array:
        """The part of the entropy that comes from disagreement between members, in nats."""
        within = _entropy(self.member_proba).mean(axis=1)
        return np.asarray(np.maximum(self.entropy - within, 0.0))

    @property
    def _voted(self) -> npt.NDArray[np.int64]:
        last = len(self.class_names) - 1
        # In an exact tie the last class wins, as in the combiners.
        return np.asarray(last - self.member_proba[:, :, ::-1].argmax(axis=2))

    def set_of(self, i: int) -> tuple[str, ...] | None:
        """The classes in image i's prediction set. None without prediction sets."""
        if self.sets is None:
            return None
        return tuple(c for c, inside in zip(self.class_names, self.sets[i], strict=True) if inside)

    def frame(self) -> pd.DataFrame:
        """One row per image: `image, predicted, p_<class> ..., vote_<member> ..., disagreement, ...`."""
        columns: dict[str, Any] = {"image": list(self.names), "predicted": self.classes}
        columns |= {f"p_{name}": self.proba[:, c] for c, name in enumerate(self.class_names)}
        columns |= {f"vote_{name}": self.votes[:, m] for m, name in enumerate(self.member_names)}
        columns |= {
            "disagreement": self.disagreement,
            "entropy": self.entropy,
            "mutual_information": self.mutual_information,
        }
        if self.sets is not None:
            columns["set"] = [SEPARATOR.join(self.set_of(i) or ()) for i in range(len(self))]
        if self.decisions is not None:
            columns["decision"] = list(self.decisions)
        columns["caveat"] = [SEPARATOR.join(caveats) for caveats in self.caveats]
        return pd.DataFrame(columns)

    def records(self) -> list[dict[str, Any]]:
        """The same as JSON values, one object per image."""
        return [self._record(i) for i in range(len(self))]

    def _record(self, i: int) -> dict[str, Any]:
        record: dict[str, Any] = {
            "image": self.names[i],
            "predicted": str(self.classes[i]) or None,
            "probabilities": _named(self.class_names, self.proba[i]),
            "votes": dict(zip(self.member_names, map(str, self.votes[i]), strict=True)),
            "disagreement": float(self.disagreement[i]),
            "entropy": float(self.entropy[i]),
            "mutual_information": float(self.mutual_information[i]),
        }
        if self.sets is not None:
            record["set"] = list(self.set_of(i) or ())
        if self.decisions is not None:
            record["decision"] = self.decisions[i]
        if self.caveats[i]:
            record["caveats"] = list(self.caveats[i])
        return record


def predictions_of(
    method: StoredMethod,
    logits: Array,
    sources: Sequence[Source],
    known: KnownImages,
    features: PooledFeatures | None = None,
) -> ImagePredictions:
    """A method's predictions from its members' logits.

    Parameters
    ----------
    logits : array of float32, shape (n_images, n_members, n_classes)
    sources : sequence of Source, length n_images
    known : KnownImages
        The images of the run.
    features : PooledFeatures, optional
        Required by methods over pooled features.
    """
    combined = method.combine(logits, features)
    return ImagePredictions(
        names=tuple(source.name for source in sources),
        class_names=method.class_names,
        member_names=method.member_names,
        combined=combined,
        member_proba=softmax(logits),
        sets=None if method.sets is None else method.sets.rule.predict(combined.proba),
        decisions=None
        if method.decision is None
        else tuple(method.decision.decide(combined, method.class_names)),
        caveats=tuple(known.caveats(source) for source in sources),
    )


def joined(parts: Sequence[ImagePredictions]) -> ImagePredictions:
    """The predictions of all parts, in their order. At least one part is required."""
    first = parts[0]
    return dataclasses.replace(
        first,
        names=tuple(name for part in parts for name in part.names),
        combined=Combined(
            np.concatenate([part.combined.proba for part in parts]),
            np.concatenate([part.combined.predicted for part in parts]),
            np.concatenate([part.combined.tied for part in parts]),
        ),
        member_proba=np.concatenate([part.member_proba for part in parts]),
        sets=None if first.sets is None else np.concatenate([p.sets for p in parts]),  # type: ignore[misc]
        decisions=None
        if first.decisions is None
        else tuple(one for part in parts for one in part.decisions or ()),
        caveats=tuple(one for part in parts for one in part.caveats),
    )


def _entropy(proba: Array) -> Array:
    """Entropy along the last axis, in nats."""
    safe = np.where(proba > 0, proba, 1.0)
    return np.asarray(-(proba * np.log(safe)).sum(axis=-1))


def _named(names: Sequence[str], values: Array) -> Mapping[str, float]:
    return dict(zip(names, map(float, values), strict=True))
