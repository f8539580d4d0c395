"""Classifies duplicate images: different labels, both sides of the split, different groups."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ensemble_kit.audit.findings import Finding, Severity
from ensemble_kit.audit.fingerprint import near_pairs
from ensemble_kit.audit.inspect import ImageFacts
from ensemble_kit.manifest.table import Manifest

Pair = tuple[int, int]


def exact_duplicates(manifest: Manifest, digests: Sequence[str]) -> list[Finding]:
    """Findings on images with equal digests; empty digests are ignored.

    Parameters
    ----------
    manifest : Manifest
    digests : sequence of str, length n_samples
    """
    return classify(manifest, equal_pairs(digests), exact=True)


def near_duplicates(manifest: Manifest, inspected: Sequence[ImageFacts]) -> list[Finding]:
    """Findings on images that are nearly equal after a turn or flip."""
    seen = [i for i, one in enumerate(inspected) if one.thumb is not None and one.signs is not None]
    if len(seen) < 2:
        return []
    signs = np.stack([inspected[i].signs for i in seen])  # type: ignore[misc]
    thumbs = np.stack([inspected[i].thumb for i in seen])  # type: ignore[misc]
    pairs = [(seen[a], seen[b]) for a, b, _ in near_pairs(signs, thumbs)]
    return classify(
        manifest,
        [(a, b) for a, b in pairs if inspected[a].pixels != inspected[b].pixels],
        exact=False,
    )


def equal_pairs(digests: Sequence[str]) -> list[Pair]:
    """The first image of each digest with each later one."""
    members: dict[str, list[int]] = defaultdict(list)
    for i, digest in enumerate(digests):
        if digest:
            members[digest].append(i)
    return [(same[0], other) for same in members.values() for other in same[1:]]


def classify(manifest: Manifest, pairs: Iterable[Pair], *, exact: bool) -> list[Finding]:
    """Pairs sorted into findings, the worst first: labels, splits, groups, within a group."""
    kinds: dict[str, list[Pair]] = defaultdict(list)
    labels, groups = manifest.labels, manifest.groups
    splits = manifest.table["split"].to_numpy()
    for a, b in pairs:
        if labels[a] != labels[b]:
            kinds["two-labels"].append((a, b))
        elif splits[a] != splits[b]:
            kinds["across-splits"].append((a, b))
        elif groups[a] != groups[b]:
            kinds["across-groups"].append((a, b))
        else:
            kinds["within-group"].append((a, b))
    return [_finding(manifest, kind, kinds[kind], exact) for kind in _MEANING if kind in kinds]


_MEANING = {
    "two-labels": "have different labels: one of them is wrong",
    "across-splits": "are in train and in test: the test metrics would be too optimistic",
    "across-groups": "do not share a group: they may be in different folds",
    "within-group": "are twice in one group: they count twice",
}


def _finding(manifest: Manifest, kind: str, pairs: list[Pair], exact: bool) -> Finding:
    severity: Severity = "warning"
    if exact and kind != "within-group":
        severity = "error"
    elif not exact and kind == "within-group":
        severity = "note"
    ids = manifest.sample_ids
    what = (
        "the same picture"
        if exact
        else "nearly the same picture (turned, mirrored or re-encoded copies count)"
    )
    return Finding(
        kind=("" if exact else "near-") + f"duplicate-{kind}",
        severity=severity,
        count=len(pairs),
        message=f"{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of images with {what} {_MEANING[kind]}",
        examples=tuple(f"{ids[a]} = {ids[b]}" for a, b in pairs[:5]),
    )
