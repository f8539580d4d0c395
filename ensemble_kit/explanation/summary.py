"""Means of the measures of maps over many images, with intervals over patients.

Lower is better for deletion. Higher is better for insertion and masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ensemble_kit.arrays import Array
from ensemble_kit.evaluation.uncertainty.group_means import mean_differences, mean_interval
from ensemble_kit.explanation.faithfulness import CENTRE, ENSEMBLE, RANDOM, area

# Measure -> (name, whether higher is better).
MEASURES = {
    "deletion": ("deletion area", False),
    "insertion": ("insertion area", True),
    "pointing": ("pointing game", True),
    "share": ("share of the map on the mask", True),
}
BASELINES = (RANDOM, CENTRE)


def summary_of(records: Sequence[Mapping[str, Any]], method: str, class_names: Sequence[str]) -> dict[str, Any]:  # fmt: skip
    """All measures of one method of making maps.

    Parameters
    ----------
    records : sequence of mapping
        Records of readable images.
    class_names : sequence of str
        Patients are stratified by class.

    Returns
    -------
    dict
        By measure: `n_images`, `n_groups`, `maps` (mean and interval by map), `best_member`,
        `difference` (by other map, positive if the ensemble is better), `verdict` and `sentence`.
        Under `shuffled`: correlations. Empty if nothing was measured.
    """
    out: dict[str, Any] = {}
    for measure, (words, more_is_better) in MEASURES.items():
        some = [r for r in records if _has(r["maps"][method], measure)]
        if some:
            values = _values(some, method, measure)
            out[measure] = _compared(values, some, method, class_names, words, more_is_better)
    shuffled = [r for r in records if "shuffled" in r["maps"][method]]
    if shuffled:
        names = shuffled[0]["maps"][method]["shuffled"]
        out["shuffled"] = {name: _shuffled(shuffled, method, name, class_names) for name in names}
    return out


def mean_curves(records: Sequence[Mapping[str, Any]], method: str) -> dict[str, dict[str, Array]]:
    """The mean deletion and insertion curve of each map, shape (n_steps,). Empty without curves."""
    found = [r["maps"][method]["curves"] for r in records if "curves" in r["maps"][method]]
    if not found:
        return {}
    return {
        kind: {name: np.mean([one[name][kind] for one in found], axis=0) for name in found[0]}
        for kind in ("deletion", "insertion")
    }


def _has(facts: Mapping[str, Any], measure: str) -> bool:
    return ("curves" if measure in ("deletion", "insertion") else "on_mask") in facts


def _values(records: Sequence[Mapping[str, Any]], method: str, measure: str) -> dict[str, Array]:
    """The values of a measure by map, shape (n_images,)."""
    facts = [r["maps"][method] for r in records]
    if measure in ("deletion", "insertion"):
        return {
            name: np.array([area(np.array(one["curves"][name][measure])) for one in facts])
            for name in facts[0]["curves"]
        }
    key = "hit" if measure == "pointing" else "share"
    return {
        name: np.array([float(one["on_mask"][name][key]) for one in facts])
        for name in facts[0]["on_mask"]
    }


def _shuffled(
    records: Sequence[Mapping[str, Any]], method: str, name: str, class_names: Sequence[str]
) -> dict[str, float | None]:
    """The mean correlation of one map, over the images without constant maps."""
    some = [r for r in records if r["maps"][method]["shuffled"][name] is not None]
    if not some:
        return {"value": None, "low": None, "high": None, "n_images": 0}
    values = np.array([r["maps"][method]["shuffled"][name] for r in some])
    found = _interval(values, _groups(some), _strata(some, method, class_names), (0.0, 1.0))
    return {**found, "n_images": len(some)}


def _compared(
    values: dict[str, Array],
    records: Sequence[Mapping[str, Any]],
    method: str,
    class_names: Sequence[str],
    words: str,
    more_is_better: bool,
) -> dict[str, Any]:
    groups, strata = _groups(records), _strata(records, method, class_names)
    sign = 1.0 if more_is_better else -1.0
    members = [name for name in values if name not in (ENSEMBLE, *BASELINES)]
    best = max(members, key=lambda name: sign * values[name].mean())
    # All members are compared simultaneously, because the best one is chosen on these images.
    others = {name: sign * values[name] for name in (*members, *BASELINES)}
    found = mean_differences(sign * values[ENSEMBLE], others, groups, strata)
    n_groups = len(np.unique(groups))
    return {
        "n_images": len(records),
        "n_groups": n_groups,
        "maps": {name: _interval(one, groups, strata, (0.0, 1.0)) for name, one in values.items()},
        "best_member": best,
        "difference": {name: vars(one.effect) for name, one in found.items()},
        "verdict": {name: _verdict(vars(one.effect)) for name, one in found.items()},
        "sentence": _sentence(values, best, found[best].effect, words, len(members)),
    }


def _sentence(values: dict[str, Array], best: str, effect: Any, words: str, n_members: int) -> str:
    ours, theirs = values[ENSEMBLE].mean(), values[best].mean()
    name = "the best member's" if n_members > 1 else "the only member's"
    by_word = {
        "better": f"The ensemble's map is better than {name}",
        "worse": f"The ensemble's map is worse than {name}",
        "not shown": f"The ensemble's map is not shown to be better than {name}",
    }[_verdict(vars(effect))]
    ends = "" if effect.low is None else f" [{effect.low:+.3f}, {effect.high:+.3f}]"
    return f"{words.capitalize()}: {by_word} ({best}): {ours:.3f} against {theirs:.3f}, gain {effect.value:+.3f}{ends}."


def _verdict(effect: Mapping[str, float | None]) -> str:
    low, high = effect["low"], effect["high"]
    if low is None or high is None or low <= 0 <= high:
        return "not shown"
    return "better" if low > 0 else "worse"


def _interval(values: Array, groups: Any, strata: Any, bounds: tuple[float, float]) -> dict[str, float | None]:  # fmt: skip
    return dict(vars(mean_interval(values, groups, strata, bounds=bounds)))


def _groups(records: Sequence[Mapping[str, Any]]) -> Any:
    """Patients. Each image without a known patient is a separate group."""
    return np.array([r["group"] or f"image {r['number']}" for r in records])


def _strata(records: Sequence[Mapping[str, Any]], method: str, class_names: Sequence[str]) -> Any:
    names = list(class_names)
    known = [r["truth"] or r["maps"][method]["class"] for r in records]
    return np.array([names.index(one) for one in known])
