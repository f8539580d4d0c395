"""Golden images: eight images in a bundle, predicted again on each machine that opens the bundle.

The cache folder stores which bundle, machine and backend passed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ensemble_kit.arrays import Array, softmax
from ensemble_kit.errors import DataError, EnsembleKitError, EnvironmentFault, IntegrityError
from ensemble_kit.files import cache_folder, digest_json, write_json
from ensemble_kit.images.decode import as_rgb, check_size
from ensemble_kit.inference.bundle_files import AGAIN, BundleFiles
from ensemble_kit.inference.sources import Pixels, Source

if TYPE_CHECKING:
    from ensemble_kit.inference.ensemble import Ensemble
    from ensemble_kit.inference.image_predictions import ImagePredictions

GOLDEN = "golden.json"
N_IMAGES = 8
# Largest accepted difference of a probability, of the ensemble and of each member.
TOLERANCE = 1e-4


def golden_sources(files: BundleFiles) -> list[Source]:
    """The golden images."""
    return [_source(files, one) for one in json.loads(files.read(GOLDEN))["images"]]


def _source(files: BundleFiles, about: Mapping[str, str]) -> Source:
    decoded = {name: _decoded(files, name) for name in about.values() if name}
    return Source(about["file"], about["file"], lambda requested: decoded[requested], about["pair"])


def _decoded(files: BundleFiles, name: str) -> Pixels:
    try:
        with Image.open(io.BytesIO(files.read(name)), formats=["PNG"]) as image:
            check_size(image.width, image.height, name)
            return as_rgb(np.array(image), name)
    except (OSError, SyntaxError, ValueError, DataError, Image.DecompressionBombError) as error:
        raise IntegrityError(
            f"The bundle '{files.path}' is damaged",
            f"'{name}' is not a small PNG image ({str(error)[:160]})",
            AGAIN,
        ) from error


def golden_json(found: ImagePredictions, member_logits: Array) -> dict[str, Any]:
    """The predictions of the golden images, as they are stored."""
    return {
        "tolerance": TOLERANCE,
        "class_names": list(found.class_names),
        "member_names": list(found.member_names),
        "predicted": found.classes.tolist(),
        "probabilities": found.proba.tolist(),
        "member_logits": member_logits.tolist(),
    }


def check_golden(ensemble: Ensemble, files: BundleFiles) -> float | None:
    """Predict the golden images and compare with the stored predictions.

    Returns
    -------
    float or None
        The largest difference of a probability. None if the check passed before on this machine.

    Raises
    ------
    EnvironmentFault
        The predictions differ from the stored ones.
    """
    if has_passed(files, ensemble.backend, ensemble.device):
        return None
    remembered = _remembered(files, ensemble.backend, ensemble.device)
    difference = compare_golden(ensemble, files)
    if remembered is not None:
        # Without a cache folder the check runs each time.
        with contextlib.suppress(EnsembleKitError):
            write_json(remembered, {"largest_difference": difference})
    return difference


def compare_golden(ensemble: Ensemble, files: BundleFiles) -> float:
    """The same as `check_golden`, without the cache."""
    stored = json.loads(files.read(GOLDEN))
    if stored["class_names"] != list(ensemble.class_names):
        raise IntegrityError(
            f"The classes of '{files.path}' do not agree",
            f"{GOLDEN} has {', '.join(stored['class_names'])}; "
            f"the bundle has {', '.join(ensemble.class_names)}",
            AGAIN,
        )
    sources = golden_sources(files)
    found = ensemble.predict_sources(sources)
    wanted = softmax(np.array(stored["member_logits"], dtype=np.float32))
    if not sources or wanted.shape != found.member_proba.shape:
        raise ValueError(f"{GOLDEN} has predictions of shape {wanted.shape}")
    of_members = np.abs(found.member_proba - wanted)
    of_ensemble = np.abs(found.proba - np.array(stored["probabilities"]))
    difference = float(max(of_members.max(), of_ensemble.max()))
    other = [str(a) for a, b in zip(found.classes, stored["predicted"], strict=True) if a != b]
    if not difference <= TOLERANCE or other:
        raise EnvironmentFault(
            f"The backend '{ensemble.backend}' does not reproduce the bundle's predictions on this "
            f"machine: the largest difference of a probability is {difference:.2g}, and {len(other)} "
            f"of {len(found)} classes differ",
            f"at most {TOLERANCE:g} and 0 are accepted",
            "Use another --backend, e.g. torch, or other versions of its packages",
        )
    return difference


def has_passed(files: BundleFiles, backend: str, device: str) -> bool:
    """Whether the check passed before with this bundle, machine, device and backend."""
    remembered = _remembered(files, backend, device)
    return remembered is not None and remembered.is_file()


def _remembered(files: BundleFiles, backend: str, device: str) -> Path | None:
    key = digest_json(
        {
            "bundle": files.digest,
            "backend": backend,
            "version": importlib.metadata.version(backend),
            "device": device,
            "machine": [platform.node(), platform.machine(), platform.platform()],
        }
    )
    try:
        return cache_folder() / "bundles" / f"{key}.json"
    except EnvironmentFault:
        return None
