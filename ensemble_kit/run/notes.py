"""The caveats of a run, which are shown beside every result of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_kit.errors import first_few
from ensemble_kit.predictions.store import MemberLogits

BY_IMAGE = (
    "Split by image: images of one group are on both sides of the split, so these metrics also "
    "reward recognising the group. Do not compare them with metrics of a split by group."
)
NO_GROUPS = "No groups are known: each image is treated as its own group."
UNBOUND = "This run is from a version without digests: changed files may not be noticed."


def run_notes(
    record: Mapping[str, Any], stored: Mapping[str, MemberLogits], absent: Sequence[str]
) -> list[str]:
    """The caveats of a run.

    Parameters
    ----------
    record : mapping
        The content of `run.json`.
    stored : mapping of member to MemberLogits
    absent : sequence of str
        Members that were requested but have no predictions.
    """
    notes = [*record["manifest"]["notes"], *record["folds"]["notes"]]
    if record["folds"]["split_by"] == "image":
        notes.insert(0, BY_IMAGE)
    elif record["manifest"]["group_kind"] == "image":
        notes.insert(0, NO_GROUPS)
    members: dict[str, list[str]] = {}
    for name, logits in stored.items():
        for caveat in logits.about.get("stamps", []):
            members.setdefault(caveat, []).append(name)
    notes += [f"{', '.join(names)}: {caveat}" for caveat, names in members.items()]
    if absent:
        notes.append(f"Not in these results, because predictions are missing: {first_few(absent)}.")
    return notes
