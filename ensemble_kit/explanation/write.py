"""Writing explanations of many images to one folder: panels, maps, records, sheets and an index.

A second call continues an interrupted one. Memory does not grow with the number of images.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ensemble_kit.errors import DataError, RunLockedError, UsageError, first_few
from ensemble_kit.explanation.choose_images import ChosenImages
from ensemble_kit.explanation.explain import BLOCK, BlockExplanation, Explanation, explain_blocks
from ensemble_kit.explanation.faithfulness import ENSEMBLE, curves, with_baselines
from ensemble_kit.explanation.image_files import ImageFiles
from ensemble_kit.explanation.index import write_index
from ensemble_kit.explanation.ledger import sentence
from ensemble_kit.explanation.masks import Masks, on_mask
from ensemble_kit.explanation.methods import check_method
from ensemble_kit.explanation.options import ExplainOptions
from ensemble_kit.explanation.panes import explanation_panel
from ensemble_kit.explanation.randomised import shuffled_correlations, with_shuffled_weights
from ensemble_kit.explanation.region_files import regions_of
from ensemble_kit.explanation.stain_files import write_stain_curve
from ensemble_kit.files import digest_json
from ensemble_kit.images.tiles.build import Tiles
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.fold_networks import MemberNetworks
from ensemble_kit.inference.sources import png_content
from ensemble_kit.locks import file_lock
from ensemble_kit.plots.style import png_bytes

# Increase if the same settings give other files.
VERSION = 3


def write_explanations(
    ensemble: Ensemble,
    chosen: ChosenImages,
    folder: Path,
    options: ExplainOptions | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Explain images and write the results to `folder`.

    Parameters
    ----------
    chosen : ChosenImages
    folder : path
    options : ExplainOptions, optional
    progress : callable, optional
        Called with (images done, all images).

    Returns
    -------
    dict
        The content of `folder/index.json`: see `index.write_index`.

    Raises
    ------
    UsageError
        A method, class or stain is unknown.
    DataError
        No image can be read.
    RunLockedError
        Another process is writing to the folder.
    """
    options = options or ExplainOptions()
    for one in options.maps:
        check_method(one)
    _refuse_pairs(ensemble, options)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / ".lock", seconds=0):
            return _Writer(ensemble, chosen, folder, options, progress).write()
    except TimeoutError as error:
        raise RunLockedError(
            f"Another process is writing to '{folder}'", "the folder is locked", "Wait until it ends, or choose another --out"
        ) from error  # fmt: skip


