"""Writing RESULTS.md of an experiment: the table of variants, figures, data, versions and caveats."""

from __future__ import annotations

import datetime
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from ensemble_kit.doctor import diagnose
from ensemble_kit.explanation.stored import EXPLANATIONS
from ensemble_kit.files import digest_json, write_bytes, write_csv, write_text
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.plots.confusion import confusion_figure
from ensemble_kit.plots.leaderboard import leaderboard_figure
from ensemble_kit.plots.style import svg_bytes
from ensemble_kit.reproduce.experiment_file import Plan
from ensemble_kit.reproduce.published import differences, published_rows
from ensemble_kit.reproduce.results import METRIC, PARTS, Part, Results, Row
from ensemble_kit.reproduce.results_table import (
    PARTS_IN_WORDS,
    cells_of,
    constant_sentences,
    head_of,
    how_to_read,
    label_of,
    signed,
)
from ensemble_kit.run import Run
from ensemble_kit.run.records import versions

PAGE, TABLE = "RESULTS.md", "results.csv"
# Largest numbers of confusion matrices and of variants with maps on the page.
MAX_MATRICES, MAX_SHEETS = 12, 2
MAX_WIDTH = 1200
QUICK = (
    "**Quick run.** Image sizes, epochs and variants are reduced. The values show that the "
    "experiment runs from end to end. Do not compare them with the published values."
)
SYNTHETIC = "The images are synthetic tissue (phantom). The values have no meaning for any disease."
CAPTIONS = {
    "variants": "Balanced accuracy: points are values, lines are their 95 % intervals. The dotted line is the first row.",
    "confusion": "Confusion matrices: rows are true classes, columns are predicted classes. Percentages are of the true class.",
}


def write_results(plan: Plan, results: Results, seconds: Mapping[str, Mapping[str, float]]) -> Path:
    """Write RESULTS.md, results.csv and figures/ of a plan. Return the page's path."""
    table = long_table(results)
    write_csv(plan.out / TABLE, table)
    figures = {name: svg_bytes(figure) for name, figure in draw(results, table).items()}
    for name, image in figures.items():
        write_bytes(plan.out / "figures" / f"{name}.svg", image)
    sheets = contact_sheets(plan)
    for name, source in sheets.items():
        write_bytes(plan.out / "figures" / name, small_jpeg(source))
    page = plan.out / PAGE
    write_text(page, render(plan, results, seconds, list(figures), list(sheets)))
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
    names = {(row.variant, row.method): label_of(results, row) for row in results.rows}
    named = list(names.values())
    keys = zip(table["variant"], table["method"], strict=True)
    scores = table.assign(method=[names[key] for key in keys])
    found = {"variants": leaderboard_figure(scores, named, metric=METRIC, baseline=named[0])}
    main = [row for row in results.rows if row.is_main][:MAX_MATRICES]
    matrices = {f"{row.variant}, {PARTS_IN_WORDS[_last(row)[0]]}": _last(row)[1].confusion for row in main}  # fmt: skip
    found["confusion"] = confusion_figure(matrices, results.class_names)
    return found


