"""Writes a bundle: all that predicting needs, in one folder or zip archive, without the run.

Plain files only: safetensors, JSON, PNG, Markdown. The bundle is opened again before it gets its name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.checked import write_checked
from ensemble_kit.combiners.saved import packed
from ensemble_kit.errors import DataError, UsageError, did_you_mean, disk_fault
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
from ensemble_kit.export.golden_images import (
    candidates,
    data_root,
    golden_images,
    sources_of,
)
from ensemble_kit.files import atomic_write, digest_bytes, write_bytes
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.inference.bundle import (
    COMBINER_ARRAYS,
    decision_json,
    known_json,
    sets_json,
)
from ensemble_kit.inference.bundle_files import CARD, RECORD, SCHEMA_VERSION, is_bundle, open_files
from ensemble_kit.inference.card_facts import data_settings_of, run_facts
from ensemble_kit.inference.ensemble import Ensemble, load_ensemble
from ensemble_kit.inference.fold_networks import FoldNetwork
from ensemble_kit.inference.golden import GOLDEN, compare_golden, golden_json
from ensemble_kit.inference.model_card import model_card
from ensemble_kit.inference.open_bundle import open_bundle
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.jobs.job import CROP
from ensemble_kit.replaced import replaced_whole
from ensemble_kit.run import Run, versions

PREPROCESSING = {
    "decode": "8-bit RGB. Grey becomes three equal channels; transparency becomes white; the EXIF "
    "orientation is applied; 16 bits become 8. See ensemble_kit.images.decode.",
    "resize": "to the square input size of each network, bicubic with antialiasing, as Pillow does; "
    "the aspect ratio is not kept",
    "crop": CROP,
    "scale": "values 0 to 255 become (value / 255 - mean) / std for each channel",
}


@dataclasses.dataclass(frozen=True)
class Exported:
    """What was exported.

    Parameters
    ----------
    path : path
    n_bytes : int
    method : str
    choice : FoldChoice
    golden_difference : float
        Largest difference of a probability, of the bundle opened again and the run's networks.
    graph_differences : mapping of str to float
        The same of the graph on real images, by backend; empty without a graph.
    """

    path: Path
    n_bytes: int
    method: str
    choice: FoldChoice
    golden_difference: float
    graph_differences: Mapping[str, float]


def export_bundle(
    run: Run | str,
    out: str | Path,
    *,
    method: str | None = None,
    folds: str = ALL,
    graph: str | None = None,
) -> Exported:
    """Write the ensemble of a run as a bundle that `load_ensemble` opens anywhere.

    Parameters
    ----------
    run : Run or path
    out : path
        A folder, or a zip archive if its name ends in `.zip`. An older bundle there is replaced.
    method : str, optional
        A stacked method, or a member; by default the method that `stack` chose.
    folds : {"all", "best", "soup"}
        All fold networks, the best one of each member, or one with their mean weights.
    graph : {"onnx", "openvino"}, optional
        Also write all networks and the combiner as one graph, for other backends than PyTorch.

    Raises
    ------
    UsageError
        An unknown method or choice of folds.
    DataError
        `out` is something else, or the run's images cannot be read.
    """
    _refuse_unknown(folds)
    target, opened = Path(out), run if isinstance(run, Run) else Run(run)
    _refuse_other(target)
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
    with _written(target) as folder:
        _fill(folder, chosen, manifest, choice, facts, graph)
        difference, differences = _opened_again(folder)
        n_bytes = sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
    return Exported(target, n_bytes, stored.name, choice, difference, differences)


def _fill(
    folder: Path,
    ensemble: Ensemble,
    manifest: Manifest,
    choice: FoldChoice,
    facts: Mapping[str, Any],
    graph: str | None,
) -> None:
    stored, files = ensemble.stored, _Files(folder)
    members = [
        _write_member(files, one.name, list(one.by_fold.items()), stored.class_names)
        for one in ensemble.members
    ]
    combiner, arrays = packed(stored.combiner)
    if arrays is not None:
        files.write(COMBINER_ARRAYS, arrays)
    _write_golden(files, ensemble, manifest)
    about_graph = None if graph is None else _write_graph(files, ensemble, manifest, graph)
    words = choice_words(choice)
    section = ["## Fold networks\n\n" + "\n".join(words)] if words else []
    files.write(CARD, model_card(facts, section).encode("utf-8"))
    write_checked(
        folder / RECORD,
        {
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
            "members": _with_licences(members, facts),
            "folds": choice_json(choice),
            "combiner": {**combiner, "class_names": list(stored.class_names)},
            "pooling": stored.pooling.as_mapping(),
            "costs": None if stored.costs is None else stored.costs.tolist(),
            "sets": sets_json(stored.sets, stored.class_names),
            "decision": decision_json(stored.decision, stored.class_names),
            "made_of": dict(stored.made_of),
            "notes": [*stored.notes, *(one for one in words if not one.startswith(TIME))],
            "known_images": known_json(manifest),
            "graph": about_graph,
            "files": files.listed,
        },
    )


class _Files:
    """Writes files of a bundle, and keeps what its record says of them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.listed: dict[str, dict[str, Any]] = {}

    def write(self, name: str, content: bytes) -> None:
        write_bytes(self._folder / name, content)
        self.listed[name] = {"sha256": digest_bytes(content), "bytes": len(content)}


