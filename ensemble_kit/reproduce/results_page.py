"""RESULTS.md of an experiment: the table over variants, figures, and what they were made with.

Formats what `results` gathered; computes no metric.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ensemble_kit.doctor import diagnose
from ensemble_kit.files import digest_json, write_bytes, write_csv, write_text
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.plots.confusion import confusion_figure
from ensemble_kit.plots.leaderboard import leaderboard_figure
from ensemble_kit.plots.style import svg_bytes
from ensemble_kit.reproduce.experiment_file import Plan
from ensemble_kit.reproduce.published import differences, published_rows
from ensemble_kit.reproduce.results import METRIC, PARTS, Part, Results, Row, row_name
from ensemble_kit.run import Run
from ensemble_kit.run.records import versions

PAGE, TABLE = "RESULTS.md", "results.csv"
# More matrices than this are in the report of each run only.
MAX_MATRICES = 12
QUICK = (
    "**Quick run.** Sizes, epochs and variants are reduced. These values show that the experiment "
    "runs from end to end. They do not answer the published figures."
)
SYNTHETIC = "The images are synthetic tissue (phantom). The values say nothing about any disease."


def write_results(plan: Plan, results: Results, seconds: Mapping[str, Mapping[str, float]]) -> Path:
    """Write RESULTS.md, results.csv and figures/ of a plan, and return the page's path."""
    table = long_table(results)
    write_csv(plan.out / TABLE, table)
    figures = {name: svg_bytes(figure) for name, figure in draw(results, table).items()}
    for name, image in figures.items():
        write_bytes(plan.out / "figures" / f"{name}.svg", image)
    page = plan.out / PAGE
    write_text(page, render(plan, results, seconds, list(figures)))
    return page


def long_table(results: Results) -> pd.DataFrame:
    """Every metric of every row: `variant, method, split_by, part, metric, value, low, high, n, n_groups`."""
    records = [
        (row.variant, row.method, row.split_by, name, metric, one.value, one.low, one.high, part.n, part.n_groups)
        for row in results.rows
        for name, part in row.parts.items()
        for metric, one in part.metrics.items()
    ]  # fmt: skip
    columns = ["variant", "method", "split_by", "part", "metric", "value", "low", "high", "n", "n_groups"]  # fmt: skip
    return pd.DataFrame.from_records(records, columns=columns)


def draw(results: Results, table: pd.DataFrame) -> dict[str, Figure]:
    """A forest plot over all rows, and the confusion matrices of the variants' main methods."""
    named = [row_name(row.variant, row.method) for row in results.rows]
    scores = table.assign(
        method=[row_name(v, m) for v, m in zip(table["variant"], table["method"], strict=True)]
    )
    found = {"variants": leaderboard_figure(scores, named, metric=METRIC, floor=named[0])}
    main = [row for row in results.rows if row.is_main][:MAX_MATRICES]
    matrices = {f"{row.variant}, {_last(row)[0].replace('_', '-')}": _last(row)[1].confusion for row in main}  # fmt: skip
    found["confusion"] = confusion_figure(matrices, results.class_names)
    return found


def render(
    plan: Plan,
    results: Results,
    seconds: Mapping[str, Mapping[str, float]],
    figures: Sequence[str],
) -> str:
    """The page as Markdown."""
    run = Run(plan.variants[0].experiment.run_path)
    manifest = run.manifest()
    blocks = [f"# {plan.file.title}: results", _made(plan)]
    if plan.is_quick:
        blocks.append(f"{QUICK} {SYNTHETIC if plan.is_phantom else ''}".strip())
    blocks += [
        "## Variants",
        _reading(results),
        markdown(("variant", "method", "accuracy, test", "balanced accuracy, test", "balanced accuracy, cross-fitted", "minus the first row, cross-fitted", "verdict"), map(_cells, results.rows)),
        *_constants(results),
        *_bias(results),
        *_published(plan, results, manifest),
        "## Figures",
        *(f"![{name}](figures/{name}.svg)" for name in figures),
        "The report of each run has the training curves, ROC curves and all tables: `runs/VARIANT/report/index.html`. Curves for TensorBoard: `tensorboard --logdir runs`.",
        "## Data",
        _data(manifest),
        *_bullets(differences(plan.file.expected, manifest) if not plan.is_phantom else []),
        "## Runs",
        _runs(plan, seconds),
        "Versions: " + ", ".join(f"{k} {v}" for k, v in versions().items()) + ".",
        *(["## Caveats", *_bullets(results.notes)] if results.notes else []),
    ]  # fmt: skip
    return "\n\n".join(blocks) + "\n"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def verdict_of(part: Part) -> tuple[str, str]:
    """The difference to the first row with its interval, and the verdict in a word."""
    said = part.against_first
    return ("", "first row") if said is None else (_signed(str(said.effect)), said.word)


