"""Opens data or a run for the check; faults become findings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ensemble_kit.audit.findings import Finding
from ensemble_kit.audit.names import note_findings
from ensemble_kit.errors import DataError, UsageError, counted
from ensemble_kit.images.digests import with_digests
from ensemble_kit.manifest.layouts.detect import read_manifest
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.run import Run


def open_data(path: str | os.PathLike[str], **options: Any) -> tuple[Manifest, list[Finding]]:
    """The manifest of a data set or of a run, and the findings before any image is read.

    Groups on both sides of the test split are accepted here and reported by the check. For a run,
    changed or missing files are found by their digests.

    Raises
    ------
    DataError
        The path does not exist, or its layout cannot be read.
    UsageError
        Options are given for a run, or the reader does not have them.
    """
    where = Path(path)
    if not (where / "run.json").is_file():
        manifest = read_manifest(where, straddling=True, **options)
        return manifest, note_findings(manifest)
    if options:
        raise UsageError(
            f"Options were given for a run: {', '.join(options)}",
            "a run has its own manifest, so options of the data do not apply",
            "Remove the options",
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
            f"{counted(len(changed), 'file')} in '{manifest.root}' {'was' if len(changed) == 1 else 'were'} changed or removed after the run was made",
            tuple(changed[:5]),
        )
    ]
