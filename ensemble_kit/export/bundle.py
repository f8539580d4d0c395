"""Writing a bundle: a folder or zip archive that predicts without the run.

It has plain files only: safetensors, JSON, PNG, Markdown. It is opened and checked before it is renamed.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.checked import write_checked
from ensemble_kit.combiners.saved import packed
from ensemble_kit.errors import UsageError, did_you_mean
from ensemble_kit.export.bundle_place import refuse_other, written
from ensemble_kit.export.distillation import (
    Distilled,
    Student,
    compared_with_teacher,
    distilled_json,
    distilled_words,
)
from ensemble_kit.export.fold_choice import (
    ALL,
    CHOICES,
    TIME,
    FoldChoice,
    choice_json,
    choice_words,
    chosen_networks,
    measured,
)
from ensemble_kit.export.golden_images import candidates, data_root, golden_images, sources_of
from ensemble_kit.export.member_files import BundleWriter, with_licences, write_member
from ensemble_kit.inference.bundle import COMBINER_ARRAYS, decision_json, known_json, sets_json
from ensemble_kit.inference.bundle_files import CARD, RECORD, SCHEMA_VERSION, open_files
from ensemble_kit.inference.card_facts import data_settings_of, run_facts
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble
from ensemble_kit.inference.golden import GOLDEN, compare_golden, golden_json
from ensemble_kit.inference.model_card import model_card
from ensemble_kit.inference.open_bundle import open_bundle
from ensemble_kit.inference.stored_method import StoredMethod
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.job import CROP
from ensemble_kit.run import Run, versions

PREPROCESSING = {
    "decode": "8-bit RGB. Grey becomes three equal channels; transparency becomes white; the EXIF "
    "orientation is applied; 16 bits become 8. See ensemble_kit.images.decode.",
    "resize": "to the square input size of each network, bicubic with antialiasing, as Pillow does; "
    "the aspect ratio is not preserved",
    "crop": CROP,
    "scale": "values 0 to 255 become (value / 255 - mean) / std for each channel",
}


@dataclasses.dataclass(frozen=True)
class Exported:
    """The result of an export.

    Parameters
    ----------
    path : path
    n_bytes : int
    method : str
    choice : FoldChoice
    golden_difference : float
        Largest difference of a probability between the bundle and the run's networks.
    graph_differences : mapping of str to float
        The same between the graph and PyTorch on real images, by backend. Empty without a graph.
    distilled : Distilled, optional
        Comparison of a small network with its teacher.
    """

    path: Path
    n_bytes: int
    method: str
    choice: FoldChoice
    golden_difference: float
    graph_differences: Mapping[str, float]
    distilled: Distilled | None = None


def export_bundle(
    run: Run | str,
    out: str | Path,
    *,
    method: str | None = None,
    folds: str = ALL,
    graph: str | None = None,
    student: Student | None = None,
) -> Exported:
    """Write the ensemble of a run as a bundle that `load_ensemble` opens anywhere.

    Parameters
    ----------
    run : Run or path
    out : path
        A folder, or a zip archive if its name ends in `.zip`. An older bundle is replaced.
    method : str, optional
        A stacked method or a member. Default: the method that `stack` chose.
    folds : {"all", "best", "soup"}
        For each member: all fold networks, the best one, or one with their mean weights.
    graph : {"onnx", "openvino"}, optional
        Also write all networks and the combiner as one graph, for other backends than PyTorch.
    student : Student, optional
        The small network of this run, to compare it with its teacher.

    Raises
    ------
    UsageError
        The method or the choice of folds is unknown.
    DataError
        `out` is not a bundle, or the run's images cannot be read.
    """
    _refuse_unknown(folds)
    target, opened = Path(out), run if isinstance(run, Run) else Run(run)
    refuse_other(target)
    before = load_ensemble(opened, method=method, device="cpu")
    _refuse_fewer_spaces(before, folds)
    manifest = data_root(opened, opened.manifest())
    stored = before.stored
    oof = opened.predictions("oof", partial=True)
    chosen = Ensemble(stored, chosen_networks(before.members, folds, oof), manifest)
    has_test = bool((manifest.table["split"] == "test").any())
    test = (
        opened.predictions("test", partial=True).select(stored.member_names) if has_test else None
    )
    facts = run_facts(opened, stored, manifest)
    choice = measured(
        folds, before, chosen, test,
        sources_of(manifest.part("test")) if has_test and folds != ALL else [],
        facts["primary_metric"] or "balanced_accuracy",
    )  # fmt: skip
    distilled = None if student is None else compared_with_teacher(student, chosen)
    with written(target) as folder:
        _fill(folder, chosen, manifest, choice, facts, graph, distilled)
        difference, differences = _opened_again(folder)
        n_bytes = sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
    return Exported(target, n_bytes, stored.name, choice, difference, differences, distilled)


def _fill(
    folder: Path,
    ensemble: Ensemble,
    manifest: Manifest,
    choice: FoldChoice,
    facts: Mapping[str, Any],
    graph: str | None,
    distilled: Distilled | None,
) -> None:
    stored, files = ensemble.stored, BundleWriter(folder)
    members = [
        write_member(files, one.name, list(one.by_fold.items()), stored.class_names)
        for one in ensemble.members
    ]
    combiner, arrays = packed(stored.combiner)
    if arrays is not None:
        files.write(COMBINER_ARRAYS, arrays)
    _write_golden(files, ensemble, manifest)
    about_graph = None if graph is None else _write_graph(files, ensemble, manifest, graph)
    sections = {
        "Fold networks": choice_words(choice),
        "Distillation": [] if distilled is None else distilled_words(distilled),
    }
    extra = [f"## {name}\n\n" + "\n".join(lines) for name, lines in sections.items() if lines]
    files.write(CARD, model_card(facts, extra).encode("utf-8"))
    caveats = [one for one in sections["Fold networks"] if not one.startswith(TIME)]
    record = {
        **_about_bundle(stored, manifest, facts),
        "members": with_licences(members, facts),
        "folds": choice_json(choice),
        "distilled": distilled_json(distilled),
        "combiner": {**combiner, "class_names": list(stored.class_names)},
        **_about_decisions(stored),
        "notes": [*stored.notes, *stored.decision_notes, *caveats, *sections["Distillation"][:1]],
        "known_images": known_json(manifest),
        "graph": about_graph,
        "files": files.listed,
    }
    write_checked(folder / RECORD, record)


def _about_bundle(
    stored: StoredMethod, manifest: Manifest, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Names, versions, and the preprocessing of images."""
    return {
        "schema_version": SCHEMA_VERSION,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "created_by": versions(),
        "name": facts["name"],
        "method": stored.name,
        "class_names": list(stored.class_names),
        "ordinal": manifest.ordinal,
        "positive": manifest.positive,
        "group_kind": stored.group_kind,
        "data": {"name": manifest.name, **data_settings_of(manifest)},
        "preprocessing": PREPROCESSING,
    }


