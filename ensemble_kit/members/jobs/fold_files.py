"""The files of a fold: weights for timm, logits, history, and `fold.json`, written last.

No code from these files is run.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import save as tensors_to_bytes
from timm.models._hub import save_config_for_hf
from torch import nn

from ensemble_kit.arrays import Array
from ensemble_kit.checked import check_file, read_checked, write_checked
from ensemble_kit.errors import IntegrityError
from ensemble_kit.files import (
    digest_file,
    digest_json,
    read_npy,
    write_bytes,
    write_csv,
    write_json,
    write_npy,
)
from ensemble_kit.members.jobs.resume import drop_resume

RECORD = "fold.json"
WEIGHTS = "model.safetensors"
TRAIN_AGAIN = "Delete the folder '{}' and run the same command: only that fold is trained again"
FEATURES, TEST_FEATURES = "features-oof.npy", "features-test.npy"
# Entries of timm's published weights that do not hold after training: other input sizes,
ANOTHER_SIZE = ("test_input_size", "test_crop_pct", "test_pool_size")
# and the origin of the weights.
ORIGIN = ("tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes")


def write_network(
    folder: Path,
    model: nn.Module,
    *,
    class_names: Sequence[str],
    input_config: Mapping[str, Any],
    own_input: Mapping[str, Any] | None = None,
    published: bool = False,
) -> None:
    """Write `model.safetensors` and `config.json` so that `timm.create_model("local-dir:FOLDER")` opens them.

    Parameters
    ----------
    input_config : mapping
        timm's preprocessing: `input_size, mean, std, interpolation, crop_pct, crop_mode`.
    own_input : mapping, optional
        Preprocessing beyond timm, stored under `ensemble_kit`: see `input_config.own_input`.
    published : bool
        Whether training started from timm's published weights. Only then is their origin stored.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    write_bytes(folder / WEIGHTS, tensors_to_bytes(state, metadata={"format": "pt"}))
    about = {"label_names": list(class_names), "pretrained_cfg": dict(input_config)}
    if own_input:
        about["ensemble_kit"] = dict(own_input)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "config.json"
        save_config_for_hf(model, str(path), model_config=about)
        config = json.loads(path.read_text())
    # timm assumes three channels by default.
    config["pretrained_cfg"].update(input_config)
    for key in (*ANOTHER_SIZE, *(() if published else ORIGIN)):
        config["pretrained_cfg"].pop(key, None)
    write_json(folder / "config.json", config)


def write_fold(
    folder: Path,
    *,
    oof: Array,
    test: Array,
    history: Sequence[Mapping[str, Any]],
    recipe: Mapping[str, Any],
    record: Mapping[str, Any],
    made_of: Mapping[str, Any],
    further: Mapping[str, tuple[Array, Array]] | None = None,
    features: Mapping[str, tuple[Array, Array]] | None = None,
) -> None:
    """Write a finished fold's logits, history and recipe, and last `fold.json` with all digests.

    Parameters
    ----------
    further : mapping, optional
        Name of an extra checkpoint -> its out-of-fold and test logits. They are written to a
        subfolder of that name, where its network is.
    features : mapping, optional
        Name of the checkpoint ("" for the main one) -> pooled features of the same rows.
    """
    further = further or {}
    for name, (held_out, tested) in {"": (oof, test), **further}.items():
        write_npy(folder / name / "logits-oof.npy", held_out)
        write_npy(folder / name / "logits-test.npy", tested)
    write_history(folder, history)
    write_json(folder / "recipe.json", dict(recipe))
    of_weights = (WEIGHTS, "config.json", "logits-oof.npy", "logits-test.npy")
    names = [*of_weights, "history.csv", "recipe.json"]
    names += [f"{name}/{file}" for name in further for file in of_weights]
    files = {name: digest_file(folder / name) for name in names}
    files |= _write_features(folder, features or {})
    write_checked(
        folder / RECORD,
        {
            "schema_version": 1,
            **record,
            "made_of": dict(made_of),
            "digest": digest_json(made_of),
            "files": files,
        },
    )
    drop_resume(folder)


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write the epochs so far as `history.csv`."""
    write_csv(folder / "history.csv", pd.DataFrame(list(history)))


def add_features(folder: Path, features: Mapping[str, tuple[Array, Array]]) -> None:
    """Add pooled features, by the name of the checkpoint, to a finished fold."""
    record = read_record(folder)
    assert record is not None
    record["files"] |= _write_features(folder, features)
    write_checked(folder / RECORD, record)


def _write_features(folder: Path, features: Mapping[str, tuple[Array, Array]]) -> dict[str, str]:
    """Write features beside the logits of their checkpoint; return the digest of each file."""
    digests = {}
    for weights, (held_out, tested) in features.items():
        for file, array in ((FEATURES, held_out), (TEST_FEATURES, tested)):
            write_npy(folder / weights / file, array)
            name = (Path(weights) / file).as_posix()
            digests[name] = digest_file(folder / name)
    return digests


def read_features(folder: Path) -> tuple[Array, Array]:
    """The out-of-fold and test features of a finished fold."""
    return read_npy(folder / FEATURES), read_npy(folder / TEST_FEATURES)


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of a finished fold, or None if the fold is not finished.

    Raises
    ------
    IntegrityError
        The record is damaged.
    """
    if not (folder / RECORD).is_file():
        return None
    record = read_checked(folder / RECORD, advice=TRAIN_AGAIN.format(folder))
    if not {"made_of", "files"} <= record.keys():
        raise IntegrityError(
            f"'{folder / RECORD}' is damaged",
            "stored files must stay as they were written",
            TRAIN_AGAIN.format(folder),
        )
    return record


def check_files(folder: Path, record: Mapping[str, Any]) -> None:
    """Compare every file of a finished fold with its digest.

    Raises
    ------
    IntegrityError
        A file is missing or damaged; the message names it.
    """
    for name, digest in record["files"].items():
        check_file(folder / name, digest, advice=TRAIN_AGAIN.format(folder))


def read_logits(folder: Path) -> tuple[Array, Array]:
    """The out-of-fold and test logits of a finished fold."""
    return read_npy(folder / "logits-oof.npy"), read_npy(folder / "logits-test.npy")


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The differences between two records, as `key: old -> new`.

    Examples
    --------
    >>> changed_keys({"recipe": {"epochs": 3}}, {"recipe": {"epochs": 5}})
    ['recipe.epochs: 3 -> 5']
    >>> changed_keys({"member": {}}, {"member": {"color": "hed"}})
    ['member.color: the default -> hed']
    """
    out = []
    for key in sorted({*old, *new}):
        # The record leaves out later settings at their defaults.
        a, b = old.get(key, "the default"), new.get(key, "the default")
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            out += changed_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            out.append(f"{prefix}{key}: {_short(a)} -> {_short(b)}")
    return out


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] + "..." if len(text) > 40 else text
