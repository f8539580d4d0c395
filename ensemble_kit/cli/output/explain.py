"""Output of `explain`: the explained images, the tests of the maps, and the paths of the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.cli.output.text import columns, print_text
from ensemble_kit.errors import counted

SHOWN = 5
WHAT = {
    "worst": "with the lowest probability of the true class",
    "disputed": "on which the members' probabilities differ most",
    "right": "with the most certain correct predictions",
    "images": "of your choice",
}
TITLES = {
    "deletion": "deletion area (lower is better)",
    "insertion": "insertion area (higher is better)",
    "pointing": "pointing game (higher is better)",
    "share": "share on mask (higher is better)",
}


def print_explained(folder: Path, index: Mapping[str, Any]) -> None:
    """Print a summary that fits one screen."""
    for line in _lines(folder, index):
        print_text(line)


def _lines(folder: Path, index: Mapping[str, Any]) -> Iterator[str]:
    images = index["images"]
    good = [one for one in images if "error" not in one]
    yield f"{counted(len(good), 'image')} {WHAT[index['kind']]}, explained for {index['method']}."
    if index["kind"] == "disputed":
        n_united = sum(len(set(one["votes"].values())) == 1 for one in good)
        yield f"On {n_united} of them, all members predict the same class."
    first = index["maps"][0]
    for one in good[:SHOWN]:
        truth = f" (truth: {one['truth']})" if one["truth"] else ""
        name = one["image"].rpartition("/")[2]
        yield f"{one['number']:3d} {name}: {one['predicted'] or 'no class'}{truth}"
        yield f"    {one['maps'][first]['sentence']}"
        if "stain" in one:
            yield f"    {one['stain']['sentence']}"
    if len(good) > SHOWN:
        yield f"    {len(good) - SHOWN} more: ledger.csv"
    for one in [one for one in images if "error" in one][:SHOWN]:
        yield f"Cannot be read: {one['image']}: {one['error']}"
    for method, found in index["faithfulness"].items():
        yield from _faithfulness(method, found)
    yield ""
    yield from (f"Caveat: {note}" for note in index["notes"])
    yield f"Panels: {(folder / 'panels').as_posix()}"
    sheets = index["sheets"][first]
    if sheets:
        yield f"Contact sheet: {(folder / sheets[0]).as_posix()}"


def _faithfulness(method: str, found: Mapping[str, Any]) -> Iterator[str]:
    measures = [name for name in TITLES if name in found]
    if measures:
        one = found[measures[0]]
        yield ""
        yield f"{method}, {counted(one['n_images'], 'image')} of {counted(one['n_groups'], 'patient')} [95 % interval over patients]:"
        rows = [["map", *(TITLES[name].partition(" (")[0] for name in measures)]]
        for name in one["maps"]:
            rows.append([name, *(_interval(found[m]["maps"][name]) for m in measures)])
        yield from columns(rows, right=range(1, len(rows[0]))).splitlines()
        yield from (found[name]["sentence"] for name in measures)
    if "shuffled" in found:
        text = ", ".join(f"{k} {_interval(v)}" for k, v in found["shuffled"].items())
        yield f"Rank correlation with maps of shuffled weights, without sign (0: the map depends on training; 1: it does not): {text}."


def _interval(one: Mapping[str, float | None]) -> str:
    if one["value"] is None:
        return "not defined"
    if one["low"] is None:
        return f"{one['value']:.3f}"
    return f"{one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
