"""Opens data or a run for the linter: leniently, so that what is wrong can be said.

Does not judge images (check does).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ensemble_kit.audit.findings import Finding
from ensemble_kit.audit.names import note_findings
from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.images.digests import with_digests
from ensemble_kit.manifest.layouts.detect import read_manifest
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.run import Run


def open_data(path: str | os.PathLike[str], **options: Any) -> tuple[Manifest, list[Finding]]:
    """The manifest of a data set or of a run, and what is wrong with them before any look.

    Groups on both sides of the test split are let through, for the linter to name. Of a run,
    files that changed or went missing since are found by their digests.

    Raises
    ------
    DataError
        Nothing there, or a layout that cannot be read at all.
    UsageError
        Options for a run, or ones that the reader does not have.
    """
    where = Path(path)
    if not (where / "run.json").is_file():
        manifest = read_manifest(where, straddling=True, **options)
        return manifest, note_findings(manifest)
    if options:
        raise UsageError(
            "A run holds its own manifest", f"got {', '.join(options)}", "Leave the options out"
        )
    manifest = Run(where).manifest()
    return manifest, _changed(manifest)


def _changed(manifest: Manifest) -> list[Finding]:
    if "sha256" not in manifest.table:
        return []
    changed = []
    for row in range(len(manifest)):
        one = manifest.take([row])
        try:
            same = with_digests(one).table["sha256"][0] == one.table["sha256"][0]
        except DataError:
            same = False
        if not same:
            changed.append(str(one.table["path"][0]))
    if not changed:
        return []
    return [
        Finding(
            "changed-since-the-run",
            "error",
            len(changed),
            f"{len(changed)} files in '{manifest.root}' changed or went missing since the run was made",
            tuple(changed[:5]),
        )
    ]
