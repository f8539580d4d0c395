"""Checks the names of classes, groups and files: nearly equal names, masks."""

from __future__ import annotations

from ensemble_kit.audit.findings import Finding
from ensemble_kit.errors import counted
from ensemble_kit.manifest.folders.masks import mask_files
from ensemble_kit.manifest.names import is_unknown, near_equal
from ensemble_kit.manifest.table import Manifest


def name_findings(manifest: Manifest) -> list[Finding]:
    """Findings on the names of classes, groups and files."""
    return [*_nearly_equal(manifest), *_groups(manifest), *_masks(manifest)]


def note_findings(manifest: Manifest) -> list[Finding]:
    """Notes of the reader, such as skipped files."""
    # Unknown groups are a separate finding.
    notes = [note for note in manifest.notes if "its own group" not in note]
    return [Finding("reading", "warning", 1, note.removesuffix(".")) for note in notes]


def _nearly_equal(manifest: Manifest) -> list[Finding]:
    alike = near_equal(manifest.class_names)
    if not alike:
        return []
    return [
        Finding(
            "names-alike",
            "warning",
            len(alike),
            f"{counted(len(alike), 'set')} of classes {'has' if len(alike) == 1 else 'have'} nearly equal names. Check whether they are one class",
            tuple(" and ".join(map(repr, names)) for names in alike[:5]),
        )
    ]


def _groups(manifest: Manifest) -> list[Finding]:
    """Groups that are unknown, and names of groups that probably mean the same one."""
    groups = manifest.table["group"]
    # Inferred groups are named after images.
    if not manifest.has_groups or groups.isin(manifest.table["sample_id"]).all():
        return []
    findings = []
    unknown = groups[groups.map(is_unknown)]
    if len(unknown):
        findings.append(
            Finding(
                "unknown-groups",
                "error",
                len(unknown),
                f"{counted(len(unknown), 'image', 'has')} no known {manifest.group_kind}: they are treated as "
                "images of one",
                tuple(map(repr, unknown.unique()[:5])),
            )
        )
    alike = near_equal(groups)
    if alike:
        findings.append(
            Finding(
                "groups-alike",
                "warning",
                len(alike),
                f"{sum(map(len, alike))} names of groups are nearly equal and are treated as "
                "different groups. If they are the same, write them in one way",
                tuple(" and ".join(map(ascii, some)) for some in alike[:5]),
            )
        )
    return findings


def _masks(manifest: Manifest) -> list[Finding]:
    masks = sorted(mask_files(manifest.table["path"].tolist()))
    if not masks:
        return []
    return [
        Finding(
            "masks",
            "warning",
            len(masks),
            f"{len(masks)} of {len(manifest)} images have names of masks of other images",
            tuple(masks[:5]),
        )
    ]
