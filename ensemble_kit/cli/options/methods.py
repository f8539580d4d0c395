"""Combiners from the options of `stack`: ties, seed, metric, and `--set METHOD.NAME=VALUE`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ensemble_kit.errors import UsageError, did_you_mean, first_few

if TYPE_CHECKING:
    from ensemble_kit.combiners.base import Combiner
    from ensemble_kit.manifest.table import Manifest

# Parameters that need a table or a unit: they have their own options.
BY_FLAG = {
    "costs": "--set budget_params=N or --set budget_ms=MS",
    "budget": "--set budget_params=N or --set budget_ms=MS",
    "error_costs": "--costs",
}
WORDS = {"true": True, "false": False, "none": None}


def combiners_of(
    names: Sequence[str],
    settings: Sequence[str],
    *,
    seed: int,
    ties: str | None = None,
    positive: int | None = None,
    metric: str | None = None,
    error_costs: tuple[tuple[float, ...], ...] | None = None,
) -> dict[str, Combiner]:
    """Unfitted combiners by method.

    Parameters
    ----------
    names : sequence of str
        Methods.
    settings : sequence of str
        `METHOD.NAME=VALUE`; they override the other arguments.
    seed, ties, positive, metric, error_costs
        Set in the methods that have them; None leaves the defaults.

    Raises
    ------
    UsageError
        A method or parameter is unknown, a method was not requested, or a value is invalid.
    """
    from ensemble_kit.combiners import make_combiner

    shared = {
        "seed": seed,
        "ties": ties,
        "positive": positive,
        "metric": metric,
        "error_costs": error_costs,
    }
    made = {name: make_combiner(name) for name in names}
    for one in made.values():
        own = one.get_params(deep=False)
        # Without a metric, the best member uses the metric of the evaluation.
        open_metric = {"metric"} if own.get("metric", "") is None else set()
        known = {*own} - open_metric
        one.set_params(**{k: v for k, v in shared.items() if v is not None and k in known})
    for setting in settings:
        _set(made, setting)
    return made


def positive_class(name: str | None, class_names: Sequence[str]) -> int | None:
    """The index of the class of `--positive`; None if it was not given.

    Raises
    ------
    UsageError
        There is no such class.
    """
    if name is None:
        return None
    if name not in class_names:
        raise UsageError(
            f"Unknown class '{name}' (--positive)",
            f"the classes are {first_few(map(repr, class_names))}",
            did_you_mean(name, class_names),
        )
    return class_names.index(name)


def settle_severity(combiners: Mapping[str, Combiner], manifest: Manifest) -> str:
    """Set the most severe class in votes that break ties by severity, and return its name.

    Returns
    -------
    str
        "" if no vote breaks ties by severity.

    Raises
    ------
    UsageError
        Ties are broken by severity, but the most severe class is not known.
    """
    name = ""
    for one in combiners.values():
        params = one.get_params()
        for key in [
            k for k, v in params.items() if k.split("__")[-1] == "ties" and v == "severity"
        ]:
            of_vote = key.removesuffix("ties") + "positive"
            if params[of_vote] is None:
                one.set_params(**{of_vote: _most_severe(manifest)})
            chosen = one.get_params()[of_vote]
            if 0 <= chosen < manifest.n_classes:  # the vote refuses other numbers
                name = manifest.class_names[chosen]
    return name


def _most_severe(manifest: Manifest) -> int:
    if not manifest.most_severe:
        raise UsageError(
            f"--ties severity: the order of the classes {first_few(map(repr, manifest.class_names))} is not known",
            "ties by severity need to know the most severe class",
            "Name the most severe class with --positive CLASS",
        )
    return manifest.class_names.index(manifest.most_severe)


def _set(made: dict[str, Combiner], setting: str) -> None:
    where, sign, value = setting.partition("=")
    method, dot, name = where.partition(".")
    if not (sign and dot and name):
        raise UsageError(
            f"Cannot read the setting '{setting}'",
            "a setting is written METHOD.NAME=VALUE",
            "Use e.g. greedy.n_bags=20",
        )
    if method not in made:
        raise UsageError(
            f"'{setting}' is a setting of '{method}', which is not in --method",
            f"settings are accepted for {first_few(made)}",
            did_you_mean(method, made),
        )
    params = made[method].get_params(deep=False)
    if name not in params:
        raise UsageError(
            f"{method} has no parameter '{name}'",
            f"its parameters are {first_few(params, 8)}" if params else "it has no parameters",
            did_you_mean(name, params) if params else "Remove this setting",
        )
    if name in BY_FLAG:
        raise UsageError(
            f"Cannot use the setting '{setting}'",
            "costs are given by their own options",
            f"Use {BY_FLAG[name]}",
        )
    made[method].set_params(**{name: typed_value(setting, name, value, params[name])})


def typed_value(setting: str, name: str, text: str, default: Any) -> Any:
    """`text` as a value with the type of `default`; an inner combiner is given by its name."""
    if name == "combiner":
        from ensemble_kit.combiners import make_combiner

        return make_combiner(text)
    if text.lower() in WORDS:
        value: Any = WORDS[text.lower()]
    else:
        value = _number(text)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not _is_like(value, default, name):
        raise UsageError(
            f"Invalid value in '{setting}'",
            f"{name} is {_kind(default)}",
            f"Its default is {default}",
        )
    return value


def _is_like(value: Any, default: Any, name: str) -> bool:
    if default is None:
        return not isinstance(value, str) or name == "metric"
    return type(value) is type(default) and not (type(value) is int and value < _least(default))


def _least(default: int) -> int:
    return 1 if default else 0


def _kind(default: Any) -> str:
    if type(default) is int:
        return f"a whole number of at least {_least(default)}"
    return {float: "a number", bool: "true or false", str: "a name"}.get(type(default), "a number")


def _number(text: str) -> int | float | str:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text