class _Writer:
    def __init__(
        self,
        ensemble: Ensemble,
        chosen: ChosenImages,
        folder: Path,
        options: ExplainOptions,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.ensemble, self.chosen, self.folder = ensemble, chosen, folder
        self.options, self.progress = options, progress or (lambda *_: None)
        self.masks = None if options.masks is None else Masks(options.masks)
        self.shuffled: list[MemberNetworks] = []
        if options.faithfulness:
            self.shuffled = [with_shuffled_weights(one) for one in ensemble.members]
        self.places = [ImageFiles(folder, i + 1, one.name) for i, one in enumerate(chosen.sources)]

    def write(self) -> dict[str, Any]:
        total = len(self.places)
        waiting = {i for i in range(total) if self._finished(i) is None}
        self.progress(total - len(waiting), total)
        for start in range(0, total, BLOCK):
            some = range(start, min(start + BLOCK, total))
            if missing := waiting & set(some):
                # Results can depend on the batch, so the whole block is computed again.
                self._write_block(some, missing)
                waiting -= missing
                self.progress(total - len(waiting), total)
        records = [self._finished(i) or {} for i in range(total)]
        bad = [one["error"] for one in records if "error" in one]
        if len(bad) == total:
            raise DataError(
                f"None of {total} images can be read", first_few(bad, 3), "Check the files"
            )
        return write_index(self.folder, self.ensemble, self.chosen, self.options, records)

    def _finished(self, i: int) -> dict[str, Any] | None:
        return self.places[i].finished(self._plan(i))

    def _plan(self, i: int) -> str:
        source = self.chosen.sources[i]
        return digest_json(
            {
                "version": VERSION,
                "image": [
                    source.name,
                    source.path,
                    source.pair_path,
                    source.file_state,
                    source.group,
                ],
                "truth": self.chosen.truth[i],
                "method": self.ensemble.method,
                "members": self.ensemble.stored.made_of,
                "options": self.options.plan(),
            }
        )

    def _write_block(self, some: Sequence[int], missing: set[int]) -> None:
        sources = [self.chosen.sources[i] for i in some]
        options = self.options
        (block,) = explain_blocks(
            self.ensemble, sources, options.maps, class_name=options.class_name
        )
        for position, error in block.faults.items():
            i = some[position]
            facts = self._about(i) | {"error": f"{error.problem}; {error.allowed}"}
            self.places[i].finish(self._plan(i), facts)
        correlations = {
            name: self._shuffled_correlations(one, block)
            for name, one in block.by_method.items()
            if self.shuffled
        }
        for row, position in enumerate(block.good.tolist()):
            i = some[position]
            if i not in missing:
                continue
            facts = self._about(i) | {"maps": {}}
            for name, found in block.by_method.items():
                tiles = {spec: _row(one, row) for spec, one in block.tiles.items()}
                own = self._measured(found, row, tiles)
                if name in correlations:
                    own["shuffled"] = correlations[name][row]
                facts["maps"][name] = own | self._files(i, found, row)
            facts |= _prediction(_first(block), row)
            picture = png_content(_first(block).pictures[row])
            facts["picture"] = self.places[i].write("pictures", "png", picture)
            if options.stain is not None:
                facts["stain"] = write_stain_curve(
                    self.ensemble, self.chosen.sources[i], options.stain, self.places[i]
                )
            self.places[i].finish(self._plan(i), facts)

    def _shuffled_correlations(
        self, found: Explanation, block: BlockExplanation
    ) -> list[dict[str, float | None]]:
        """For each image, the correlation of each map. None if a map is constant."""
        names = (*found.predictions.member_names, ENSEMBLE)
        with self.ensemble.lock:
            values = shuffled_correlations(self.shuffled, found, block.tiles).tolist()
        return [
            {name: v if np.isfinite(v) else None for name, v in zip(names, row, strict=True)}
            for row in values
        ]

    def _about(self, i: int) -> dict[str, Any]:
        source = self.chosen.sources[i]
        return {"number": i + 1, "image": source.name, "group": source.group, "truth": self.chosen.truth[i]}  # fmt: skip

    def _measured(
        self, found: Explanation, row: int, tiles: Mapping[TileSpec, Tiles]
    ) -> dict[str, Any]:
        """The measures of the maps of one image."""
        name = found.predictions.names[row]
        by_name = dict(zip(found.predictions.member_names, found.maps[row], strict=True))
        maps = with_baselines({**by_name, ENSEMBLE: found.ensemble[row]}, Path(name).name)
        out: dict[str, Any] = {
            "class": str(found.class_names[row]),
            "sentence": sentence(found, row),
            "cells": {name: list(cells) for name, cells in found.cells.items()},
            "replaced": bool(found.replaced[row]),
        }
        if self.options.faithfulness:
            with self.ensemble.lock:
                by_map = curves(
                    self.ensemble, tiles, maps, int(found.explained[row]), seed_name=Path(name).name
                )
            out["curves"] = {
                k: {"deletion": v.deletion.tolist(), "insertion": v.insertion.tolist()}
                for k, v in by_map.items()
            }
        inside = None if self.masks is None else self.masks.of(name, found.ensemble[row].shape)
        if inside is not None:
            scored = {k: on_mask(v, inside) for k, v in maps.items()}
            out["on_mask"] = {k: {"hit": v.hit, "share": v.share} for k, v in scored.items()}
            out["mask_area"] = float(inside.mean())
        return out

    def _files(self, i: int, found: Explanation, row: int) -> dict[str, str]:
        place, method = self.places[i], found.method
        panel = explanation_panel(found, row, truth=self.chosen.truth[i], values=self.chosen.values)
        arrays = np.concatenate(
            [found.maps[row], found.ensemble[row][None], found.disagreement[row][None]]
        )
        written = {
            "panel": place.write("panels", f"{method}.png", png_bytes(panel)),
            "arrays": place.write("maps", f"{method}.npy", _npy(arrays)),
        }
        if self.options.geojson:
            content = json.dumps(regions_of(self.chosen.sources[i], found, row), allow_nan=False)
            written["regions"] = place.write("regions", f"{method}.geojson", content.encode())
        return written


def _first(block: BlockExplanation) -> Explanation:
    return next(iter(block.by_method.values()))


def _prediction(found: Explanation, row: int) -> dict[str, Any]:
    table = found.predictions
    return {
        "predicted": str(table.classes[row]),
        "proba": dict(zip(table.class_names, map(float, table.proba[row]), strict=True)),
        "votes": dict(zip(table.member_names, map(str, table.votes[row]), strict=True)),
        "caveats": list(table.caveats[row]),
    }


def _refuse_pairs(ensemble: Ensemble, options: ExplainOptions) -> None:
    table = ensemble.manifest.table
    join = str(table["join"].iloc[0]) if "join" in table else "none"
    if options.geojson and join in ("side", "stack"):
        raise UsageError(
            f"--geojson was given, and the pairs of this run are joined by '{join}'",
            "regions need maps that lie on one image",
            "Leave --geojson out",
        )


def _row(tiles: Tiles, row: int) -> Tiles:
    return Tiles(tiles.pixels[row : row + 1], tiles.sample_ids[row : row + 1], "", tiles.image_size)


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
