"""The section on maps: images and faithfulness that `explain` stored in the run."""

from __future__ import annotations

import os
from collections.abc import Iterator

from PIL import Image

from ensemble_kit.errors import command, counted
from ensemble_kit.explanation.stored import StoredExplanations
from ensemble_kit.report.content import Content
from ensemble_kit.report.sections.section import Fold, Picture, Section
from ensemble_kit.report.thumbnails import jpeg_uri

TITLE = "Explanation maps"
KINDS = {
    "worst": "the images whose true class has the lowest probability",
    "disputed": "the images on which the members' probabilities differ most",
    "right": "correct predictions, the most certain first",
    "images": "images chosen by the user",
}
# Single panels on the page; the folder has all of them.
N_PANELS = 6
# CSS pixels; the pictures have a higher resolution, for print.
SHEET_WIDTH, CURVES_WIDTH, PANEL_WIDTH, FINER = 980, 700, 980, 1.4


def explanations_section(content: Content) -> Section:
    """The gallery, or one sentence with the command that makes one."""
    if not content.explanations:
        if not content.trainings:
            words = "The members were imported without their networks, so there are no maps."
        else:
            again = command("explain", "--faithfulness", "--run", content.run.path)
            words = f"No maps of members and ensemble are stored. To make them: `{again}`."
        return Section("explanations", TITLE, (words,), is_half=True)
    first, *others = content.explanations
    folds = [Fold("Single images", tuple(_notes(first)), pictures=tuple(_panels(content, first)))]
    folds += [
        Fold(f"Also stored: {KINDS[one.index['kind']]}", (), pictures=tuple(_sheets(content, one)))
        for one in others
    ]
    return Section(
        "explanations",
        TITLE,
        (_sentence(first), *_faithfulness(first)),
        folds=tuple(folds),
        pictures=(*_sheets(content, first), *_curves(content, first)),
    )


def _sentence(one: StoredExplanations) -> str:
    index = one.index
    n_images = sum("error" not in image for image in index["images"])
    which = KINDS[index["kind"]]
    return (
        f"Maps ({', '.join(index['maps'])}) of {index['method']} and its {counted(len(index['members']), 'member')} "
        f"for {counted(n_images, 'image')}: {which}. Bright regions support the predicted class."
    )


def _faithfulness(one: StoredExplanations) -> list[str]:
    """Whether the ensemble's map is better than the best member's, one sentence per metric."""
    found = [
        values["sentence"]
        for measures in one.index["faithfulness"].values()
        for values in measures.values()
        if isinstance(values, dict) and "sentence" in values
    ]
    if found:
        return [" ".join(found)]
    return ["The faithfulness of these maps was not measured (`explain --faithfulness`)."]


def _notes(one: StoredExplanations) -> list[str]:
    return [f"Caveat: {note}" for note in one.index["notes"]]


def _sheets(content: Content, one: StoredExplanations) -> Iterator[Picture]:
    """The first contact sheet of each kind of map."""
    for name, sheets in one.index["sheets"].items():
        for file in sheets[:1]:
            alt = f"Contact sheet: {name} of the ensemble on {KINDS[one.index['kind']]}"
            more = f"{len(sheets) - 1} more sheets are in the folder." if len(sheets) > 1 else ""
            yield _picture(content, one, file, alt, (name, more), SHEET_WIDTH)


def _curves(content: Content, one: StoredExplanations) -> Iterator[Picture]:
    for name, measures in one.index["faithfulness"].items():
        if "figure" in measures:
            alt = f"Mean deletion and insertion curves of {name} maps"
            words = (f"{name}: deletion (lower is better) and insertion (higher is better)",)
            yield _picture(content, one, measures["figure"], alt, words, CURVES_WIDTH)


def _panels(content: Content, one: StoredExplanations) -> Iterator[Picture]:
    good = [image for image in one.index["images"] if "error" not in image]
    for image in good[:N_PANELS]:
        name, own = next(iter(image["maps"].items()))
        truth = f" (is {image['truth']})" if image["truth"] not in ("", image["predicted"]) else ""
        text = f"{image['image']}: predicted {image['predicted']}{truth}"
        alt = f"{name} maps. {text}. {own['sentence']}"
        yield _picture(content, one, own["panel"], alt, (text,), PANEL_WIDTH)


def _picture(
    content: Content, one: StoredExplanations, file: str, alt: str, words: tuple[str, ...], width: int
) -> Picture:  # fmt: skip
    with Image.open(one.folder / file) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((round(FINER * width), 20 * width))
    link = os.path.relpath(one.folder / file, content.run.report_dir).replace(os.sep, "/")
    return Picture(jpeg_uri(picture), alt, tuple(filter(None, words)), link, width)