def _about_decisions(stored: StoredMethod) -> dict[str, Any]:
    """Pooling, costs, prediction sets, decision, and digests of the method's predictions."""
    return {
        "pooling": stored.pooling.as_mapping(),
        "costs": None if stored.costs is None else stored.costs.tolist(),
        "sets": sets_json(stored.sets, stored.class_names),
        "decision": decision_json(stored.decision, stored.class_names),
        "made_of": dict(stored.made_of),
    }


def _write_golden(files: BundleWriter, ensemble: Ensemble, manifest: Manifest) -> None:
    golden = golden_images(ensemble, manifest)
    for name, png in golden.files.items():
        files.write(name, png)
    found = ensemble.predict_sources(golden.sources)
    content = {
        "images": [{"file": one.path, "pair": one.pair_path} for one in golden.sources],
        **golden_json(found, golden.member_logits),
    }
    files.write(GOLDEN, (json.dumps(content, allow_nan=False) + "\n").encode("utf-8"))


def _write_graph(
    files: BundleWriter, ensemble: Ensemble, manifest: Manifest, graph: str
) -> dict[str, Any]:
    """Write the graph, after a comparison with PyTorch on real images."""
    from ensemble_kit.export.graph_files import compare_graph, graph_files

    contents, about = graph_files(ensemble, data_settings_of(manifest), graph)
    sources = sources_of(candidates(manifest))
    differences = compare_graph(ensemble, contents, about, sources)
    for name, content in contents.items():
        files.write(name, content)
    return {**about, "n_compared": len(sources), "largest_difference": differences}


def _opened_again(folder: Path) -> tuple[float, dict[str, float]]:
    ensemble = open_bundle(folder, device="cpu", backend="torch")
    with open_files(folder) as files:
        return compare_golden(ensemble, files), (files.record["graph"] or {}).get(
            "largest_difference", {}
        )


def _refuse_unknown(folds: str) -> None:
    if folds not in CHOICES:
        raise UsageError(
            f"Unknown choice of folds '{folds}'",
            f"the choices are {', '.join(CHOICES)}",
            did_you_mean(folds, CHOICES),
        )


def _refuse_fewer_spaces(ensemble: Ensemble, folds: str) -> None:
    if folds != ALL and ensemble.stored.combiner.needs_features:
        raise UsageError(
            f"'{ensemble.method}' cannot be exported with --folds {folds}",
            "it needs the pooled features of all fold networks",
            "Use --folds all, or another --method",
        )