def render(
    plan: Plan,
    results: Results,
    seconds: Mapping[str, Mapping[str, float]],
    figures: Sequence[str],
    sheets: Sequence[str],
) -> str:
    """The page as Markdown."""
    run = Run(plan.variants[0].experiment.run_path)
    manifest = run.manifest()
    blocks = [f"# {plan.file.title}: results", _made(plan)]
    if plan.is_quick:
        blocks.append(f"{QUICK} {SYNTHETIC if plan.is_phantom else ''}".strip())
    blocks += [
        "## Variants",
        _table(results),
        *_bullets(constant_sentences(results)),
        "How to read the table:",
        *_bullets(how_to_read(results)),
        *_bias(results),
        *_published(plan, results, manifest),
        "## Figures",
        *(f"![{name}](figures/{name}.svg)\n\n{CAPTIONS[name]}" for name in figures),
        *_maps(sheets),
        "The report of each run has the training curves, ROC curves and all tables: `runs/VARIANT/report/index.html`. Curves for TensorBoard: `tensorboard --logdir runs`.",
        "## Data",
        _data(manifest, results.rows[0].group_kind),
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


def contact_sheets(plan: Plan) -> dict[str, Path]:
    """The first contact sheets of the first variants: name of the figure -> file in the run."""
    found = {}
    for one in plan.variants[:MAX_SHEETS]:
        folder = Run(one.experiment.run_path).path / EXPLANATIONS
        for path in sorted(folder.glob("*/contact-sheet-1.*.png")):
            found[f"maps-{one.name}-{path.suffixes[-2][1:]}.jpg"] = path
    return found


def small_jpeg(source: Path) -> bytes:
    """A picture as JPEG, at most `MAX_WIDTH` pixels wide."""
    buffer = io.BytesIO()
    with Image.open(source) as picture:
        small = picture.convert("RGB")
        small.thumbnail((MAX_WIDTH, picture.height))
        small.save(buffer, format="JPEG", quality=80)
    return buffer.getvalue()


def _maps(sheets: Sequence[str]) -> list[str]:
    if not sheets:
        return []
    shown = "\n\n".join(f"![{Path(name).stem}](figures/{name})" for name in sheets)
    return [
        f"{shown}\n\nEvidence maps of the test images whose true class has the lowest probability. "
        "All maps: `runs/VARIANT/explanations`."
    ]


def _table(results: Results) -> str:
    return markdown(head_of(results), (cells_of(results, row) for row in results.rows))


def _bias(results: Results) -> list[str]:
    """A table for each variant that exists with both kinds of split."""
    blocks = []
    for name in dict.fromkeys(one.by_image for one in results.bias):
        some = [one for one in results.bias if one.by_image == name]
        rows = [(o.method, *map(str, o.values), signed(str(o.difference))) for o in some]
        blocks += [
            f"Balanced accuracy, cross-fitted, of `{name}` and `{some[0].by_group}` on the {some[0].n} images of {some[0].n_groups} patients that both predict. A positive difference means that the split by image overestimates the metric of new patients.",
            markdown(("method", "split by image", "split by patient", "difference"), rows),
        ]
    return ["## Split by image compared with split by patient", *blocks] if blocks else []


def _published(plan: Plan, results: Results, manifest: Manifest) -> list[str]:
    if plan.is_quick or not plan.file.published:
        return []
    head = ("published", "as a count", "source", "remark", "our accuracy, test")
    return ["## Published values", markdown(head, published_rows(plan, results, manifest))]


def _made(plan: Plan) -> str:
    device = next(one.found for one in diagnose(plan.runs) if one.name == "device")
    now = datetime.datetime.now(datetime.UTC).date().isoformat()
    flag = " --quick" if plan.is_quick else ""
    data = "" if plan.is_phantom else " --data DIR"
    return (
        f"Made on {now} by `ensemble-kit reproduce experiments/{plan.name}{data}{flag}` ({device})."
    )


def _data(manifest: Manifest, group_kind: str) -> str:
    counts = manifest.counts().rename(columns={"groups": f"{group_kind}s"})
    if group_kind == "image":
        counts = manifest.counts().drop(columns="groups")
    rows = [[str(cell) for cell in row] for row in counts.to_numpy().tolist()]
    return f"{manifest.name}:\n\n{markdown(list(counts.columns), rows)}"


def _runs(plan: Plan, seconds: Mapping[str, Mapping[str, float]]) -> str:
    rows = []
    for one in plan.variants:
        digests = Run(one.experiment.run_path).record["digests"]
        took = "; ".join(f"{step} {s:.0f} s" for step, s in seconds[one.name].items())
        short = (digest_json(one.variant.settings), digests["manifest"], digests["folds"])
        rows.append((one.name, *(d[:12] for d in short), took))
    table = markdown(("variant", "settings", "manifest", "folds", "time"), rows)
    first = plan.variants[0]
    options = ", ".join(f"{axis} {option}" for axis, option in first.variant.options.items())
    return (
        f"`{first.name}` has these options: {options}. The name of another variant lists its different "
        f"options. Settings, manifest and folds are digests.\n\n{table}"
    )


def _last(row: Row) -> tuple[str, Part]:
    name = PARTS[1] if PARTS[1] in row.parts else PARTS[0]
    return name, row.parts[name]


def _bullets(sentences: Iterable[str]) -> list[str]:
    listed = "\n".join(f"- {one}" for one in sentences)
    return [listed] if listed else []
