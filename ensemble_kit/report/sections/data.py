"""The section of data and split, and the leakage found in the run's records."""

from __future__ import annotations

from ensemble_kit.checked import read_checked
from ensemble_kit.errors import command, counted
from ensemble_kit.evaluation.tables.permutation_test import PERMUTATION_TEST
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.plots.counts import class_counts_figure
from ensemble_kit.report.content import Content
from ensemble_kit.report.leakage import leakage_sentence
from ensemble_kit.report.sections.section import Drawing, Fold, Section
from ensemble_kit.report.sheet import Cell, Sheet
from ensemble_kit.run.folder import ENSEMBLES

# More test patients than this are not listed on the page.
MAX_NAMED = 60


def data_section(content: Content) -> Section:
    """Images and patients of each class in each part, and the leakage verdict."""
    manifest, shown = content.manifest, content.classes.shown_names
    words = [split_sentence(content), leakage_sentence(content), *_permutation_test(content)]
    folds = [Fold("Folds", (), (), (folds_sheet(content),))]
    test_groups = sorted(set(manifest.part("test").groups.tolist()))
    if test_groups and manifest.has_groups and len(test_groups) <= MAX_NAMED:
        named = f"In the test part: {', '.join(test_groups)}"
        folds.append(Fold(f"The {content.unit}s of the test part", (named,)))
    sheet = parts_sheet(manifest)
    return Section(
        "data",
        "Data and split",
        tuple(words),
        (_figure(manifest, shown),),
        (),
        (Fold("Images and groups by class", (), (), (sheet.only((*shown, "all")),)), *folds),
    )


def split_sentence(content: Content) -> str:
    """Images and patients of both parts, and the unit of the split."""
    manifest = content.manifest
    sentences = []
    for split, noun in (("train", "training with cross-validation"), ("test", "the test part")):
        part = manifest.part(split)
        if len(part):
            of = f" of {counted(part.n_groups, content.unit)}" if manifest.has_groups else ""
            sentences.append(f"{counted(len(part), 'image')}{of} for {noun}")
    if len(sentences) == 1:
        sentences.append("no test part")
    return f"{'; '.join(sentences)}. Split by {'image' if content.by_image else content.unit}."


def _figure(manifest: Manifest, shown: tuple[str, ...]) -> Drawing:
    counts = manifest.counts().set_index(["split", "label"])
    splits = {"train": "training", "test": "test"}
    has = [split for split in splits if len(manifest.part(split))]

    def column(split: str, name: str) -> list[int]:
        known = counts[name].to_dict()
        return [int(known.get((split, label), 0)) for label in shown]

    figure = class_counts_figure(
        {splits[s]: column(s, "images") for s in has},
        {splits[s]: column(s, "groups") for s in has},
        shown,
        manifest.group_kind if manifest.has_groups else "image",
    )
    return Drawing("data", figure, "Images and patients of each class in training and test")


def _permutation_test(content: Content) -> list[str]:
    """The stored result of `stack --permutation-test`; empty if there is none."""
    folder = content.run.path / ENSEMBLES
    # Earlier versions write `null-check.json`.
    found = [p for p in (folder / PERMUTATION_TEST, folder / "null-check.json") if p.is_file()]
    if not found:
        return []
    again = command("stack", "--permutation-test", "--run", content.run.path)
    sentence = read_checked(found[0], advice=f"Run {again} again")["sentence"]
    return [f"Permutation test: {sentence}"]


def parts_sheet(manifest: Manifest) -> Sheet:
    """Images and patients per class in the training and the test part."""
    counts = manifest.counts().set_index(["split", "label"])
    has = [split for split in ("train", "test") if len(manifest.part(split))]
    rows = []
    for label in manifest.class_names:
        cells = [
            _count(counts.loc[(s, label)].to_dict() if (s, label) in counts.index else {})
            for s in has
        ]
        rows.append((Cell(label), *cells))
    parts = [manifest.part(split) for split in has]
    everything = [_count({"images": len(part), "groups": part.n_groups}) for part in parts]
    rows.append((Cell("all"), *everything))
    caption = f"Numbers of images, and below them of {manifest.group_kind}s"
    return Sheet("data", caption, (("", "class"), *(("", s) for s in has)), tuple(rows))


def _count(counts: dict[str, int]) -> Cell:
    return Cell(str(counts.get("images", 0)), str(counts.get("groups", 0)))


def folds_sheet(content: Content) -> Sheet:
    """Images and patients of each class in each fold."""
    counts = content.folds.counts(content.manifest.part("train"))
    known = counts.set_index(["fold", "label"])[["images", "groups"]].to_dict("index")
    folds = sorted(set(counts["fold"]))
    names = content.manifest.class_names
    rows = tuple(
        (Cell(label), *(_count(known.get((fold, label), {})) for fold in folds)) for label in names
    )
    columns = (("", "class"), *(("fold", str(fold)) for fold in folds))
    caption = f"Numbers of images, and below them of {content.unit}s, in each fold"
    return Sheet("folds", caption, columns, rows).only(content.classes.shown_names)
