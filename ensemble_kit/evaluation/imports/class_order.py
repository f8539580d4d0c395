"""Caveats if rows or columns of an imported member seem to be in another order than the labels.

Only training rows are used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, Ints, softmax
from ensemble_kit.errors import first_few
from ensemble_kit.manifest.folders.walk import natural_key
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.metrics.ranking import macro_auroc, ranked_classes
from ensemble_kit.tables import as_list

# An AUROC within this many standard errors of 0.5 is at chance.
STANDARD_ERRORS = 2.0
# Another order is reported if its gain exceeds this many standard errors, and this value.
GAIN_ERRORS, LEAST_GAIN = 3.0, 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class ImportedMember:
    """An imported member.

    Parameters
    ----------
    name, path : str
    logits : array, shape (n_samples, n_classes)
        In the manifest's order of rows and classes; NaN for missing rows.
    is_array : bool
        Whether rows and columns were taken by their position.
    messages, caveats : tuple of str
        How the file was read; caveats that are shown beside every result.
    """

    name: str
    path: str
    logits: Array
    is_array: bool
    messages: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()


def array_notes(found: Sequence[ImportedMember], manifest: Manifest) -> list[str]:
    """A message on the assumed order of rows and columns of arrays."""
    arrays = [f"'{one.path}'" for one in found if one.is_array]
    if not arrays:
        return []
    columns = as_list(manifest.class_names)
    return [
        f"Columns of {first_few(arrays)} are taken as: {columns}. Another order: --classes. "
        "Rows are taken in the order of the labels."
    ]


def with_caveats(found: Sequence[ImportedMember], manifest: Manifest) -> list[ImportedMember]:
    """The members, with a caveat for each whose predictions do not fit the labels."""
    train = (manifest.table["split"] == "train").to_numpy()
    areas = [_area(one, manifest.labels, train) for one in found]
    best = max((area for area in areas if np.isfinite(area)), default=float("nan"))
    out = []
    for one, area in zip(found, areas, strict=True):
        other = [*_other_columns(one, manifest, train), *_other_rows(one, manifest, train, area)]
        caveats = other or _at_chance(one, manifest.labels, train, area, best)
        out.append(dataclasses.replace(one, caveats=(*one.caveats, *caveats)))
    return out


def _rows(one: ImportedMember, train: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return np.asarray(train & ~np.isnan(one.logits[:, 0]))


def _area(one: ImportedMember, labels: Ints, train: npt.NDArray[np.bool_]) -> float:
    rows = _rows(one, train)
    return macro_auroc(labels[rows], softmax(one.logits[rows])) if rows.any() else float("nan")


def _standard_error(labels: Ints, n_classes: int) -> float:
    """Standard error of a mean AUROC at chance: the mean over the classes."""
    n = len(labels)
    each = [
        np.sqrt((n + 1) / (12.0 * k * (n - k)))
        for c in ranked_classes(labels, n_classes)
        for k in [int((labels == c).sum())]
    ]
    return float(np.mean(each))


def _at_chance(
    one: ImportedMember, labels: Ints, train: npt.NDArray[np.bool_], area: float, best: float
) -> list[str]:
    rows = _rows(one, train)
    if not np.isfinite(area):
        return []
    margin = STANDARD_ERRORS * _standard_error(labels[rows], one.logits.shape[1])
    if area > 0.5 + margin:
        return []
    if np.ptp(one.logits[rows], axis=0).max() == 0:
        return ["all images have the same prediction"]
    word = "worse than chance" if area < 0.5 - margin else "at chance"
    beside = f", the best member {best:.2f}" if best > 0.5 + margin else ""
    cause = "the order of its rows and columns" if one.is_array else "its ids and class names"
    return [
        f"{word} on {int(rows.sum())} training images (AUROC {area:.2f}{beside}): check {cause}"
    ]


def _other_columns(
    one: ImportedMember, manifest: Manifest, train: npt.NDArray[np.bool_]
) -> list[str]:
    """A caveat if the columns fit the labels far better in another order; else empty."""
    from scipy.optimize import linear_sum_assignment

    rows = _rows(one, train)
    labels, proba = manifest.labels[rows], softmax(one.logits[rows])
    if not len(labels):
        return []
    n_classes = manifest.n_classes
    counts = np.zeros((n_classes, n_classes))  # true class x column of the highest probability
    np.add.at(counts, (labels, proba.argmax(axis=1)), 1.0)
    # The small diagonal leaves equal columns in place.
    order = linear_sum_assignment(counts + 1e-6 * np.eye(n_classes), maximize=True)[1]
    now, then = (proba.argmax(axis=1) == labels), (proba[:, order].argmax(axis=1) == labels)
    gain, error = _paired_gain(now, then)
    if gain < max(LEAST_GAIN, GAIN_ERRORS * error):
        return []
    # The class of each column of the file.
    names = [manifest.class_names[c] for c in np.argsort(order)]
    what = "columns are" if one.is_array else "column names belong to the classes"
    return [
        f"its predictions fit the labels better if its {what} {as_list(names)}: "
        f"accuracy {then.mean():.2f} instead of {now.mean():.2f}. Check that order"
        + (", and name it with --classes" if one.is_array else "")
    ]


def _paired_gain(now: npt.NDArray[np.bool_], then: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Mean gain and its standard error."""
    differences = then.astype(np.float64) - now
    return float(differences.mean()), float(differences.std() / np.sqrt(len(now)))


def _other_rows(
    one: ImportedMember, manifest: Manifest, train: npt.NDArray[np.bool_], area: float
) -> list[str]:
    """A caveat if an array's rows fit far better sorted by id, or by class and id; else empty."""
    if not one.is_array or not np.isfinite(area):
        return []
    ids, labels = manifest.sample_ids.tolist(), manifest.table["label"].tolist()
    names = {
        "sorted by image id": sorted(range(len(ids)), key=lambda i: ids[i]),
        "sorted by image id, numbers as numbers": sorted(
            range(len(ids)), key=lambda i: natural_key(ids[i])
        ),
        "sorted by class, then image id": sorted(
            range(len(ids)), key=lambda i: (labels[i], ids[i])
        ),
    }
    error = _standard_error(manifest.labels[_rows(one, train)], manifest.n_classes)
    for name, order in names.items():
        placed = np.empty_like(one.logits)
        placed[order] = one.logits
        then = _area(dataclasses.replace(one, logits=placed), manifest.labels, train)
        if then - area > max(LEAST_GAIN, 2 * GAIN_ERRORS * error):
            return [
                f"its rows fit the labels better if they are {name} (AUROC {then:.2f} instead of "
                f"{area:.2f}): check their order"
            ]
    return []
