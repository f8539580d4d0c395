"""The jobs of nested cross-validation: the pairs of held-out folds, and their expected time.

Does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence

from ensemble_kit.checked import read_checked
from ensemble_kit.errors import UsageError, first_few
from ensemble_kit.folds.fold_key import pairs_of
from ensemble_kit.members.jobs.status import DAMAGED
from ensemble_kit.members.member import Member
from ensemble_kit.run import Run


def pairs_to_train(members: Sequence[Member], n_splits: int) -> list[str]:
    """The pairs of folds that every member is trained without.

    Raises
    ------
    UsageError
        A member selects its epoch on the held-out folds.
    DataError
        There are only two folds, so no fold is left for training.
    """
    selecting = [m.name for m in members if m.recipe.select_on == "held-out-fold"]
    if selecting:
        raise UsageError(
            f"{first_few(selecting)} chooses its epoch on the held-out folds (select_on)",
            "nested cross-validation must not see the folds that are left out",
            "Use select_on = 'none' or 'inner'",
        )
    return pairs_of(n_splits)


def seconds_of_pairs(run: Run, members: Sequence[Member], n_splits: int) -> float | None:
    """Expected seconds of the unfinished pairs, one at a time; None before every member has a fold.

    A pair trains on K - 2 folds, a finished fold on K - 1.
    """
    pairs, total = pairs_of(n_splits), 0.0
    for member in members:
        folders = [run.fold_dir(member.name, k) for k in range(n_splits)]
        records = [f / "fold.json" for f in folders if (f / "fold.json").is_file()]
        done = [read_checked(path, advice=DAMAGED.format(path, path.parent)) for path in records]
        if not done:
            return None
        left = sum(not (run.fold_dir(member.name, p) / "fold.json").is_file() for p in pairs)
        mean = sum(record["seconds"] for record in done) / len(done)
        total += left * mean * (n_splits - 2) / (n_splits - 1)
    return total
