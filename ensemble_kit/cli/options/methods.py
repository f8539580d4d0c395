"""`stack`'s flags as parameters of combiners: ties, seed, metric, and `--set METHOD.NAME=VALUE`.

Makes combiners; fits none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ensemble_kit.errors import UsageError, did_you_mean, first_few

if TYPE_CHECKING:
    from ensemble_kit.combiners.base import Combiner
    from ensemble_kit.manifest.table import Manifest

# Parameters that are tables, or belong to one: flags of their own give them.
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
        `METHOD.NAME=VALUE`; they win over the other arguments.
    seed, ties, positive, metric, error_costs
        Given to those that take them; None leaves their defaults.

    Raises
    ------
    UsageError
        An unknown method or parameter, a method that is not asked for, or a value of another kind.
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
        # A best member without a metric takes that of the table it is judged in.
        open_metric = {"metric"} if own.get("metric", "") is None else set()
        known = {*own} - open_metric
        one.set_params(**{k: v for k, v in shared.items() if v is not None and k in known})
    for setting in settings:
        _set(made, setting)
    return made


def positive_class(name: str | None, class_names: Sequence[str]) -> int | None:
    """The index of the class of `--positive`, None where the flag was not given.

    Raises
    ------
    UsageError
        No such class.
    """
    if name is None:
        return None
    if name not in class_names:
        raise UsageError(
            "The positive class is one of the run's",
            f"got '{name}'",
            did_you_mean(name, class_names),
        )
    return class_names.index(name)


def settle_severity(combiners: Mapping[str, Combiner], manifest: Manifest) -> str:
    """Give the most severe class to votes that break ties by severity, and return its name.

    Returns
    -------
    str
        "" where no vote breaks ties by severity.

    Raises
    ------
    UsageError
        Ties are to be broken by severity, and the most severe class is not known.
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
            if 0 <= chosen < manifest.n_classes:  # the vote itself refuses other numbers
                name = manifest.class_names[chosen]
    return name


def _most_severe(manifest: Manifest) -> int:
    if not manifest.most_severe:
        raise UsageError(
            f"The most severe class of {first_few(map(repr, manifest.class_names))} is not known",
            "got --ties severity, and the order of the classes has no stated meaning",
            "Name the class that must not be missed, with --positive CLASS",
        )
    return manifest.class_names.index(manifest.most_severe)


def _set(made: dict[str, Combiner], setting: str) -> None:
    where, sign, value = setting.partition("=")
    method, dot, name = where.partition(".")
    if not (sign and dot and name):
        raise UsageError(
            "A setting is METHOD.NAME=VALUE", f"got '{setting}'", "Use e.g. greedy.n_bags=20"
        )
    if method not in made:
        raise UsageError(
            "Settings are of methods that are asked for",
            f"got '{method}'",
            did_you_mean(method, made),
        )
    params = made[method].get_params(deep=False)
    if name not in params:
        raise UsageError(
            f"A setting of {method} is one of its parameters",
            f"got '{name}'",
            did_you_mean(name, params) if params else "It has none",
        )
    if name in BY_FLAG:
        raise UsageError(
            "What members and errors cost comes from files",
            f"got '{setting}'",
            f"Use {BY_FLAG[name]}",
        )
    made[method].set_params(**{name: typed_value(setting, name, value, params[name])})


def typed_value(setting: str, name: str, text: str, default: Any) -> Any:
    """`text` as a value of the kind of `default`; a combiner inside is given by its name."""
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
            f"{name} is {_kind(default)}", f"got '{setting}'", f"Its default is {default}"
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
