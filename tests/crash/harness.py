"""Runs and kills trainings. torch is loaded once, then each attempt is a fork.

Run as a script, so that no state of the test process is forked:
    python harness.py kills SLIDES FOLDER N_KILLS SEED
    python harness.py points SLIDES FOLDER STEP
    python harness.py tuning SLIDES FOLDER
Prints one JSON line.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import optuna
import torch

from ensemble_kit.files import digest_file
from ensemble_kit.folds import Folds, make_folds
from ensemble_kit.images.digests import with_digests
from ensemble_kit.manifest.table import Manifest
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run
from ensemble_kit.tune.best import tuned_values
from ensemble_kit.tune.storage import open_storage
from ensemble_kit.tune.tune_members import tune_members

RESULTS = (
    "predictions/*/*.npy",
    "members/*/fold-*/model.safetensors",
    "members/*/fold-*/logits-*.npy",
)
RECIPE = Recipe(epochs=4, batch_size=8, learning_rate=3e-3)


def members(n: int) -> list[Member]:
    common = {"image_size": 16, "pretrained": False}
    selecting = Recipe(
        **{**RECIPE.model_dump(), "select_on": "inner", "regularize": {"ema_decay": 0.9}}
    )
    return [
        Member("tiny_cnn", recipe=RECIPE, drop_rate=0.2, **common),
        Member("tiny_mobile", recipe=selecting, **common),
    ][:n]


def read(slides: Path) -> tuple[Manifest, Folds]:
    """The data of every training. It is read once, and children inherit it."""
    manifest = Manifest.from_folders(slides, group_pattern=r"(P\d+)_")
    part, test = manifest.split(test_size=0.2, seed=0)
    whole = with_digests(part.joined(test))
    return whole, make_folds(whole, 2, seed=0)


def train(data: tuple[Manifest, Folds], folder: Path, n: int) -> None:
    torch.set_num_threads(1)
    fit_members(members(n), *data, Run(folder), device="cpu")


def forked(
    data: tuple[Manifest, Folds],
    folder: Path,
    environment: dict[str, str] | None = None,
    *,
    n_members: int = 2,
) -> int:
    """Start a training in a child process. Return its pid."""
    pid = os.fork()
    if pid == 0:
        os.environ.update(environment or {})
        code = 1
        try:
            train(data, folder, n_members)
            code = 0
        finally:
            os._exit(code)
    return pid


def digests(folder: Path) -> dict[str, str]:
    paths = sorted(p for pattern in RESULTS for p in folder.glob(pattern))
    return {p.relative_to(folder).as_posix(): digest_file(p) for p in paths}


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kills(data: tuple[Manifest, Folds], folder: Path, n_kills: int, seed: int) -> dict:
    """Kill `n_kills` trainings. Start a new run each time a training finishes."""
    assert ended(forked(data, folder / "undisturbed")) == 0
    want = digests(folder / "undisturbed")
    rng, killed, runs, unequal = random.Random(seed), 0, 0, []
    while killed < n_kills:
        run = folder / f"run-{runs}"
        while True:
            pid = forked(data, run)
            time.sleep(rng.uniform(0.02, 0.7))
            if killed < n_kills:
                os.kill(pid, signal.SIGKILL)
            code = ended(pid)
            killed += code == -signal.SIGKILL
            if code == 0:
                break
            assert code == -signal.SIGKILL, code
        if digests(run) != want:
            unequal.append(run.name)
        runs += 1
    return {"killed": killed, "runs": runs, "unequal": unequal, "n_files": len(want)}


def points(data: tuple[Manifest, Folds], folder: Path, step: int) -> dict:
    """Kill a training at every write, before or after its rename, and continue it each time.

    Step 1: both before and after. Other steps: one of the two, alternately.
    """
    assert ended(forked(data, folder / "undisturbed", n_members=1)) == 0
    want = digests(folder / "undisturbed")
    names = {p.name for p in (folder / "undisturbed").rglob("*") if p.is_file()}
    names = {n for n in names if not n.startswith((".", "events."))} | {
        "resume-0.pt",
        "resume-1.json",
        "resume-2.pt",
    }
    faults, died = [], 0
    stages = [(name, stage) for name in sorted(names) for stage in ("written", "renamed")]
    tried = [at for i, at in enumerate(stages) if step == 1 or i % 4 in {0, 3}]
    for name, stage in tried:
        run = folder / f"at-{name}-{stage}"
        fail = {"ENSEMBLE_KIT_FAIL_AT": f"{name}:{stage}"}
        died += ended(forked(data, run, fail, n_members=1)) == 9
        if ended(forked(data, run, n_members=1)) != 0 or digests(run) != want:
            faults.append(f"{name}:{stage}")
        left = [p.name for p in run.rglob("*.tmp")]
        if left:
            faults.append(f"{name}:{stage} left {left}")
    return {"points": len(tried), "died": died, "unequal": faults}


def tuning(slides: Path, folder: Path) -> dict:
    """Kill a tuner in its first and third trial, and continue it each time."""
    recipe = RECIPE.model_copy(update={"epochs": 3})
    member = Member("tiny_cnn", image_size=16, pretrained=False, recipe=recipe)
    manifest, folds = read(slides)
    run, report = Run(folder / "run"), optuna.Trial.report

    def tuner(killed_in: int) -> int:
        def report_and_die(self: optuna.Trial, value: float, step: int) -> None:
            report(self, value, step)
            if (self.number, step) == (killed_in, 1):
                os.kill(os.getpid(), signal.SIGKILL)

        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                torch.set_num_threads(1)
                optuna.Trial.report = report_and_die
                tune_members(
                    [member], manifest, folds, run, n_trials=3, device="cpu", precision="fp32"
                )
                code = 0
            finally:
                os._exit(code)
        return ended(pid)

    codes = [tuner(trial) for trial in (0, 2, -1)]
    trials = optuna.load_study(study_name="tiny_cnn", storage=open_storage(run)).get_trials()
    return {
        "codes": codes,
        "states": [trial.state.name for trial in trials],
        "values": [trial.user_attrs["values"] for trial in trials],
        "requested": {"learning_rate": recipe.learning_rate, "batch_size": recipe.batch_size},
        "best": tuned_values(run, "tiny_cnn"),
    }


if __name__ == "__main__":
    mode, slides_path, folder_path, *rest = sys.argv[1:]
    if mode == "kills":
        out = kills(read(Path(slides_path)), Path(folder_path), *map(int, rest))
    elif mode == "points":
        out = points(read(Path(slides_path)), Path(folder_path), *map(int, rest))
    else:
        out = tuning(Path(slides_path), Path(folder_path))
    print(json.dumps(out))
