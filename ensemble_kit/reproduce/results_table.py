"""The text of the table of variants: its cells, its legend, and the constant classifiers."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble_kit.evaluation.result import replaced_name
from ensemble_kit.reproduce.results import METRIC, Part, Results, Row, row_name

PARTS_IN_WORDS = {"test": "test", "cross_fitted": "cross-fitted"}


def one_method(results: Results) -> bool:
    """Whether all rows have the same method. The table then has no column of methods."""
    return len({row.method for row in results.rows}) == 1


def label_of(results: Results, row: Row) -> str:
    """The name of a row: its variant, with its method if there are several methods."""
    return row.variant if one_method(results) else row_name(row.variant, shown_method(row))


def shown_method(row: Row) -> str:
    """The method's name, marked if it was replaced by the mean."""
    return replaced_name(row.method) if row.replaced else row.method


def head_of(results: Results) -> tuple[str, ...]:
    """The head of the table on the page."""
    names = ("variant",) if one_method(results) else ("variant", "method")
    return (
        *names, "accuracy, test", "balanced accuracy, test", "balanced accuracy, cross-fitted",
        "AUROC, cross-fitted", "difference", "verdict",
    )  # fmt: skip


def cells_of(results: Results, row: Row) -> tuple[str, ...]:
    """A row of the table on the page."""
    fitted, test = row.parts["cross_fitted"], row.parts.get("test")
    names = (row.variant,) if one_method(results) else (row.variant, shown_method(row))
    of_test = ["no test part"] * 2
    if test is not None:
        of_test = [str(test.metrics[m]) for m in ("accuracy", METRIC)]
    difference, word = verdict_of(fitted)
    word += "; constant classifier" if row.is_constant else ""
    return (*names, *of_test, *(str(fitted.metrics[m]) for m in (METRIC, "auroc")), difference, word)  # fmt: skip


def verdict_of(part: Part) -> tuple[str, str]:
    """The difference from the first row with its interval, and the verdict as a word."""
    outcome = part.against_first
    return ("", "first row") if outcome is None else (signed(str(outcome.effect)), outcome.word)


def signed(value: str) -> str:
    """A difference with its sign."""
    return value if value.startswith(("-", "n/a")) else f"+{value}"


def constant_rows(results: Results) -> list[str]:
    """Names of the rows that predict one class for all images of a part."""
    return [label_of(results, row) for row in results.rows if row.is_constant]


def constant_sentences(results: Results) -> list[str]:
    """The constant classifiers, as one text per part and class."""
    rows: dict[tuple[str, str, int, str], list[str]] = {}
    for row in results.rows:
        for name, part in row.parts.items():
            if part.constant:
                key = (name, part.constant, part.n, str(part.metrics["accuracy"]))
                rows.setdefault(key, []).append(label_of(results, row))
    return [
        f"Constant classifiers ({PARTS_IN_WORDS[name]}): {', '.join(labels)}. They predict '{constant}' for "
        f"all {n} images. Their accuracy is the proportion of this class, {accuracy}."
        for (name, constant, n, accuracy), labels in rows.items()
    ]


def how_to_read(results: Results) -> list[str]:
    """The legend of the table."""
    n_classes = len(results.class_names)
    sentences = [
        f"**Test**: images that no network was trained on{_counts(results, 'test')}.",
        f"**Cross-fitted**: training images, each predicted by networks that were not trained on it{_counts(results, 'cross_fitted')}.",
        f"**Balanced accuracy**: the mean of the sensitivities of the {n_classes} classes. A constant classifier has {1 / n_classes:.3f}.",
        "**[low, high]**: 95 % interval over {}. A value has no interval if a class has images of one patient only, or if both rows of a difference have equal predictions.".format(
            " and ".join(_units(results))
        ),
        f"**Difference**: balanced accuracy, cross-fitted, minus the value of the first row{_of_its_split(results)}, on the same images. The intervals are simultaneous: 95 % of such tables have all true differences inside.",
        '**Verdict**: "better" or "worse" if the interval of the difference excludes 0, otherwise "not shown" (the data do not show a difference).',
    ]
    if members := [row.method for row in results.rows if row.is_member]:
        sentences.append(
            f"**Methods**: {', '.join(dict.fromkeys(members))} are single networks. The other rows combine them."
        )
    if "image" in {row.split_by for row in results.rows}:
        sentences.append(
            "**Split by image**: the networks were trained on other images of the same patients. Such values can be too high for new patients."
        )
    if "image" in {row.group_kind for row in results.rows}:
        sentences.append(
            "**Patients are unknown**: images count as independent. Intervals are too narrow if patients have several images."
        )
    return sentences


def _counts(results: Results, part: str) -> str:
    """The numbers of images and patients of a part, by kind of split, in brackets."""
    first = first_rows(results)
    several = len(first) > 1
    found = []
    for row in first:
        if part in row.parts:
            of, kind = row.parts[part], row.group_kind
            patients = "" if kind == "image" else f" of {of.n_groups} {kind}s"
            name = f"{row.variant}: " if several else ""
            found.append(f"{name}{of.n} images{patients}")
    return f" ({'; '.join(found)})" if found else ""


def first_rows(results: Results) -> list[Row]:
    """The first row of each kind of split, which is the baseline of the other rows."""
    found: dict[str, Row] = {}
    for row in results.rows:
        found.setdefault(row.split_by, row)
    return list(found.values())


def _of_its_split(results: Results) -> str:
    return " of the same kind of split" if len(first_rows(results)) > 1 else ""


def _units(results: Results) -> Sequence[str]:
    kinds = dict.fromkeys(row.group_kind for row in results.rows)
    return ["images" if kind == "image" else f"whole {kind}s" for kind in kinds]
