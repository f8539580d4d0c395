"""`stack --set KEY=VALUE`: rarely used settings of `stack`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ensemble_kit.cli.options.methods import typed_value
from ensemble_kit.cli.options.selection_limits import Limits
from ensemble_kit.errors import UsageError, did_you_mean


@dataclasses.dataclass(frozen=True)
class StackSettings:
    """Settings by their key.

    Parameters
    ----------
    fallback : bool
        Replace a fitted method by the mean if its cross-fitted metric is not better.
    pool : {"mean", "vote", "max"}
        How the predictions of a patient's images are combined.
    decide_by_cost : bool
        Predict the class with the least expected cost; needs `--costs`.
    max_members : int or None
        Greedy selection and `--pareto` select at most as many members.
    budget_params, budget_ms : float or None
        Largest total number of parameters, or of milliseconds per image, of the selected members.
    """

    fallback: bool = True
    pool: str = "mean"
    decide_by_cost: bool = False
    max_members: int | None = None
    budget_params: float | None = None
    budget_ms: float | None = None

    @property
    def limits(self) -> Limits:
        """The limits on greedy selection."""
        return Limits(self.max_members, self.budget_params, self.budget_ms)


_KINDS = {"max_members": 1, "budget_params": 1.0, "budget_ms": 1.0}


def read_stack_settings(given: Sequence[str]) -> tuple[StackSettings, list[str]]:
    """The settings of `stack`, and the settings of methods (`METHOD.NAME=VALUE`) unchanged.

    Raises
    ------
    UsageError
        A key is unknown, or a value is invalid.

    Examples
    --------
    >>> found, rest = read_stack_settings(["pool=max", "greedy.n_bags=20"])
    >>> found.pool, rest
    ('max', ['greedy.n_bags=20'])
    """
    known = {f.name: f.default for f in dataclasses.fields(StackSettings)}
    values, rest = {}, []
    for one in given:
        key, sign, value = one.partition("=")
        if "." in key or not sign:
            rest.append(one)
            continue
        if key not in known:
            raise UsageError(
                f"Unknown setting '{key}' in '{one}'",
                "see stack --help-all for all settings",
                f"{did_you_mean(key, known)} Parameters of a method: METHOD.NAME=VALUE",
            )
        values[key] = typed_value(one, key, value, _KINDS.get(key, known[key]))
    return StackSettings(**values), rest
