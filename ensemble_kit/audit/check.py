"""Checks a data set for errors that would make a result wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ensemble_kit.audit.color import ColorLeak, color_leak
from ensemble_kit.audit.duplicates import exact_duplicates, near_duplicates
from ensemble_kit.audit.findings import Audit, Finding, sorted_findings
from ensemble_kit.audit.inspect import ImageFacts, inspect_images
from ensemble_kit.audit.names import name_findings
from ensemble_kit.errors import DataError, counted
from ensemble_kit.manifest.checks import groups_on_both_sides
from ensemble_kit.manifest.layouts.breakhis_names import N_IMAGES, parse_name
from ensemble_kit.manifest.table import Manifest

LEAK_POINTS = 10
MIN_GROUPS = 5
IMBALANCE = 10


def check_data(
    manifest: Manifest,
    *,
    leak: bool = True,
    before: Sequence[Finding] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Audit:
    """Run all checks; every image is decoded once.

    Parameters
    ----------
    manifest : Manifest
        Read with `split_by="image"` if groups may be on both sides, so that the check reports them.
    leak : bool
        Whether to measure colour leakage.
    before : sequence of Finding
        Findings from opening the data (`ensemble_kit.audit.open.open_data`).
    progress : callable or None
        Called with (images done, total number of images).

    Returns
    -------
    Audit
        Its `exit_code` is 3 if a result would be wrong.
    """
    inspected = inspect_images(manifest, progress=progress)
    first = inspected[: len(manifest)]
    findings = [*before, *_files(inspected), *_tables(manifest)]
    findings += exact_duplicates(manifest, [one.pixels for one in first])
    findings += near_duplicates(manifest, first)
    measured = _measure(manifest, first) if leak else None
    findings += _leak_finding(measured, manifest.group_kind)
    return _audit(manifest, findings, measured)


def quick_check(manifest: Manifest) -> Audit:
    """The fast checks: no image is decoded.

    Groups and classes are counted. Equal files are found if the manifest has file digests
    (`ensemble_kit.images.digests.with_digests`).
    """
    findings = _tables(manifest)
    if "sha256" in manifest.table:
        findings += exact_duplicates(manifest, manifest.table["sha256"].tolist())
    return _audit(manifest, findings, None)


def _audit(manifest: Manifest, findings: list[Finding], leak: ColorLeak | None) -> Audit:
    return Audit(
        name=manifest.name,
        n_images=len(manifest),
        n_groups=manifest.n_groups,
        group_kind=manifest.group_kind,
        counts=count_table(manifest),
        findings=sorted_findings(findings),
        leak=leak,
    )


def count_table(manifest: Manifest) -> pd.DataFrame:
    """Images and groups per split, class and magnification (if known)."""
    by = ["split", "label", *(c for c in ("magnification",) if c in manifest.table)]
    out = (
        manifest.table.groupby(by)
        .agg(images=("sample_id", "size"), groups=("group", "nunique"))
        .reset_index()
    )
    place = {name: i for i, name in enumerate(manifest.class_names)}
    keys = pd.DataFrame({"split": out["split"] != "train", "label": out["label"].map(place)})
    if "magnification" in by:
        keys["magnification"] = pd.to_numeric(out["magnification"], errors="coerce")
    return out.loc[keys.sort_values(list(keys)).index].reset_index(drop=True)


def _files(inspected: Sequence[ImageFacts]) -> list[Finding]:
    bad = [one for one in inspected if one.fault]
    findings = []
    if bad:
        findings.append(
            Finding(
                "unusable",
                "error",
                len(bad),
                f"{len(bad)} of {len(inspected)} images cannot be read; training stops at them",
                tuple(one.fault for one in bad[:20]),
            )
        )
    ruled: dict[str, list[ImageFacts]] = defaultdict(list)
    for one in inspected:
        for rule in one.rules if not one.fault else ():
            ruled[rule].append(one)
    for rule, of in sorted(ruled.items()):
        findings.append(
            Finding(
                "converted",
                "note",
                len(of),
                f"{len(of)} {'image' if len(of) == 1 else 'images'}: {rule}",
                tuple(item.path for item in of[:5]),
            )
        )
    return [*findings, *_shapes([one for one in inspected if not one.fault])]


def _shapes(inspected: Sequence[ImageFacts]) -> list[Finding]:
    kinds = sorted({one.kind for one in inspected})
    findings = []
    if len(kinds) > 1:
        each = ", ".join(f"{kind}: {sum(one.kind == kind for one in inspected)}" for kind in kinds)
        findings.append(
            Finding(
                "mixed-formats",
                "note",
                len(kinds),
                f"{len(kinds)} kinds of files ({each}). Check that the kind of file does not depend on the class",
            )
        )
    sides = np.array([min(one.width, one.height) for one in inspected] or [1])
    usual = float(np.median(sides))
    odd = [
        one
        for one, side in zip(inspected, sides, strict=False)
        if side < usual / 4 or side > usual * 4
    ]
    if odd:
        findings.append(
            Finding(
                "odd-size",
                "warning",
                len(odd),
                f"{len(odd)} of {len(inspected)} images have sides four times smaller or larger than the median of {usual:.0f} pixels",
                tuple(f"{one.path} ({one.width} x {one.height})" for one in odd[:5]),
            )
        )
    return findings


def _tables(manifest: Manifest) -> list[Finding]:
    findings = []
    straddling = groups_on_both_sides(manifest.table) if manifest.has_groups else []
    if straddling:
        findings.append(
            Finding(
                "group-on-both-sides",
                "error",
                len(straddling),
                f"{counted(len(straddling), manifest.group_kind)} with images in train and in test",
                tuple(straddling[:5]),
            )
        )
    if not manifest.has_groups:
        findings.append(
            Finding(
                "no-groups",
                "warning",
                len(manifest),
                "No groups are known: images of one patient may be on both sides of a split",
            )
        )
    return [*findings, *_classes(manifest), *name_findings(manifest), *_incomplete(manifest)]


def _incomplete(manifest: Manifest) -> list[Finding]:
    """A note on missing images of the BreakHis archive, by magnification."""
    table = manifest.table
    if "magnification" not in table or any(parse_name(n) is None for n in manifest.sample_ids):
        return []
    counts = table["magnification"].astype(str).value_counts()
    here = {m: int(counts.get(m, 0)) for m in N_IMAGES if counts.get(m, 0)}
    few = [f"{n:,} of {N_IMAGES[m]:,} images at {m}x" for m, n in here.items() if n < N_IMAGES[m]]
    if not few:
        return []
    text = f"This is an excerpt of the BreakHis archive: {', '.join(few)}"
    return [Finding("incomplete", "note", sum(N_IMAGES[m] - n for m, n in here.items()), text)]


def _classes(manifest: Manifest) -> list[Finding]:
    train = manifest.part("train").table
    groups = (
        train.groupby("label")["group"].nunique().reindex(list(manifest.class_names), fill_value=0)
    )
    images = train["label"].value_counts().reindex(list(manifest.class_names), fill_value=0)
    findings = []
    few = groups[groups < MIN_GROUPS]
    if len(few):
        worst = few.min() < 2
        findings.append(
            Finding(
                "few-groups",
                "error" if worst else "warning",
                len(few),
                f"{len(few)} {'class comes' if len(few) == 1 else 'classes come'} from fewer than {MIN_GROUPS} groups, so not every one of {MIN_GROUPS} folds has it"
                + (
                    ". A class with one group cannot be trained and evaluated in cross-validation"
                    if worst
                    else ""
                ),
                tuple(f"{name}: {n}" for name, n in few.items()),
            )
        )
    if images.min() > 0 and images.max() / images.min() >= IMBALANCE:
        findings.append(
            Finding(
                "imbalance",
                "warning",
                1,
                f"The largest class has {images.max() / images.min():.0f} times as many images as the smallest",
                tuple(f"{name}: {n}" for name, n in images.items()),
            )
        )
    return findings


def _measure(manifest: Manifest, inspected: Sequence[ImageFacts]) -> ColorLeak | None:
    if not manifest.has_groups or manifest.n_groups == len(manifest):
        return None
    usable = np.array([one.colors is not None for one in inspected])
    if not usable.any():
        return None
    features = np.stack([one.colors for one in inspected if one.colors is not None])
    try:
        return color_leak(manifest.take(usable), features)
    except DataError:
        return None


def _leak_finding(leak: ColorLeak | None, unit: str) -> list[Finding]:
    if leak is None or leak.points < LEAK_POINTS:
        return []
    return [
        Finding(
            "color-gives-the-group-away",
            "warning",
            1,
            f"Colour alone reaches a balanced accuracy of {leak.by_image:.3f} with a split by image and "
            f"{leak.by_group:.3f} with a split by {unit}. A split by image can overestimate it by up to "
            f"{leak.points:.0f} points, because images of one {unit} share their colours",
        )
    ]
