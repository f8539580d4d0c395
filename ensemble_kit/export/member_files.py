"""Writing the files of a bundle: weights of each fold network, and the list of files with digests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble_kit.files import digest_bytes, write_bytes
from ensemble_kit.images.tiles.layout import TileSpec
from ensemble_kit.inference.fold_networks import FoldNetwork


class BundleWriter:
    """Writes files of a bundle, and lists them for its record."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.listed: dict[str, dict[str, Any]] = {}

    def write(self, name: str, content: bytes) -> None:
        """Write a file, and list its digest and size."""
        write_bytes(self._folder / name, content)
        self.listed[name] = {"sha256": digest_bytes(content), "bytes": len(content)}


def write_member(
    files: BundleWriter,
    name: str,
    networks: list[tuple[int, FoldNetwork]],
    class_names: tuple[str, ...],
) -> dict[str, Any]:
    """Write the networks of a member. Return its entry in the record."""
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


def with_licences(members: list[dict[str, Any]], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The members' entries with the licences of their weights."""
    licences = {one["name"]: one["weights_licence"] for one in facts["members"]}
    return [{**one, "weights_licence": licences[one["name"]]} for one in members]
