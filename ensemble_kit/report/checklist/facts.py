"""Sentences for the checklists from a run's records; "" if there is no such record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ensemble_kit.errors import command, counted, first_few
from ensemble_kit.evaluation.cross_validation.baselines import REFERENCE_METHODS
from ensemble_kit.evaluation.runs.ensemble_folder import DECISION
from ensemble_kit.report.content import Content
from ensemble_kit.report.leakage import leakage_sentence
from ensemble_kit.report.sections.data import split_sentence
from ensemble_kit.report.sections.provenance import seed_of
from ensemble_kit.report.sheet import TITLES


def _members(content: Content) -> Mapping[str, Mapping[str, Any]]:
    return {member: one.about for member, one in content.trainings.items()}


def _of_members(values: Mapping[str, str]) -> str:
    """One value if all members share it, else one per member."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{value} ({m})" for m, value in values.items())


def _of_recipes(content: Content, key: str) -> str:
    return _of_members(
        {m: str(about.get("recipe", {}).get(key)) for m, about in _members(content).items()}
    )


def preparation(content: Content) -> str:
    """Preprocessing of the images."""
    if not content.trainings:
        return ""
    sizes = {m: f"{about.get('image_size')} px" for m, about in _members(content).items()}
    return (
        f"Images were decoded to 8-bit RGB, resized to {_of_members(sizes)} and "
        f"normalised per channel. Augmentation in training: {_of_recipes(content, 'augmentation')}."
    )


def predictors(content: Content) -> str:
    """The input of the networks."""
    if not content.trainings:
        return ""
    return "The pixels of the image are the only input of the networks. No predictors were selected in advance."


def missing(content: Content) -> str:
    """Predictions that are missing."""
    tables = [one for one in (content.oof, content.test) if one is not None]
    n_all = sum(len(one) for one in tables)
    n_whole = sum(int(one.available.all(axis=1).sum()) for one in tables)
    if n_whole == n_all:
        return f"All {n_all} images have a prediction of every member."
    return f"{n_all - n_whole} of {n_all} images have no prediction of some member."


def partition(content: Content) -> str:
    """The split into training, folds and test part."""
    n_folds = content.record["folds"]["n_splits"]
    return f"{split_sentence(content)} {n_folds} folds."


def disjoint(content: Content) -> str:
    """Groups and files on two sides of a split."""
    return leakage_sentence(content).partition(" Near duplicates")[0]


def model(content: Content) -> str:
    """Networks and combiner."""
    if not content.trainings or not ensembling(content):
        return ""
    networks = [str(about.get("network")) for about in _members(content).values()]
    return f"{counted(len(networks), 'network')} ({', '.join(networks)}), one per fold. {ensembling(content)}"


def ensembling(content: Content) -> str:
    """How the members are combined."""
    methods = [m for m in content.ranking if m not in REFERENCE_METHODS]
    if not methods:
        return ""
    text = f"The members are combined by {content.chosen}"
    if len(methods) > 1:
        text += f", the best of {len(methods)} methods by cross-fitted {_metric(content)}"
    if content.part != "test":
        return f"{text}."
    return f"{text}. For test images, the logits of each member's folds are averaged first."


def initial(content: Content) -> str:
    """Initial weights."""
    if not content.trainings:
        return ""
    starts = {
        m: f"checkpoint {a['weights'][:12]}"
        if a.get("weights")
        else "weights published with timm"
        if a.get("pretrained")
        else "random weights"
        for m, a in _members(content).items()
    }
    return f"Members start from {_of_members(starts)}."


def training(content: Content) -> str:
    """The recipe in one sentence."""
    if not content.trainings:
        return ""
    parts = [
        f"{_of_recipes(content, 'epochs')} epochs",
        f"batch size {_of_recipes(content, 'batch_size')}",
        f"learning rate {_of_recipes(content, 'learning_rate')}",
        f"schedule {_of_recipes(content, 'schedule')}",
        f"weight decay {_of_recipes(content, 'weight_decay')}",
        f"augmentation {_of_recipes(content, 'augmentation')}",
    ]
    n = sum(len(one.records) for one in content.trainings.values())
    seed = seed_of(content)
    return f"{counted(n, 'network')}: {', '.join(parts)}; seed {seed}. All settings: `tables/recipes.csv`."


def selection(content: Content) -> str:
    """Choice of the epoch and of the method."""
    if not content.trainings:
        return ""
    how = {
        "none": "the last epoch is used",
        "inner": "the epoch with the best validation value on whole patients of the training folds is used",
        "kept-fold": "the epoch with the best value on the held-out fold is used (optimistic)",
    }
    kinds = {str(a.get("recipe", {}).get("select_on", "none")) for a in _members(content).values()}
    text = f"For each network, {'; '.join(how.get(kind, kind) for kind in sorted(kinds))}."
    if any(m not in REFERENCE_METHODS for m in content.ranking):
        text += f" The method is the best by cross-fitted {_metric(content)}; the test part has no influence."
    return text


