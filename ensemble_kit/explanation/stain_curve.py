"""A counterfactual: the probabilities as a function of the amount of one stain.

The stain's optical density is scaled by colour deconvolution with the vectors of Ruifrok & Johnston
(Anal Quant Cytol Histol 23:291-299, 2001). The changed image is then predicted.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch

from ensemble_kit.arrays import Array
from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.images.augmentation.stain_jitter import STAIN_VECTORS, restained
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.sources import Source
from ensemble_kit.predictions.method_predictions import ABSTAINED

Pixels = npt.NDArray[np.uint8]
STAINS = ("haematoxylin", "eosin", "dab")
# 1 is the unchanged image.
AMOUNTS = np.linspace(0.0, 2.0, 17)


@dataclasses.dataclass(frozen=True)
class Flip:
    """A change of the predicted class, and the amount of stain where it occurs."""

    amount: float
    before: str
    after: str


@dataclasses.dataclass(frozen=True, eq=False)
class StainCurve:
    """Probabilities by the amount of a stain.

    Parameters
    ----------
    stain : {"haematoxylin", "eosin", "dab"}
    amounts : array, shape (n_amounts,)
    proba : array, shape (n_amounts, n_classes)
    predicted : tuple of str, length n_amounts
        "" if the method abstained.
    flips : tuple of Flip
        In ascending order of amount. `before` is the class at smaller amounts.
    """

    stain: str
    class_names: tuple[str, ...]
    amounts: Array
    proba: Array
    predicted: tuple[str, ...]
    flips: tuple[Flip, ...]


def stain_curve(ensemble: Ensemble, source: Source, stain: str) -> StainCurve:
    """Predict an image with 0 to 2 times its amount of a stain.

    In a pair, DAB is changed in the IHC image, eosin in the H&E image, haematoxylin in both.

    Raises
    ------
    UsageError
        The stain is unknown.
    """
    _index(stain)
    he = source.read(source.path)
    ihc = source.read(source.pair_path) if source.pair_path else None
    images = [
        with_stain(he, stain, a)
        if ihc is None
        else (
            he if stain == "dab" else with_stain(he, stain, a),
            ihc if stain == "eosin" else with_stain(ihc, stain, a),
        )
        for a in AMOUNTS.tolist()
    ]
    found = ensemble.predict_all(images)
    predicted, names = found.combined.predicted, found.class_names
    classes = tuple("" if c == ABSTAINED else names[c] for c in predicted)
    flips = []
    for k in np.flatnonzero(predicted[1:] != predicted[:-1]):
        a, b = predicted[k], predicted[k + 1]
        if ABSTAINED not in (a, b):
            place = _crossing(found.proba[k : k + 2, a] - found.proba[k : k + 2, b])
            amount = AMOUNTS[k] + place * (AMOUNTS[k + 1] - AMOUNTS[k])
            flips.append(Flip(float(amount), names[a], names[b]))
    return StainCurve(stain, names, AMOUNTS, found.proba, classes, tuple(flips))


def with_stain(image: Pixels, stain: str, amount: float) -> Pixels:
    """An image with `amount` times its optical density of a stain.

    Parameters
    ----------
    image : array of uint8, shape (height, width, 3)

    Examples
    --------
    >>> white = np.full((2, 2, 3), 255, np.uint8)
    >>> bool((with_stain(white, "dab", 2.0) == white).all())
    True
    """
    if amount == 1:
        return image
    scale = torch.ones(3)
    scale[_index(stain)] = amount
    vectors = torch.tensor(STAIN_VECTORS)
    matrix = (vectors.T * scale) @ torch.linalg.inv(vectors.T)
    planar = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None].contiguous()
    changed = restained(planar, matrix[None], torch.zeros(1, 3, 1))
    return changed[0].permute(1, 2, 0).round().to(torch.uint8).numpy()


def _index(stain: str) -> int:
    if stain not in STAINS:
        raise UsageError(
            f"Unknown stain '{stain}'",
            f"stains are {', '.join(STAINS)}",
            did_you_mean(stain, STAINS),
        )
    return STAINS.index(stain)


def _crossing(difference: Array) -> float:
    """Position of the zero of a line through two differences, 0 to 1. Without a zero: 0.5."""
    first, last = map(float, difference)
    return first / (first - last) if first * last < 0 else 0.5
