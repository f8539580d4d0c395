"""Image-split bias: metrics of the same members under both kinds of split, paired by image."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.errors import DataError
from ensemble_kit.evaluation.scores.per_image import paired_gains, score_methods
from ensemble_kit.metrics import metric as metric_of
from ensemble_kit.predictions.method_predictions import Combined, decided
from ensemble_kit.predictions.table import Predictions


def image_split_bias(
    by_image: Predictions,
    by_group: Predictions,
    *,
    metric: str = "balanced_accuracy",
) -> pd.DataFrame:
    """Metric of each member and of the mean under both splits, and the difference.

    Parameters
    ----------
    by_image, by_group : Predictions
        Out-of-fold tables of the same members; metrics are over the images in both.
    metric : str

    Returns
    -------
    pandas.DataFrame
        `member, by_image, by_group, points, low, high, n, n_groups`; `points` is 100 x difference.

    Raises
    ------
    DataError
        Different members or classes, a table with another kind of split, or no common image.

    Examples
    --------
    >>> labels, groups = np.arange(8) % 2, np.repeat(list("abcd"), 2)
    >>> right, random = 4 * np.eye(2)[labels], np.zeros((8, 2)) + [0, 1]
    >>> table = lambda z, by: Predictions.from_arrays({"cnn": z}, labels, groups=groups, split_by=by)
    >>> image_split_bias(table(right, "image"), table(random, "group"))["points"].tolist()
    [50.0]
    """
    image, group = _paired(by_image, by_group)
    rows = []
    names = (*image.member_names, *(["mean"] if image.n_members > 1 else []))
    for name in names:
        scored = score_methods(
            {"image": _predicted(image, name), "group": _predicted(group, name)},
            image.labels,
            image.groups,
            image.n_classes,
            metrics=[metric],
        )
        values = {k: one.values[metric].value for k, one in scored.items()}
        more = dataclasses.replace(metric_of(metric), higher_is_better=True)
        effect = paired_gains({name: scored["image"]}, scored["group"], more)[name].effect
        low, high = (np.nan if end is None else end for end in (effect.low, effect.high))
        points = np.nan if None in values.values() else 100 * (values["image"] - values["group"])  # type: ignore[operator]
        rows.append(
            (
                name,
                values["image"],
                values["group"],
                points,
                100 * low,
                100 * high,
                len(image),
                image.n_groups,
            )
        )
    columns = ["member", "by_image", "by_group", "points", "low", "high", "n", "n_groups"]
    return pd.DataFrame(rows, columns=columns)


def _paired(by_image: Predictions, by_group: Predictions) -> tuple[Predictions, Predictions]:
    if (by_image.split_by, by_group.split_by) != ("image", "group"):
        raise DataError(
            f"The two tables are split by {by_image.split_by} and by {by_group.split_by}",
            "the image-split bias compares a split by image with a split by group",
            "Train with --protocol both",
        )
    same = (by_image.member_names, by_image.class_names) == (
        by_group.member_names,
        by_group.class_names,
    )
    common = sorted(set(by_image.sample_ids.tolist()) & set(by_group.sample_ids.tolist()))
    if not same or not common:
        raise DataError(
            f"The tables have the members {list(by_image.member_names)} and {list(by_group.member_names)}, "
            f"and {len(common)} common images",
            "the image-split bias compares the same members on the same images",
            "Train with --protocol both",
        )
    image, group = _taken(by_image, common), _taken(by_group, common)
    if not np.array_equal(image.labels, group.labels):
        raise DataError(
            "Some samples have different labels in the two tables",
            "each sample needs the same label in both",
            "Use runs over one data set",
        )
    return image, group


def _taken(table: Predictions, ids: list[str]) -> Predictions:
    place = {name: i for i, name in enumerate(table.sample_ids.tolist())}
    return table.take(np.array([place[name] for name in ids]))


def _predicted(table: Predictions, member: str) -> Combined:
    proba: Array = softmax(table.logits)
    if member == "mean":
        return decided(proba.mean(axis=1))
    return decided(np.ascontiguousarray(proba[:, table.member_names.index(member)]))
