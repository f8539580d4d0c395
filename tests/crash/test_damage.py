"""Row 10: every command that reads a file of a run detects one flipped bit."""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ensemble_kit.errors import EnsembleKitError, IntegrityError
from ensemble_kit.files import digest_file, read_json
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.resume import load_resume, save_resume
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe

pytestmark = pytest.mark.slow

Invoke = Callable[..., tuple[int, str]]
Commands = Callable[[Path], dict[str, list[object]]]
N_FLIPS = 8
# Files with a digest that every command reads.
TABLES = ("manifest.csv", "folds.csv", *(f"predictions/member1/{name}.npy" for name in ("oof", "test-fold-1")))  # fmt: skip
FOLD = ("model.safetensors", "logits-oof.npy", "logits-test.npy", "config.json", "history.csv", "recipe.json")  # fmt: skip


def flips(path: Path, n: int = N_FLIPS) -> Iterator[str]:
    """Flip one bit at a time: in the first byte, the last byte, and at random places. Then restore."""
    whole, rng = path.read_bytes(), random.Random(path.name)
    places = [0, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(n - 2))]
    try:
        for place in places:
            bit = rng.randrange(8)
            path.write_bytes(
                whole[:place] + bytes([whole[place] ^ (1 << bit)]) + whole[place + 1 :]
            )
            yield f"bit {bit} of byte {place} of {path.name}"
    finally:
        path.write_bytes(whole)


@pytest.fixture(scope="module")
def stacked(after_stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damage")
    shutil.copytree(after_stack, folder / "other")
    return Path(shutil.copytree(after_stack, folder / "run"))


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("command", ["stack", "conformal", "operating-point", "compare", "diversity", "report"])  # fmt: skip
def test_row_10_a_flipped_bit_in_tables_and_logits_ends_every_command_with_exit_7(
    stacked: Path,
    invoke: Invoke,
    commands: Commands,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    name: str,
) -> None:
    # Logits are read again after a pause, because a job may be replacing them.
    monkeypatch.setattr("ensemble_kit.run.folder.time.sleep", lambda _: None)
    for flip in flips(stacked / name, 3):
        code, printed = invoke(*commands(stacked)[command])
        assert (code, name in printed) == (7, True), f"{flip}: {code} {printed[-300:]}"


# Additional files of commands that read results.
RESULTS = {
    "conformal": ("combiner.json", "predictions.csv"),
    "operating-point": ("combiner.json", "predictions.csv"),
    "compare": ("combiner.json", "predictions.csv"),
    "report": ("metrics.json", "predictions.csv"),
}


@pytest.mark.parametrize(
    ("command", "name"), [(command, name) for command, names in RESULTS.items() for name in names]
)
def test_row_10_a_flipped_bit_in_results_ends_their_readers_with_exit_7(
    stacked: Path, invoke: Invoke, commands: Commands, command: str, name: str
) -> None:
    for flip in flips(stacked / "ensembles" / "ridge" / name):
        code, printed = invoke(*commands(stacked)[command])
        assert (code, f"ridge/{name}" in printed) == (7, True), f"{flip}: {code} {printed[-300:]}"


@pytest.mark.parametrize("fold", ["0", "2"])
@pytest.mark.parametrize("name", FOLD)
def test_row_10_a_flipped_bit_in_a_finished_fold_ends_a_training_with_exit_7(
    trained: Any, tmp_path: Path, fold: str, name: str
) -> None:
    copy = trained.copied_to(tmp_path / "run")
    for flip in flips(copy.run.fold_dir("tiny_mobile", fold) / name):
        with pytest.raises(IntegrityError) as refused:
            train_again(copy)
        assert refused.value.exit_code == 7, flip
        assert f"fold-{fold}/{name}" in str(refused.value), flip
    train_again(copy)


def train_again(copy: Any) -> None:
    """The training that made the run. All its jobs are finished."""
    recipe = Recipe(epochs=2, batch_size=16, learning_rate=3e-3)
    member = Member("tiny_mobile", image_size=16, pretrained=False, recipe=recipe)
    fit_members([member], copy.manifest, copy.folds, copy.run, device="cpu")


@pytest.mark.parametrize("newest_only", [True, False])
@pytest.mark.parametrize("suffix", ["pt", "json"])
def test_row_10_training_never_continues_from_a_state_with_a_flipped_bit(
    tmp_path: Path, suffix: str, newest_only: bool
) -> None:
    made_of = {"of": "this"}
    for n in (1, 2):
        save_resume(tmp_path, {"history": [0] * n, "weights": torch.ones(99)}, made_of)
    whole = {n: load_whole(tmp_path, n) for n in (1, 2)}
    older = flips(tmp_path / f"resume-0.{suffix}", 40) if not newest_only else [""] * 40
    for flip, _ in zip(flips(tmp_path / f"resume-1.{suffix}", 40), older, strict=True):
        state = load_resume(tmp_path, made_of, lambda text: None)
        # A flip in a record can be harmless. A flip in a state is not.
        allowed = {1} if newest_only else set()
        allowed |= {1, 2} if suffix == "json" else set()
        got = None if state is None else len(state["history"])
        assert got is None or got in allowed, flip
        assert got is None or torch.equal(state["weights"], whole[got]), flip


def load_whole(folder: Path, n: int) -> torch.Tensor:
    state = torch.load(folder / f"resume-{n - 1}.pt", weights_only=True)
    return torch.as_tensor(state["weights"])


# -- records ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.json", "predictions/member0/index.json"])
def test_row_10_a_flipped_bit_in_a_record_never_changes_a_number(
    stacked: Path, invoke: Invoke, name: str
) -> None:
    words = ["stack", "--run", stacked, "--method", "mean", "--resamples", 20]
    assert invoke(*words)[0] == 0
    metrics = stacked / "ensembles" / "mean" / "metrics.json"
    want = numbers(read_json(metrics))
    for flip in flips(stacked / name, 30):
        code, printed = invoke(*words)
        assert code in {0, 3, 7}, f"{flip}: {printed}"
        assert numbers(read_json(metrics)) == want, flip


def numbers(value: Any) -> list[float]:
    """Every number in a JSON value, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [n for one in value for n in numbers(one)]
    return [value] if isinstance(value, int | float) and not math.isnan(value) else []


@pytest.mark.parametrize("name", ["fold-1/fold.json", "member.json"])
def test_row_10_a_flipped_bit_in_a_record_of_a_fold_never_changes_a_logit(
    trained: Any, tmp_path: Path, name: str
) -> None:
    copy = trained.copied_to(tmp_path / "run")
    logits = sorted((copy.run.path / "predictions").rglob("*.npy"))
    want = [digest_file(path) for path in logits]
    for flip in flips(copy.run.member_dir("tiny_mobile") / name, 30):
        code = 0
        try:
            train_again(copy)
        except EnsembleKitError as error:
            code = error.exit_code
        assert code in {0, 3, 7}, flip
        assert [digest_file(path) for path in logits] == want, flip
