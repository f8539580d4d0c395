"""Finds conflicting split settings, and refuses those that would be ignored."""

from __future__ import annotations

from collections.abc import Mapping

from ensemble_kit.errors import UsageError, first_few
from ensemble_kit.folds.user_splits import n_given_folds
from ensemble_kit.manifest.data_settings import DataSettings


def ignored_settings(data: DataSettings) -> dict[str, str]:
    """Settings that are ignored, each with the setting that overrides it.

    Raises
    ------
    DataError
        The table of splits cannot be read.

    Examples
    --------
    >>> ignored_settings(DataSettings(test_groups=("p1",)))
    {'test_size': 'test_groups', 'test_part': 'test_groups'}
    """
    if not data.splits:
        return dict.fromkeys(("test_size", "test_part"), "test_groups") if data.test_groups else {}
    ignored = dict.fromkeys(("test_groups", "test_size", "test_part"), "splits")
    n_folds = n_given_folds(data.splits)
    if n_folds is not None:
        ignored["fold_seed"] = "the fold column of splits"
        if n_folds != data.folds:
            ignored["folds"] = f"the fold column of splits ({n_folds} folds)"
    return ignored


def refuse_ignored(data: DataSettings, ignored: Mapping[str, str]) -> None:
    """Refuse a setting of the user that would be ignored.

    Parameters
    ----------
    ignored : mapping of str to str
        The result of `ignored_settings`. Settings with their default value are not refused.

    Raises
    ------
    UsageError
        The first such setting, by name.
    """
    for name, cause in ignored.items():
        value = getattr(data, name)
        if name in data.model_fields_set and value not in (None, ()):
            text = first_few(value) if isinstance(value, tuple) else value
            raise UsageError(
                f"{name} = {text} would be ignored, because of {cause}",
                "conflicting settings of the split are refused",
                f"Remove --{name.replace('_', '-')}, or {name} under [data]",
            )
