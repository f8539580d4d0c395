"""Choosing the golden images of a bundle from a run's images, and reducing their size.

Test images are preferred. `inference.golden` compares their predictions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.errors import DataError
from ensemble_kit.images.resize import resize
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.golden import N_IMAGES
from ensemble_kit.inference.sources import Pixels, Source, file_source, png_content
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.run import Run

N_CANDIDATES = 32
# If a member's two highest probabilities are closer than this, rounding may change its vote.
MARGIN = 0.01


@dataclasses.dataclass(frozen=True, eq=False)
class GoldenImages:
    """Small images and their logits of all members.

    Parameters
    ----------
    sources : tuple of Source
        Named as the files in the bundle.
    files : dict of name to bytes
        PNG files.
    member_logits : array, shape (n_images, n_members, n_classes)
    """

    sources: tuple[Source, ...]
    files: dict[str, bytes]
    member_logits: Array


def data_root(run: Run, manifest: Manifest) -> Manifest:
    """The manifest with an existing image folder, also from another working directory."""
    if manifest.root.is_dir():
        return manifest
    return dataclasses.replace(manifest, root=run.record.get("data_folder", manifest.root))


def sources_of(manifest: Manifest) -> list[Source]:
    """The images of a manifest, by their sample ids."""
    table = manifest.table
    pairs = table["pair_path"] if "pair_path" in table else [""] * len(table)
    rows = zip(table["path"], pairs, table["sample_id"], strict=True)
    return [file_source(manifest.root, p, name=name, pair_path=pair) for p, pair, name in rows]


def candidates(manifest: Manifest, n: int = N_CANDIDATES) -> Manifest:
    """Some images of the test part, or of all images, alternating over classes and groups."""
    part = manifest.part("test") if (manifest.table["split"] == "test").any() else manifest
    table = part.table
    turn = table.groupby(["label", "group"]).cumcount()
    order = np.lexsort((np.arange(len(table)), table["label"].to_numpy(str), turn.to_numpy()))
    by_class = {c: [i for i in order if table["label"].iloc[i] == c] for c in part.class_names}
    picked = [rows[k] for k in range(len(table)) for rows in by_class.values() if k < len(rows)]
    return part.take(np.array(picked[:n], dtype=np.int64))


def golden_images(ensemble: Ensemble, manifest: Manifest) -> GoldenImages:
    """Eight images of `candidates`, in the largest input size of the networks.

    Raises
    ------
    DataError
        The images of the run cannot be read.
    """
    size = max(spec.image_size for spec in ensemble.specs)
    small = [_small(one, size) for one in _readable(sources_of(candidates(manifest)), manifest)]
    logits = ensemble.member_logits(ensemble.tiles_of(small))
    rows = _clear_first(logits)[:N_IMAGES]
    files, sources = {}, []
    for i, row in enumerate(rows):
        one = small[row]
        names = [f"golden/{i}.png", *([f"golden/{i}-pair.png"] if one.pair_path else [])]
        pixels = [one.read(path) for path in (one.path, one.pair_path) if path]
        files.update({n: png_content(p) for n, p in zip(names, pixels, strict=True)})
        by_name = dict(zip(names, pixels, strict=True))
        sources.append(Source(names[0], names[0], by_name.__getitem__, "".join(names[1:])))
    return GoldenImages(tuple(sources), files, logits[rows])


def _readable(sources: Sequence[Source], manifest: Manifest) -> Sequence[Source]:
    if not sources or not manifest.root.exists():
        raise DataError(
            f"The folder '{manifest.root}' with the images of the run does not exist",
            "a bundle stores eight small images of this folder",
            "Export on the machine that has the images",
        )
    return sources


def _small(source: Source, size: int) -> Source:
    pixels: dict[str, Pixels] = {
        path: resize(source.read(path), size, size) for path in (source.path, source.pair_path) if path
    }  # fmt: skip
    return dataclasses.replace(source, read=pixels.__getitem__)


def _clear_first(logits: Array) -> npt.NDArray[np.int64]:
    """All rows, ordered so that rows with clear votes of all members come first."""
    top = np.sort(softmax(logits), axis=2)
    margin = (top[:, :, -1] - top[:, :, -2]).min(axis=1)
    return np.argsort(margin < MARGIN, kind="stable")
