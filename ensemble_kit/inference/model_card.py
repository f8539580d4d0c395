"""The model card of an ensemble: Markdown with a YAML head, in the format of Hugging Face.

The facts come from `card_facts`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ensemble_kit.errors import counted
from ensemble_kit.inference.card_facts import NONE, PARTS, UNKNOWN

Facts = Mapping[str, Any]


def model_card(facts: Facts, extra: Sequence[str] = ()) -> str:
    """The model card of a method.

    Parameters
    ----------
    facts : mapping
        See `card_facts.run_facts`.
    extra : sequence of str
        Sections before the caveats.
    """
    sections = [
        _head(facts),
        f"# {facts['name']}: {facts['method']} of {counted(len(facts['members']), 'member')}",
        _purpose(facts),
        "## Intended use\n\n" + _intended(facts),
        "## What it must not be used for\n\n" + _bullets(must_not(facts)),
        "## How to use it\n\n" + _use(facts),
        "## Data and split\n\n" + _data(facts),
        "## Metrics\n\n" + _metrics(facts),
        *extra,
        "## Limits and caveats\n\n" + _bullets(_limits(facts)),
        "## Members\n\n" + _members(facts),
    ]
    return "\n\n".join(sections) + "\n"


def must_not(facts: Facts) -> list[str]:
    """Uses that are excluded, as sentences."""
    classes = ", ".join(facts["class_names"])
    seen = f"{facts['data']['name']}" + (
        f" at {' and '.join(facts['magnifications'])}x" if facts["magnifications"] else ""
    )
    return [
        "Do not use it for diagnosis or treatment. It is research software, not a medical device.",
        f"Do not use it on images of another kind than {seen}: another tissue, stain, scanner or "
        "magnification. Its metrics are not valid there.",
        f"Do not use it to find out whether an image shows something else. Each image gets one of: {classes}. "
        "An image without tissue also gets one of them.",
        "Do not report its predictions of its training images as a result.",
    ]


def licence_of(facts: Facts) -> str:
    """One licence for the weights of all members, as Hugging Face names licences."""
    found = {one["weights_licence"] for one in facts["members"]} - {NONE}
    if not found:
        return UNKNOWN
    return found.pop() if len(found) == 1 else "other"


def _head(facts: Facts) -> str:
    lines = [
        f"license: {json.dumps(licence_of(facts))}",
        "library_name: ensemble-kit",
        "pipeline_tag: image-classification",
        "tags:",
        *(f"- {tag}" for tag in ("image-classification", "ensemble", "pathology")),
    ]
    results = [line for part in PARTS for line in _result(facts, part)]
    if results:
        lines += ["model-index:", f"- name: {json.dumps(facts['name'])}", "  results:", *results]
    return "\n".join(["---", *lines, "---"])


def _result(facts: Facts, part: str) -> list[str]:
    values = facts["metrics"].get(part, {})
    named = {m: v["value"] for m, v in values.items() if isinstance(v, dict)}
    defined = {m: v for m, v in named.items() if v is not None}
    if not defined:
        return []
    name = json.dumps(f"{facts['data']['name']}, {PARTS[part]}")
    return [
        "  - task:",
        "      type: image-classification",
        "    dataset:",
        f"      name: {name}",
        "      type: image-folder",
        f"      split: {'test' if part == 'test' else 'train'}",
        "    metrics:",
        *(
            line
            for metric, value in defined.items()
            for line in (f"    - type: {metric}", f"      value: {value:.6g}")
        ),
    ]


def _purpose(facts: Facts) -> str:
    n = sum(one["n_networks"] for one in facts["members"])
    return (
        f"An ensemble of {counted(len(facts['members']), 'member')} ({counted(n, 'network')}) that predicts one of "
        f"{len(facts['class_names'])} classes for an image: {', '.join(facts['class_names'])}. "
        f"The method `{facts['method']}` combines the members."
    )


def _intended(facts: Facts) -> str:
    text = (
        f"Research on images like those of {facts['data']['name']}. The unit of evaluation is the "
        f"{facts['group_kind']}. Validate it on images of your own laboratory before you rely on it."
    )
    if facts["positive"]:
        text += f" The class that must not be missed is `{facts['positive']}`."
    return text


def _use(facts: Facts) -> str:
    code = (
        "```python\nimport ensemble_kit as ek\n\n"
        'ensemble = ek.load_ensemble("FOLDER_OR_ZIP")\n'
        'ensemble.predict(["image.png"]), ensemble.predict_proba(["image.png"])\n```'
    )
    order = ", ".join(f"{i} = {name}" for i, name in enumerate(facts["class_names"]))
    return (
        f"{code}\n\nOn the command line: `ensemble-kit predict IMAGES --run FOLDER_OR_ZIP`. "
        f"The order of the classes: {order}.\n\n"
        "A bundle holds eight small images of these data, with their predictions (`golden/`). They are "
        "predicted again if the bundle is opened on another machine or with another backend."
    )


def _data(facts: Facts) -> str:
    rows = [(one["split"], one["label"], one["images"], one["groups"]) for one in facts["counts"]]
    table = _table(("part", "class", "images", f"{facts['group_kind']}s"), rows)
    how = (
        "Images were split one by one: the same patient can be in two parts."
        if facts["split_by"] == "image"
        else f"No {facts['group_kind']} is in two folds, or in training and test."
    )
    return f"{facts['data']['name']}, {facts['n_folds']} folds. {how}\n\n{table}"


def _metrics(facts: Facts) -> str:
    if not facts["metrics"]:
        return "The method was not evaluated: `ensemble-kit stack` evaluates it."
    parts = [part for part in PARTS if part in facts["metrics"]]
    names = list(dict.fromkeys(m for p in parts for m, v in facts["metrics"][p].items() if isinstance(v, dict)))  # fmt: skip
    head = [
        f"{PARTS[p]} ({counted(facts['metrics'][p]['n'], 'image')}, "
        f"{counted(facts['metrics'][p]['n_groups'], facts['group_kind'])})"
        for p in parts
    ]
    rows = [
        (m.replace("_", " "), *(_interval(facts["metrics"][p].get(m)) for p in parts))
        for m in names
    ]
    text = (
        f"Values with 95 % intervals over whole {facts['group_kind']}s. Cross-fitted: each image is predicted by "
        "networks and combiners that were not fitted to it. The test part is predicted by the networks of all folds."
    )
    verdicts = _bullets(facts["verdicts"])
    return "\n\n".join(one for one in (text, _table(("metric", *head), rows), verdicts) if one)


def _limits(facts: Facts) -> list[str]:
    sentences = list(facts["notes"])
    if facts["sets"] is not None:
        sentences.append(
            f"Prediction sets have a nominal coverage of {100 * (1 - facts['sets']['alpha']):.4g} % "
            f"for new {facts['group_kind']}s from the same source."
        )
    if facts["has_decision"]:
        sentences.append(
            "Decisions follow the stored operating point, chosen on out-of-fold predictions."
        )
    return sentences or ["No caveats are recorded. Validate the ensemble on your own images."]


def _members(facts: Facts) -> str:
    rows = [
        (m["name"], m["network"], f"{m['image_size']} px", m["n_networks"], m["weights_licence"])
        for m in facts["members"]
    ]
    head = ("member", "network", "input", "networks", "licence of the initial weights")
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    return f"{_table(head, rows)}\n\nTrained with {versions}."


def _interval(found: Mapping[str, float | None] | None) -> str:
    if not found or found["value"] is None:
        return "undefined"
    value = f"{found['value']:.3f}"
    return value if found["low"] is None else f"{value} [{found['low']:.3f}, {found['high']:.3f}]"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])
