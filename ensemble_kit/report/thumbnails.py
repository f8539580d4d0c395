"""Small pictures of a run's images, embedded in the page. They are decoded as in training."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from PIL import Image

from ensemble_kit.errors import EnsembleKitError
from ensemble_kit.images.decode import read_image
from ensemble_kit.manifest.table import Manifest

SIDE, QUALITY = 112, 72


class Thumbnails:
    """Small pictures by the id of the image.

    Parameters
    ----------
    manifest : Manifest
    """

    def __init__(self, manifest: Manifest) -> None:
        self._root = manifest.root
        columns = [c for c in ("path", "pair_path") if c in manifest.table]
        table = manifest.table[columns].astype(str)
        self._paths = dict(zip(manifest.sample_ids, table.to_numpy().tolist(), strict=True))
        self.n_unreadable = 0

    def of(self, sample_id: str) -> str:
        """A data URI; both images of a pair side by side; "" if one cannot be read."""
        paths = [path for path in self._paths[sample_id] if path and path != "nan"]
        try:
            return data_uri([read_image(self._root, path) for path in paths])
        except (EnsembleKitError, OSError):
            self.n_unreadable += 1
            return ""


def data_uri(images: Iterable[npt.NDArray[np.uint8]], side: int = SIDE) -> str:
    """Images side by side as a JPEG, each of at most `side` pixels."""
    small = []
    for pixels in images:
        one = Image.fromarray(pixels)
        one.thumbnail((side, side))
        small.append(one)
    sheet = Image.new("RGB", (sum(o.width for o in small), max(o.height for o in small)), "white")
    left = 0
    for one in small:
        sheet.paste(one, (left, 0))
        left += one.width
    return jpeg_uri(sheet)


def jpeg_uri(picture: Image.Image) -> str:
    """A picture as a JPEG in a data URI."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