def constant_rows(results: Results) -> list[str]:
    """Names of the rows that predict one class for all images of a part."""
    return [
        row_name(row.variant, row.method)
        for row in results.rows
        if any(part.constant for part in row.parts.values())
    ]


def constant_sentences(results: Results) -> list[str]:
    """A sentence for each row that predicts one class for all images of a part."""
    found = []
    for row in results.rows:
        said = [
            f"'{part.constant}' for all {part.n} images ({name.replace('_', '-')}), accuracy {part.metrics['accuracy']!s}"
            for name, part in row.parts.items()
            if part.constant
        ]
        if said:
            found.append(
                f"{row_name(row.variant, row.method)} is a constant classifier. It predicts "
                f"{' and '.join(said)}: the share of that class."
            )
    return found


def _cells(row: Row) -> tuple[str, ...]:
    fitted, test = row.parts["cross_fitted"], row.parts.get("test")
    difference, word = verdict_of(fitted)
    word += " (constant)" if any(p.constant for p in row.parts.values()) else ""
    of_test = ["no test part"] * 2
    if test is not None:
        of_test = [str(test.metrics[m]) for m in ("accuracy", METRIC)]
    return (row.variant, row.method, *of_test, str(fitted.metrics[METRIC]), difference, word)


def _reading(results: Results) -> str:
    first = results.rows[0]
    fitted, test = first.parts["cross_fitted"], first.parts.get("test")
    kinds = dict.fromkeys(row.group_kind for row in results.rows)
    over = " and ".join(f"whole {kind}s" if kind != "image" else "images" for kind in kinds)
    n = f"{fitted.n} images of {fitted.n_groups} {first.group_kind}s cross-fitted"
    if test is not None:
        n += f", {test.n} of {test.n_groups} in the test part"
    said = (
        f"Values with 95 % intervals over {over}; in the first row {n}. Differences are paired "
        "on the same images, against the first row with the same kind of split. Their intervals "
        "are simultaneous over all rows of that split."
    )
    if "image" in kinds:
        said += " No patients are known: images are treated as independent, so the intervals are too narrow if patients have several images."
    return said


def _constants(results: Results) -> list[str]:
    return _bullets(constant_sentences(results))


def _bias(results: Results) -> list[str]:
    if not results.bias:
        return []
    rows = [
        (
            one.by_image,
            one.method,
            str(one.values[0]),
            str(one.values[1]),
            _signed(str(one.difference)),
        )
        for one in results.bias
    ]
    first = results.bias[0]
    return [
        "## Split by image against split by patient",
        f"Balanced accuracy, cross-fitted, on the {first.n} images of {first.n_groups} patients that both splits predict. The difference is the image-split bias.",
        markdown(("variant", "method", "split by image", "split by patient", "difference"), rows),
    ]


def _published(plan: Plan, results: Results, manifest: Manifest) -> list[str]:
    if plan.is_quick or not plan.file.published:
        return []
    head = ("published", "as a count", "source", "what it says", "ours: accuracy, test")
    return ["## Published figures", markdown(head, published_rows(plan, results, manifest))]


def _made(plan: Plan) -> str:
    device = next(one.found for one in diagnose(plan.runs) if one.name == "device")
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    flag = " --quick" if plan.is_quick else ""
    data = "" if plan.is_phantom else " --data DIR"
    return (
        f"Made on {now} by `ensemble-kit reproduce experiments/{plan.name}{data}{flag}` ({device})."
    )


def _data(manifest: Manifest) -> str:
    counts = manifest.counts()
    rows = [[str(cell) for cell in row] for row in counts.to_numpy().tolist()]
    return f"{manifest.name}:\n\n{markdown(list(counts.columns), rows)}"


def _runs(plan: Plan, seconds: Mapping[str, Mapping[str, float]]) -> str:
    rows = []
    for one in plan.variants:
        digests = Run(one.experiment.run_path).record["digests"]
        took = "; ".join(f"{step} {s:.0f} s" for step, s in seconds[one.name].items())
        short = (digest_json(one.variant.settings), digests["manifest"], digests["folds"])
        options = ", ".join(f"{axis}: {option}" for axis, option in one.variant.options.items())
        rows.append((one.name, options, *(d[:12] for d in short), took))
    head = ("variant", "options", "settings", "manifest", "folds", "time")
    return markdown(head, rows)


def _last(row: Row) -> tuple[str, Part]:
    name = PARTS[1] if PARTS[1] in row.parts else PARTS[0]
    return name, row.parts[name]


def _signed(value: str) -> str:
    return value if value.startswith(("-", "n/a")) else f"+{value}"


def _bullets(sentences: Iterable[str]) -> list[str]:
    listed = "\n".join(f"- {one}" for one in sentences)
    return [listed] if listed else []