def _write_member(
    files: _Files,
    name: str,
    networks: list[tuple[int, FoldNetwork]],
    class_names: tuple[str, ...],
) -> dict[str, Any]:
    from safetensors.torch import save

    listed = []
    for fold, one in networks:
        file = f"members/{name}/fold-{fold}.safetensors"
        state = {k: v.detach().cpu().contiguous() for k, v in one.model.state_dict().items()}
        files.write(file, save(state, metadata={"format": "pt"}))
        by_output = sorted(range(len(class_names)), key=lambda c: int(one.by_name[c]))
        listed.append(
            {
                "fold": fold,
                "weights": file,
                "mean": list(one.mean),
                "std": list(one.std),
                "outputs": [class_names[c] for c in by_output],
            }
        )
    member = networks[0][1].member
    return {
        "name": name,
        "settings": member.model_dump(mode="json", exclude={"weights", "pretrained", "name"}),
        "input": _input(member.eval_spec),
        "networks": listed,
    }


def _input(spec: TileSpec) -> dict[str, Any]:
    return {key: value for key, value in dataclasses.asdict(spec).items() if value is not None}


def _with_licences(members: list[dict[str, Any]], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    licences = {one["name"]: one["weights_licence"] for one in facts["members"]}
    return [{**one, "weights_licence": licences[one["name"]]} for one in members]


def _write_golden(files: _Files, ensemble: Ensemble, manifest: Manifest) -> None:
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
    files: _Files, ensemble: Ensemble, manifest: Manifest, graph: str
) -> dict[str, Any]:
    """The graph, compared with PyTorch on real images before it is written."""
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


@contextlib.contextmanager
def _written(target: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `target` as a whole: a folder or a zip archive."""
    if target.suffix.lower() != ".zip":
        with replaced_whole(target) as fresh:
            yield fresh
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=target.parent, prefix=".bundle-")
    except OSError as error:
        raise disk_fault(target, error) from error
    with scratch as place:
        folder = Path(place) / target.stem
        folder.mkdir()
        yield folder
        atomic_write(target, lambda file: _zip(folder, file))


def _zip(folder: Path, file: Any) -> None:
    """All files under one folder name, stored as they are, with the same dates each time."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
                about = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                about.external_attr = 0o644 << 16
                with archive.open(about, "w", force_zip64=True) as entry, path.open("rb") as source:
                    while some := source.read(2**20):
                        entry.write(some)


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
            f"'{ensemble.method}' cannot have fewer networks, got --folds {folds}",
            "it combines the pooled features of the networks of each fold",
            "Use --folds all, or another --method",
        )


def _refuse_other(target: Path) -> None:
    """Refuse to replace something that is no bundle."""
    empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and not empty and not is_bundle(target):
        raise DataError(
            f"'{target}' exists and is no bundle",
            "it is not replaced",
            "Name another folder or .zip",
        )
