"""The index of a folder of explanations: its content with digests. It is written last.

`explanation.stored` reads it.
"""

from __future__ import annotations

import dataclasses
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.errors import counted
from ensemble_kit.explanation.caveats import map_caveats
from ensemble_kit.explanation.choose_images import ChosenImages
from ensemble_kit.explanation.faithfulness import SHARES
from ensemble_kit.explanation.fuse import relative
from ensemble_kit.explanation.options import ExplainOptions
from ensemble_kit.explanation.panes import KINDS, SCALED, TITLES
from ensemble_kit.explanation.stored import INDEX
from ensemble_kit.explanation.summary import mean_curves, summary_of
from ensemble_kit.files import digest_file, write_bytes, write_csv
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.plots.explanation import sheet_figure
from ensemble_kit.plots.faithfulness import faithfulness_figure
from ensemble_kit.plots.lettering import short
from ensemble_kit.plots.style import png_bytes

LEDGER = "ledger.csv"
PER_SHEET = 24


def write_index(
    folder: Path,
    ensemble: Ensemble,
    chosen: ChosenImages,
    options: ExplainOptions,
    records: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Write sheets, faithfulness, ledger and index, and remove files of earlier calls.

    Parameters
    ----------
    records : sequence of mapping
        One per image. Records of unreadable images have an `error`.

    Returns
    -------
    dict
        See `stored.StoredExplanations.index`.
    """
    good = [one for one in records if "error" not in one]
    files = {path: digest for one in good for path, digest in one["files"].items()}
    made = _Made(folder, files)
    sheets = {m: _sheets(made, good, ensemble.member_names, m) for m in options.maps}
    faithfulness = {m: _faithfulness(made, good, ensemble.class_names, m) for m in options.maps}
    write_csv(folder / LEDGER, _ledger(records, options.maps))
    files[LEDGER] = digest_file(folder / LEDGER)
    index = {
        "kind": chosen.kind,
        "source": ensemble.source,
        "method": ensemble.method,
        "members": list(ensemble.member_names),
        "made_of": dict(ensemble.stored.made_of),
        "member_values": dict(chosen.values),
        "class_names": list(ensemble.class_names),
        "maps": list(options.maps),
        "images": [{k: v for k, v in one.items() if k not in ("plan", "files")} for one in records],
        "sheets": sheets,
        "faithfulness": {k: v for k, v in faithfulness.items() if v},
        "notes": [*chosen.notes, *ensemble.stored.notes, *_caveats(good, options)],
        "files": files,
    }
    _remove_others(folder, set(files))
    write_checked(folder / INDEX, index)
    return index


@dataclasses.dataclass(frozen=True)
class _Made:
    """Writes figures of all images, and stores their digests."""

    folder: Path
    files: dict[str, str]

    def write(self, name: str, content: bytes) -> str:
        write_bytes(self.folder / name, content)
        self.files[name] = digest_file(self.folder / name)
        return name


def _sheets(
    made: _Made, records: Sequence[Mapping[str, Any]], members: Sequence[str], method: str
) -> list[str]:
    """Write contact sheets of `PER_SHEET` images each. Return their names."""
    written = []
    for page, start in enumerate(range(0, len(records), PER_SHEET), start=1):
        some = records[start : start + PER_SHEET]
        pictures = [
            np.asarray(Image.open(io.BytesIO((made.folder / r["picture"]).read_bytes())))
            for r in some
        ]
        arrays = [
            np.load(made.folder / r["maps"][method]["arrays"], allow_pickle=False) for r in some
        ]
        figure = sheet_figure(
            pictures,
            [relative(one[len(members)]) for one in arrays],
            [_caption(r, method) for r in some],
            about=f"{TITLES[method]} of the ensemble, {SCALED}",
            kind="pixels" if method in KINDS else "evidence",
        )
        written.append(made.write(f"contact-sheet-{page}.{method}.png", png_bytes(figure)))
    return written


def _caption(record: Mapping[str, Any], method: str) -> str:
    wanted = record["maps"][method]["class"]
    text = f"{record['number']}  {short(wanted, 14)} {record['proba'][wanted]:.2f}"
    if not record["truth"] or record["truth"] == record["predicted"]:
        return text
    return f"{text} (is {short(record['truth'], 14)})"


def _faithfulness(
    made: _Made, records: Sequence[Mapping[str, Any]], class_names: Sequence[str], method: str
) -> dict[str, Any]:
    found = summary_of(records, method, class_names)
    curves = mean_curves(records, method)
    if curves:
        areas = {
            kind: {name: one["value"] for name, one in found[kind]["maps"].items()}
            for kind in curves
        }
        figure = faithfulness_figure(SHARES, curves, areas)
        found["figure"] = made.write(f"faithfulness.{method}.png", png_bytes(figure))
    return found


def _ledger(records: Sequence[Mapping[str, Any]], maps: Sequence[str]) -> pd.DataFrame:
    rows = []
    for one in records:
        own = one.get("maps", {})
        row = {key: one.get(key, "") for key in ("number", "image", "group", "truth", "predicted")}
        row |= {f"p_{c}": p for c, p in one.get("proba", {}).items()}
        row |= {f"ledger_{m}": own[m]["sentence"] if m in own else "" for m in maps}
        row |= {"stain": one["stain"]["sentence"]} if "stain" in one else {}
        rows.append(row | {"error": one.get("error", "")})
    return pd.DataFrame(rows)


def _caveats(records: Sequence[Mapping[str, Any]], options: ExplainOptions) -> list[str]:
    sentences = []
    for method in options.maps:
        facts = [one["maps"][method] for one in records]
        sentences += map_caveats(method, facts[0]["cells"], [one["replaced"] for one in facts])
    own = Counter(caveat for one in records for caveat in one["caveats"])
    sentences += [f"{n} of {counted(len(records), 'image')}: {caveat}" for caveat, n in own.items()]
    if options.masks is not None and (n := sum("on_mask" not in one["maps"][options.maps[0]] for one in records)):  # fmt: skip
        sentences.append(f"{n} of {len(records)} images have no mask, or an empty one.")
    groups = {one["group"] for one in records}
    if options.faithfulness and "" in groups:
        sentences.append(
            "In intervals, each image without a known patient counts as a separate patient."
        )
    return sentences


def _remove_others(folder: Path, files: set[str]) -> None:
    """Remove files that an earlier index lists and this index does not."""
    if not (folder / INDEX).is_file():
        return
    before = read_checked(folder / INDEX, advice=f"Delete '{folder}', then run the same command")
    for name in set(before.get("files", {})) - files:
        (folder / name).unlink(missing_ok=True)
