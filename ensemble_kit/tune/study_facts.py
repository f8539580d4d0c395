"""The data and settings that all trials of a study share; they are stored and compared later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

from ensemble_kit.errors import DataError, first_few
from ensemble_kit.members.jobs.fold_files import changed_keys

FACTS = "facts"


def refuse_other_facts(study: optuna.Study, facts: Mapping[str, Any], what: str) -> None:
    """Store the data and settings of a new study; refuse a study that was begun with others.

    Raises
    ------
    DataError
        The study was begun with other data or settings; the message names the first differences.
    """
    known = study.user_attrs.get(FACTS)
    if known is None:
        study.set_user_attr(FACTS, dict(facts))
    elif changes := changed_keys(known, facts):
        raise DataError(
            f"The study of {what} was begun with other data or settings: {first_few(changes)}",
            "all trials of a study use the same data and settings",
            "Use another --run folder, or delete the folder 'tuned' in the run to begin again",
        )