def imbalance(content: Content) -> str:
    """Weights and sampling."""
    if not content.trainings:
        return ""
    weights, sampling = (_of_recipes(content, k) for k in ("class_weights", "sampling"))
    return f"Class weights in the loss: {weights}. Sampling: {sampling}."


def metrics(content: Content) -> str:
    """The reported metrics."""
    if content.scores.empty:
        return ""
    names = [TITLES.get(m, m.replace("_", " ")) for m in dict.fromkeys(content.scores["metric"])]
    return f"Ranked by {_metric(content)}. Reported: {', '.join(names)}."


def uncertainty(content: Content) -> str:
    """How intervals and comparisons were made."""
    if content.scores.empty or content.scores["low"].isna().all():
        return ""
    return (
        f"95 % intervals over whole {content.unit}s. Methods are compared with the best member and the "
        "mean by paired differences; the intervals hold for all methods at once."
    )


def output(content: Content) -> str:
    """Output of the model, and the rule for the predicted class."""
    if content.scores.empty:
        return ""
    text = f"A probability for each of {', '.join(content.manifest.class_names)}"
    points = content.decisions.get(DECISION, [])
    if points:
        return f"{text}. Thresholds: `tables/operating_point.csv`."
    return f"{text}. The most probable class is predicted."


def calculation(content: Content) -> str:
    """How new images are predicted."""
    if not content.trainings or content.scores.empty:
        return ""
    words = command("predict", "IMAGES", "--run", content.run.path, "--method", content.chosen)
    return f"New images are predicted by `{words}`."


def specification(content: Content) -> str:
    """Location of the weights and the combiner."""
    if not content.trainings or content.scores.empty:
        return ""
    again = command("export", content.run.path, "bundle")
    return (
        "Weights of every network and the fitted combiner are in the run folder (safetensors and "
        f"JSON). `{again}` writes them as one bundle."
    )


def software(content: Content) -> str:
    """Versions of packages."""
    found = content.record.get("versions", {})
    return f"{', '.join(f'{name} {one}' for name, one in found.items())}." if found else ""


def code(content: Content) -> str:
    """The software of the analysis."""
    version = content.record.get("versions", {}).get("ensemble-kit", "")
    return f"The analysis was done with ensemble-kit {version}." if version else ""


def numbers(content: Content) -> str:
    """Images and patients in each analysis."""
    return f"{split_sentence(content)} By class and fold: `tables/data.csv`, `tables/folds.csv`."


def performance(content: Content) -> str:
    """The main result."""
    if not content.verdicts:
        return ""
    return f"{' '.join(content.verdicts[:2])} All: `tables/methods.csv`."


def per_class(content: Content) -> str:
    """Sensitivity and other values of each class."""
    if not (content.values["class"] != "").any():
        return ""
    return (
        "Sensitivity, specificity and precision of each class with intervals: `tables/classes.csv`."
    )


def failures(content: Content) -> str:
    """Number of errors."""
    predictions = content.predictions[content.chosen, content.part]
    n_wrong = int((predictions.predicted != predictions.labels).sum())
    return (
        f"{n_wrong} of {len(predictions.labels)} images are wrong ({content.part}). They are listed with "
        "probabilities: `tables/errors.csv`."
    )


def subgroups(content: Content) -> str:
    """Performance by subgroup, from `stack --by`."""
    block = content.clinical.block if content.clinical else {}
    columns = list(block.get("subgroups", {}))
    return f"Metrics by {first_few(columns)} are in the section Clinical use." if columns else ""


def sensitivity(content: Content) -> str:
    """Nested cross-validation."""
    if not any(one.get("nested") for one in content.stored.values()):
        return ""
    return "Nested cross-validation was done: `tables/nested.csv`."


def explainability(content: Content) -> tuple[str, bool]:
    """The kinds of maps, and whether their faithfulness was measured."""
    if not content.explanations:
        return "", False
    index = content.explanations[0].index
    text = f"Maps of members and ensemble: {', '.join(index['maps'])}."
    measured = bool(index["faithfulness"])
    return (f"{text} Their faithfulness was measured." if measured else text), measured


def internal(content: Content) -> str:
    """Cross-validation, and a test part of the same data."""
    if content.scores.empty:
        return ""
    text = "Cross-fitted predictions of all training images"
    return (
        f"{text}, and a test part of the same data set." if content.part == "test" else f"{text}."
    )


def _metric(content: Content) -> str:
    return content.metric.replace("_", " ")
