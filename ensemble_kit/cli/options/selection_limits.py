"""Limits on greedy selection in `stack`: number of members, and their total cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ensemble_kit.errors import DataError, UsageError, first_few

if TYPE_CHECKING:
    from ensemble_kit.combiners.base import Combiner
    from ensemble_kit.run import Run


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits that were given; None: no limit."""

    max_members: int | None
    budget_params: float | None
    budget_ms: float | None

    @property
    def any(self) -> bool:
        """Whether any limit is set."""
        return any(one is not None for one in dataclasses.astuple(self))

    @property
    def unit(self) -> str | None:
        """The unit of the budget; None without a budget."""
        if self.budget_params is not None and self.budget_ms is not None:
            raise UsageError(
                "Both budget_params and budget_ms were given",
                "only one budget can be used",
                "Remove one of them",
            )
        if self.budget_params is not None:
            return "parameters"
        return "ms_per_image" if self.budget_ms is not None else None

    @property
    def budget(self) -> float | None:
        """The largest total cost of the members, in that unit; None without a budget."""
        return self.budget_ms if self.budget_params is None else self.budget_params

    def apply(self, combiners: Mapping[str, Combiner], run: Run) -> None:
        """Set the limits on the combiners that select members.

        Raises
        ------
        UsageError
            No method selects members.
        """
        if not self.any:
            return
        selecting = [one for one in combiners.values() if "budget" in one.get_params(deep=False)]
        if not selecting:
            raise UsageError(
                f"A limit on the members was given for the methods {first_few(combiners)}",
                "only greedy selection can limit the members",
                "Add --method greedy",
            )
        costs = self.costs(run, self.unit) if self.unit else None
        for one in selecting:
            one.set_params(max_members=self.max_members)
            if costs is not None:
                one.set_params(costs=tuple(costs.values()), budget=self.budget)

    def pareto_costs(
        self, run: Run, is_requested: bool
    ) -> tuple[dict[str, float] | None, str, str]:
        """Costs for the Pareto table, their unit, and the reason if there is no table.

        The unit is that of the budget, else GMACs. Without known costs, the table is left out.

        Raises
        ------
        DataError
            A budget was given, and the costs are not known.
        """
        unit = self.unit or ("gmacs" if is_requested else None)
        if unit is None:
            return None, "", ""
        from ensemble_kit.evaluation.diversity.inference_cost import UNITS

        try:
            return self.costs(run, unit), UNITS[unit], ""
        except DataError as error:
            if self.unit:
                raise
            return None, "", f"No Pareto table. {error}"

    @staticmethod
    def costs(run: Run, unit: str) -> dict[str, float]:
        """The cost of each member, in the order of the stored predictions."""
        from ensemble_kit.evaluation.diversity.inference_cost import member_costs

        return member_costs(run, run.predictions("oof", partial=True).member_names, unit)
