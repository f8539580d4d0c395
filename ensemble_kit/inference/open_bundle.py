"""Opening a bundle as an ensemble: choose the backend, read the parts, check the golden images."""

from __future__ import annotations

import os

from ensemble_kit.errors import UsageError
from ensemble_kit.inference.backends import OPENVINO, TORCH, choose_backend
from ensemble_kit.inference.bundle import known_images, read_bundle
from ensemble_kit.inference.bundle_files import BundleFiles, open_files, refusing_odd_parts
from ensemble_kit.inference.ensemble import Ensemble
from ensemble_kit.inference.golden import check_golden, has_passed
from ensemble_kit.inference.graphs import OpenGraph, open_graph, try_openvino
from ensemble_kit.members.training.precision import choose_device


def open_bundle(
    path: str | os.PathLike[str],
    *,
    method: str | None = None,
    device: str = "auto",
    backend: str = "auto",
) -> Ensemble:
    """The ensemble of a bundle. Parameters and errors: see `load_ensemble`."""
    place = choose_device(device)
    with open_files(path) as files, refusing_odd_parts(files.path):
        _refuse_other_method(files, method)
        chosen = choose_backend(backend, files.record["graph"], on_cpu=place.type == "cpu")
        parts = read_bundle(files, place if chosen == TORCH else None)
        graph = None if chosen == TORCH else _graph(chosen, files)
        ensemble = Ensemble(
            parts.stored,
            parts.members,
            parts.manifest,
            source=files.path.as_posix(),
            card=lambda card=files.card: card,  # type: ignore[misc]
            graph=graph,
            known=known_images(files.record),
        )
        files.check_rest()
        check_golden(ensemble, files)
        return ensemble


def _graph(backend: str, files: BundleFiles) -> OpenGraph:
    about = files.record["graph"]
    if backend == OPENVINO and not has_passed(files, backend, "cpu"):
        try_openvino(about, files.read)
    return open_graph(backend, about, files.read)


def _refuse_other_method(files: BundleFiles, method: str | None) -> None:
    own = files.record["method"]
    if method not in (None, own):
        raise UsageError(
            f"'{files.path}' has no method '{method}'",
            f"a bundle has one method; this one has '{own}'",
            f"Leave --method out, or export the run with --method {method}",
        )
