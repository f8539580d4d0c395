"""What the names of a data set give away: classes that are nearly equal, and masks among the images.

Opens no file.
"""

from __future__ import annotations

from ensemble_kit.audit.findings import Finding
from ensemble_kit.manifest.masks import mask_files
from ensemble_kit.manifest.names import near_equal
from ensemble_kit.manifest.table import Manifest


def name_findings(manifest: Manifest) -> list[Finding]:
    """Warnings on the names of classes and files."""
    return [*_nearly_equal(manifest), *_masks(manifest)]


def note_findings(manifest: Manifest) -> list[Finding]:
    """What the reader noted when it read the data, such as files that it passed over."""
    # That no groups are known is a finding of its own.
    said = [note for note in manifest.notes if "its own group" not in note]
    return [Finding("reading", "warning", 1, note.removesuffix(".")) for note in said]


def _nearly_equal(manifest: Manifest) -> list[Finding]:
    alike = near_equal(manifest.class_names)
    if not alike:
        return []
    return [
        Finding(
            "names-alike",
            "warning",
            len(alike),
            f"{len(alike)} sets of classes have names that are nearly equal: are they one class?",
            tuple(" and ".join(map(repr, names)) for names in alike[:5]),
        )
    ]


def _masks(manifest: Manifest) -> list[Finding]:
    masks = sorted(mask_files(manifest.table["path"].tolist()))
    if not masks:
        return []
    return [
        Finding(
            "masks",
            "warning",
            len(masks),
            f"{len(masks)} of {len(manifest)} images are masks of others, by their names",
            tuple(masks[:5]),
        )
    ]
