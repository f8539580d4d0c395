"""Finished explanations in a run folder, read back with all files checked. Does not import torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.checked import check_file, read_checked
from ensemble_kit.errors import command
from ensemble_kit.run import Run

EXPLANATIONS, INDEX = "explanations", "index.json"


@dataclasses.dataclass(frozen=True, eq=False)
class StoredExplanations:
    """One folder of explanations, with all files checked.

    Parameters
    ----------
    folder : path
    index : mapping
        `kind`, `method`, `maps`, `made_of` (digests of the predictions), `member_values` (Shapley),
        `images` (records with paths in the folder), `sheets`, `faithfulness` (measures and figure by
        map), `notes`.
    """

    folder: Path
    index: Mapping[str, Any]


def list_explanations(run: Run) -> list[StoredExplanations]:
    """The finished explanations in a run's folder `explanations/`, sorted by name.

    Raises
    ------
    IntegrityError
        A file is missing or was changed.
    """
    found = []
    for path in sorted((run.path / EXPLANATIONS).glob(f"[!.]*/{INDEX}")):
        again = f"Run {command('explain', '--run', run.path)} again"
        index = read_checked(path, advice=again)
        for name, digest in index["files"].items():
            check_file(path.parent / name, digest, advice=again)
        found.append(StoredExplanations(path.parent, index))
    return found
