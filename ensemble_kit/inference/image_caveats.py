"""Caveats of one image: it was a training image, or it has another magnification than the run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import PurePosixPath

from ensemble_kit.errors import DataError
from ensemble_kit.inference.sources import Source
from ensemble_kit.manifest.layouts.breakhis_names import parse_name
from ensemble_kit.manifest.table import Manifest

TRAINED = "Training image of this run. Do not report its prediction as a prediction of a new image."
SEPARATOR = " | "


@dataclasses.dataclass(frozen=True, eq=False)
class KnownImages:
    """The images of a run, by digest and BreakHis name.

    Parameters
    ----------
    split_of : mapping of str to str
        Maps the digest of a file, or the name of a BreakHis image, to `train` or `test`.
    has_digests : bool
    magnifications : frozenset of str
        Magnifications of the run's BreakHis images. Empty for other data.
    """

    split_of: Mapping[str, str]
    has_digests: bool
    magnifications: frozenset[str]

    @classmethod
    def of(cls, manifest: Manifest) -> KnownImages:
        """The images of a run's manifest."""
        table = manifest.table
        named = {
            name: split
            for name, split in zip(table["sample_id"], table["split"], strict=True)
            if parse_name(name) is not None
        }
        digests = (
            dict(zip(table["sha256"], table["split"], strict=True)) if "sha256" in table else {}
        )
        seen = table["magnification"].astype(str) if named and "magnification" in table else ()
        return cls({**named, **digests}, bool(digests), frozenset(seen))

    def caveats(self, source: Source) -> tuple[str, ...]:
        """The caveats of one image, as sentences."""
        sentences = [TRAINED] if "train" in self._splits(source) else []
        parsed = parse_name(_stem(source))
        own = "" if parsed is None else parsed["magnification"]
        if own and self.magnifications and own not in self.magnifications:
            trained = ", ".join(sorted(self.magnifications, key=int))
            sentences.append(
                f"The file name says magnification {own}x. The run was trained at {trained}x."
            )
        return tuple(sentences)

    def _splits(self, source: Source) -> set[str]:
        keys = [_stem(source)]
        if self.has_digests and source.digest is not None:
            # The file may have been deleted after it was decoded.
            with contextlib.suppress(DataError):
                keys.append(source.digest())
        return {self.split_of[key] for key in keys if key in self.split_of}


def _stem(source: Source) -> str:
    return PurePosixPath(source.name.replace("\\", "/")).stem
