"""Draws synthetic patients: their HER2 score, tissue and stain."""

from __future__ import annotations

import dataclasses

import numpy as np

from ensemble_kit.errors import UsageError
from ensemble_kit.seeding import generator

SCORES = ("0", "1+", "2+", "3+")
# Images per score in BCI (0, 1+, 2+, 3+), for the same class imbalance.
BCI_COUNTS = (240, 1153, 2142, 1338)
MIN_PATIENTS = len(SCORES)


@dataclasses.dataclass(frozen=True)
class Patient:
    """One synthetic patient; all images of the patient share these values.

    Parameters
    ----------
    name, score, split : str
    positive : float
        Share of tumour cells whose membrane is stained.
    completeness : float
        Share of a stained cell's circumference; 1 is a closed ring.
    intensity : float
        Optical density of DAB on a stained membrane.
    spacing : float
        Pixels between cells in an image of 128 pixels.
    nucleus : float
        Radius of a nucleus as a share of the spacing.
    variety : float
        Spread of nuclear sizes: pleomorphism.
    tumour : float
        Share of the image that is tumour.
    lymphocytes : float
        Share of the cells between tumour nests that are lymphocytes.
    haematoxylin, eosin, dab_background : float
        Strengths of the stains; DAB beside the membranes is unspecific.
    white : tuple of float
        The scanner's white, per channel.
    blur : float
        Standard deviation of the blur, in pixels.
    """

    name: str
    score: str
    split: str
    positive: float
    completeness: float
    intensity: float
    spacing: float
    nucleus: float
    variety: float
    tumour: float
    lymphocytes: float
    haematoxylin: float
    eosin: float
    dab_background: float
    white: tuple[float, float, float]
    blur: float


# ASCO/CAP 2018, as ranges to draw a patient from: (positive cells, completeness, intensity).
#   0   none, or faint and incomplete in at most 10 % of the cells
#   1+  faint, incomplete, in more than 10 %
#   2+  weak to moderate, complete, in more than 10 %
#   3+  intense, complete, in more than 10 %
DEFINITION = {
    "0": ((0.0, 0.10), (0.15, 0.40), (0.10, 0.25)),
    "1+": ((0.25, 0.70), (0.25, 0.50), (0.22, 0.45)),
    "2+": ((0.25, 0.75), (0.95, 1.15), (0.30, 0.55)),
    "3+": ((0.45, 0.95), (1.00, 1.20), (0.75, 1.25)),
}


def draw_patients(n_patients: int, *, seed: int = 0) -> list[Patient]:
    """Patients with the class imbalance of BCI, a fifth of each class in the test part.

    Parameters
    ----------
    n_patients : int
        At least 4, one per score. From 12 on each score has at least three: two to train with and
        one to test. A score with fewer than three patients has none in the test part.
    seed : int

    Raises
    ------
    UsageError
        `n_patients` is below 4.

    Examples
    --------
    >>> from collections import Counter
    >>> sorted(Counter(p.score for p in draw_patients(40)).items())
    [('0', 3), ('1+', 9), ('2+', 17), ('3+', 11)]
    """
    if n_patients < MIN_PATIENTS:
        raise UsageError(
            f"{n_patients} patients are too few for a phantom",
            f"it needs at least {MIN_PATIENTS}, one per HER2 score",
            "Use --patients 12 or more for a data set that can be trained, e.g. 40",
        )
    rng = generator(seed, "phantom", "patients")
    scores = [
        score
        for score, n in zip(SCORES, patients_per_score(n_patients), strict=True)
        for _ in range(n)
    ]
    order = rng.permutation(n_patients)
    in_test = _test_patients(scores)
    return [
        _draw(
            f"P{place + 1:03d}",
            scores[i],
            "test" if i in in_test else "train",
            generator(seed, "phantom", i),
        )
        for place, i in enumerate(order)
    ]


def patients_per_score(n_patients: int) -> list[int]:
    """Patients per score in BCI's proportions, at least three each if there are 12 or more."""
    least = min(3, n_patients // len(SCORES))
    share = np.array(BCI_COUNTS) / sum(BCI_COUNTS) * n_patients
    counts = np.maximum(np.floor(share).astype(int), least)
    while counts.sum() != n_patients:
        step = 1 if counts.sum() < n_patients else -1
        gap = (share - counts) * step
        gap[(counts <= least) & (step < 0)] = -np.inf
        counts[int(gap.argmax())] += step
    return [int(c) for c in counts]


def _test_patients(scores: list[str]) -> set[int]:
    chosen: set[int] = set()
    for score in SCORES:
        own = [i for i, s in enumerate(scores) if s == score]
        if len(own) >= 3:
            chosen.update(own[: max(1, round(0.2 * len(own)))])
    return chosen


def _draw(name: str, score: str, split: str, rng: np.random.Generator) -> Patient:
    positive, completeness, intensity = (
        float(rng.uniform(*bounds)) for bounds in DEFINITION[score]
    )
    # Higher scores have slightly larger, more varied nuclei: a weak signal in H&E.
    severity = SCORES.index(score) / 3
    return Patient(
        name=name,
        score=score,
        split=split,
        positive=positive,
        completeness=completeness,
        intensity=intensity,
        spacing=float(rng.uniform(12.0, 17.0)),
        nucleus=float(rng.uniform(0.27, 0.35) + 0.05 * severity),
        variety=float(rng.uniform(0.06, 0.16) + 0.10 * severity),
        tumour=float(rng.uniform(0.45, 0.85)),
        lymphocytes=float(rng.uniform(0.0, 0.5)),
        haematoxylin=float(rng.uniform(0.55, 1.25)),
        eosin=float(rng.uniform(0.5, 1.2)),
        dab_background=float(rng.uniform(0.0, 0.22)),
        white=(
            float(rng.uniform(0.90, 0.99)),
            float(rng.uniform(0.90, 0.99)),
            float(rng.uniform(0.88, 0.99)),
        ),
        blur=float(rng.uniform(0.45, 0.95)),
    )
