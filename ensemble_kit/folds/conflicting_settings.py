"""Settings of a split that lose to another one: named, and refused where they were asked for.

Knows settings and the user's table of splits; splits nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from ensemble_kit.errors import UsageError, first_few
from ensemble_kit.folds.user_splits import n_given_folds
from ensemble_kit.manifest.data_settings import DataSettings


def overruled(data: DataSettings) -> dict[str, str]:
    """What another setting decides in the place of each setting that loses: loser to winner.

    Raises
    ------
    DataError
        The table of splits cannot be read.

    Examples
    --------
    >>> overruled(DataSettings(test_groups=("p1",)))
    {'test_size': 'test_groups', 'test_part': 'test_groups'}
    """
    if not data.splits:
        return dict.fromkeys(("test_size", "test_part"), "test_groups") if data.test_groups else {}
    lost = dict.fromkeys(("test_groups", "test_size", "test_part"), "splits")
    n_folds = n_given_folds(data.splits)
    if n_folds is not None:
        lost["fold_seed"] = "the fold column of splits"
        if n_folds != data.folds:
            lost["folds"] = f"the fold column of splits ({n_folds} folds)"
    return lost


def refuse_overruled(data: DataSettings, lost: Mapping[str, str]) -> None:
    """Refuse a setting that was asked for and would not be done.

    Parameters
    ----------
    lost : mapping of str to str
        What `overruled` found. What stands at its default was not asked for, and rests.

    Raises
    ------
    UsageError
        The first such setting, by name.
    """
    for name, winner in lost.items():
        value = getattr(data, name)
        if name in data.model_fields_set and value not in (None, ()):
            said = first_few(value) if isinstance(value, tuple) else value
            raise UsageError(
                "What is asked of a split is done, or refused",
                f"{name} = {said} would lose to {winner}",
                f"Leave it out: --{name.replace('_', '-')}, or {name} under [data]",
            )
