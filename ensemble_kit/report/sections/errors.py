"""The section of errors: the confusion matrix, the images of each of its cells, and each class."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ensemble_kit.arrays import Ints
from ensemble_kit.errors import counted
from ensemble_kit.plots.confusion import confusion_figure
from ensemble_kit.predictions.method_predictions import MethodPredictions
from ensemble_kit.report.content import Content
from ensemble_kit.report.method_curves import confusion_counts
from ensemble_kit.report.sections.section import CellImages, Drawing, Fold, Picture, Section
from ensemble_kit.report.sheet import Cell, Sheet, text_sheet, values_sheet
from ensemble_kit.report.thumbnails import Thumbnails

# Most images of one cell, and of the whole page.
PER_CELL, PER_PAGE = 8, 120
CLASS_METRICS = ("sensitivity", "specificity", "precision", "f1", "auroc", "average_precision")


def errors_section(content: Content) -> Section:
    """Which classes are confused, and on which images."""
    predictions = content.compared("best-member")
    classes, chosen = content.classes, content.chosen
    matrices = {
        f"{m}, {content.part}": classes.merged(confusion_counts(a)) for m, a in predictions.items()
    }
    alt = f"Confusion matrices of {' and '.join(matrices)}: rows are true classes"
    figure = Drawing("confusion", confusion_figure(matrices, classes.axis_names), alt)
    pictures = Thumbnails(content.manifest)
    cells = tuple(_cells(content, predictions[chosen], pictures))
    words = [_sentence(content, predictions[chosen]), classes.note]
    words.append("Click a number in the table to see its images. All errors: `tables/errors.csv`.")
    if pictures.n_unreadable:
        words.append(_unreadable(content, pictures.n_unreadable))
    folds = [
        Fold("All cells and all errors", (), (), (cells_sheet(content), errors_sheet(content)))
    ]
    if (per_class := classes_sheet(content)) is not None:
        folds.insert(0, Fold("Each class against the rest", (), (), (per_class,)))
    return Section(
        "errors",
        "Confusion matrix",
        tuple(filter(None, words)),
        (figure,),
        (matrix_sheet(content, {c.key for c in cells}),),
        tuple(folds),
        cells=cells,
        is_row=True,
    )


def _unreadable(content: Content, n_images: int) -> str:
    if content.run.is_imported:
        return "The run has no image files, so images are shown by name."
    folder = content.manifest.root.resolve().as_posix()
    return f"{counted(n_images, 'image')} cannot be read in `{folder}`, so they are shown by name."


def _sentence(content: Content, predictions: MethodPredictions) -> str:
    counts = confusion_counts(predictions)
    wrong = counts - np.diag(np.diag(counts))
    n_wrong = int((predictions.predicted != predictions.labels).sum())
    text = f"{content.chosen} is wrong on {n_wrong} of {len(predictions.labels)} images ({content.part})."
    if wrong.any():
        names = content.manifest.class_names
        true, predicted = np.unravel_index(int(wrong.argmax()), wrong.shape)
        most = int(wrong.max())
        text += f" Most often: {names[true]} predicted as {names[predicted]} ({most} images)."
    n_patients = len(np.unique(predictions.groups[predictions.predicted != predictions.labels]))
    if n_wrong and content.manifest.has_groups:
        text += f" The errors are on images of {n_patients} of {len(np.unique(predictions.groups))} {content.unit}s."
    return text


def matrix_sheet(content: Content, keys: set[str]) -> Sheet:
    """The matrix of the chosen method; each number links to its images."""
    classes = content.classes
    counts = classes.merged(confusion_counts(content.predictions[content.chosen, content.part]))
    places = [*classes.indices, None] if not classes.is_all else list(classes.indices)
    rows = []
    for row, name, of_row in zip(places, classes.axis_names, counts, strict=True):
        linked = [_key(row, c) if _key(row, c) in keys else "" for c in places]
        numbers = (Cell(str(n), "", at) for n, at in zip(of_row, linked, strict=True))
        rows.append((Cell(name), *numbers))
    heads = [("", "true"), *(("predicted", name) for name in classes.axis_names)]
    caption = f"{content.chosen}, {content.part}: numbers of images"
    return Sheet("confusion", caption, tuple(heads), tuple(rows))


def _key(true: int | None, predicted: int | None) -> str:
    return "" if true is None or predicted is None else f"cell-{true}-{predicted}"


def _cells(
    content: Content, predictions: MethodPredictions, pictures: Thumbnails
) -> Iterator[CellImages]:
    """Cells of errors, the largest first; then cells of correct predictions."""
    shown, names = set(content.classes.indices), content.manifest.class_names
    counts = confusion_counts(predictions)
    order = np.argsort(-(counts - np.diag(np.diag(counts)) * counts.size).ravel(), kind="stable")
    pairs = [divmod(int(i), len(names)) for i in order]
    left = PER_PAGE
    for true, predicted in sorted(pairs, key=lambda pair: pair[0] == pair[1]):
        n = int(counts[true, predicted])
        if not n or not {true, predicted} <= shown or left <= 0:
            continue
        rows = _rows_of(predictions, true, predicted)[: min(PER_CELL, left)]
        left -= len(rows)
        of = "correct" if true == predicted else f"predicted as {names[predicted]}"
        how = "the least certain first" if true == predicted else "the most certain first"
        more = "" if len(rows) == n else f"{n - len(rows)} more: see the tables."
        yield CellImages(
            _key(true, predicted),
            f"{names[true]}, {of}: {len(rows)} of {n} images, {how}",
            tuple(_picture(content, predictions, i, pictures) for i in rows.tolist()),
            more,
        )


def _rows_of(predictions: MethodPredictions, true: int, predicted: int) -> Ints:
    """Errors, the most certain first; correct predictions, the least certain first."""
    rows = np.flatnonzero((predictions.labels == true) & (predictions.predicted == predicted))
    confidence = predictions.proba[rows, predicted]
    return rows[np.argsort(confidence if true == predicted else -confidence, kind="stable")]


def _picture(
    content: Content, predictions: MethodPredictions, i: int, pictures: Thumbnails
) -> Picture:
    names, sample_id = content.manifest.class_names, str(predictions.ids[i])
    true, predicted = int(predictions.labels[i]), int(predictions.predicted[i])
    lines = [sample_id]
    if content.manifest.has_groups:
        lines.append(f"{content.unit} {predictions.groups[i]}")
    for c in dict.fromkeys((true, predicted)):
        lines.append(f"p({names[c]}) = {predictions.proba[i, c]:.3f}")
    return Picture(pictures.of(sample_id), f"Image {sample_id}", tuple(lines))


def errors_sheet(content: Content) -> Sheet:
    """Every wrong image of the chosen method for the main part, the most certain error first."""
    predictions = content.predictions[content.chosen, content.part]
    names = (*content.manifest.class_names, "none")
    wrong = np.flatnonzero(predictions.predicted != predictions.labels)
    chosen = np.maximum(predictions.predicted, 0)
    confidence = np.where(
        predictions.predicted < 0, 0.0, predictions.proba[np.arange(len(chosen)), chosen]
    )
    rows: list[tuple[str, ...]] = [
        ("image", content.unit, "true", "predicted", "p(true)", "p(predicted)")
    ]
    for i in wrong[np.argsort(-confidence[wrong], kind="stable")].tolist():
        rows.append(
            (
                str(predictions.ids[i]),
                str(predictions.groups[i]),
                names[predictions.labels[i]],
                names[predictions.predicted[i]],
                f"{predictions.proba[i, predictions.labels[i]]:.3f}",
                f"{confidence[i]:.3f}",
            )
        )
    caption = f"Errors of {content.chosen}, {content.part}: {len(rows) - 1} images"
    shown = frozenset(row[0] for row in rows[1 : PER_CELL + 1])
    more = (
        "Only the first ones are shown. All errors: `tables/errors.csv`."
        if len(rows) > PER_CELL
        else ""
    )
    return text_sheet("errors", caption, rows, more, shown=shown)


def cells_sheet(content: Content) -> Sheet:
    """All cells with images, the largest first, of the chosen method and of the best member."""
    names = content.manifest.class_names
    rows: list[tuple[str, ...]] = [("method", "true", "predicted", "images")]
    for method, predictions in content.compared("best-member").items():
        counts = confusion_counts(predictions)
        for i in np.argsort(-counts.ravel(), kind="stable").tolist():
            true, predicted = divmod(i, len(names))
            if counts[true, predicted]:
                rows.append((method, names[true], names[predicted], str(counts[true, predicted])))
    caption = f"All cells with images, {content.part}"
    few = None if len(rows) <= 40 else frozenset[str]()
    return text_sheet("confusion_cells", caption, rows, shown=few)


def classes_sheet(content: Content) -> Sheet | None:
    """Each class against the rest, of the chosen method for the main part."""
    values = content.values
    own = values[
        (values["class"] != "")
        & (values["method"] == content.chosen)
        & (values["part"] == content.part.replace("-", "_"))
    ]
    if own.empty:
        return None
    sizes = own.drop_duplicates("class").set_index("class")["n"]
    return values_sheet(
        "classes",
        f"{content.chosen}, {content.part}: each class against the rest",
        own.rename(columns={"class": "row"}),
        rows=content.manifest.class_names,
        columns=[(m, own["part"].iloc[0]) for m in CLASS_METRICS if m in set(own["metric"])],
        head="class",
        note="AUROC and average precision rank images by the probability of that class.",
        smalls={c: f"{sizes.get(c, 0)} images" for c in content.manifest.class_names},
    ).only(content.classes.shown_names)
