"""The training states of a job: the last two epochs, each with a record. No code in them is run."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ensemble_kit.checked import read_checked, write_checked
from ensemble_kit.errors import DataError, IntegrityError
from ensemble_kit.files import digest_bytes, digest_json, write_bytes
from ensemble_kit.members.training.state import State

MadeOf = Mapping[str, Any]


def save_resume(folder: Path, state: State, made_of: MadeOf) -> None:
    """Store a training state after an epoch; the state of the epoch before it stays too.

    `made_of` holds all settings that decide how training continues. The record of each state
    stores it, with the digest of the state, so that damage is detected.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    newest = _generations(folder)
    number = (newest[0] + 1) if newest else 0
    write_bytes(_generation(folder, number), content)
    record = {
        "digest": digest_bytes(content),
        "made_of": dict(made_of),
        "epoch": len(state["history"]),
    }
    write_checked(_record_of(_generation(folder, number)), record)
    for old in newest[1:]:
        _drop(folder, old)


def load_resume(folder: Path, made_of: MadeOf, notice: Callable[[str], None]) -> State | None:
    """The newest intact state of this job, or None; a notice names damaged states."""
    damaged: list[str] = []
    for number in _generations(folder):
        path = _generation(folder, number)
        known = _known(_record_of(path))
        if known is not None and not is_made_of(known.get("made_of"), made_of):
            continue
        content = path.read_bytes()
        if known is None or known.get("digest") != digest_bytes(content):
            damaged.append(f"'{path}'")
            continue
        if damaged:
            notice(f"{_are_damaged(damaged)}. Training resumes from the checkpoint before it.")
        state: State = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return state
    if damaged:
        notice(f"{_are_damaged(damaged)}, and no other is left. Training starts again at epoch 1.")
    return None


def newest_record(folder: Path) -> dict[str, Any] | None:
    """The newest intact record of a state: its `made_of` and `epoch`."""
    records = (_known(_record_of(_generation(folder, n))) for n in _generations(folder))
    return next((record for record in records if record is not None), None)


def is_made_of(stored: MadeOf | str | None, made_of: MadeOf) -> bool:
    """Whether a record has these settings; False for a digest, as in records of the first versions."""
    return not isinstance(stored, str) and digest_json(stored) == digest_json(made_of)


def drop_resume(folder: Path) -> None:
    """Remove all training states."""
    for path in (*folder.glob("resume-*.json"), *folder.glob("resume-*.pt")):
        path.unlink(missing_ok=True)


def _are_damaged(paths: Sequence[str]) -> str:
    return f"The checkpoint{'s' * (len(paths) > 1)} {' and '.join(paths)} {'are' if len(paths) > 1 else 'is'} damaged"


def _generation(folder: Path, number: int) -> Path:
    return folder / f"resume-{number}.pt"


def _record_of(path: Path) -> Path:
    return path.with_suffix(".json")


def _generations(folder: Path) -> list[int]:
    """Numbers of the states that have a record, newest first."""
    names = [p.stem.removeprefix("resume-") for p in folder.glob("resume-*.json")]
    numbers = sorted((int(n) for n in names if n.isdigit()), reverse=True)
    return [n for n in numbers if _generation(folder, n).is_file()]


def _drop(folder: Path, number: int) -> None:
    _record_of(_generation(folder, number)).unlink(missing_ok=True)
    _generation(folder, number).unlink(missing_ok=True)


def _known(path: Path) -> dict[str, Any] | None:
    try:
        return read_checked(path, advice="")
    except (DataError, IntegrityError):
        return None
