"""Kills the commands after training at each change of a file. Each attempt is a fork.

Run as a script, so that no state of the test process is forked:
    python commands_harness.py FOLDER STEP
Prints one JSON line.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import sklearn.linear_model  # noqa: F401  (loaded once, not in each child)

from ensemble_kit.cli import main
from ensemble_kit.files import digest_file
from ensemble_kit.testing import toy_run

# The changes that a reader of the folder can see. All others go to temporary files.
CHANGES = {"os.rename", "os.remove", "os.rmdir"}
FOLDER = "ensembles"
RESULTS = (
    "predictions.csv",
    "metrics.json",
    "combiner.json",
    "sets.csv",
    "sets.json",
    "decision.json",
)


def words_of(run: Path, resamples: int) -> dict[str, list[object]]:
    quick = ("--run", run, "--resamples", resamples)
    return {
        "stack": ["stack", "--method", "ridge", *quick],
        "conformal": ["conformal", "--method", "ridge", *quick],
        "operating-point": [
            "operating-point", "--method", "ridge", "--at", "youden", "--class", "class1", *quick,
        ],
    }  # fmt: skip


def called(words: list[object], die_at: int = -1) -> tuple[int, int]:
    """Run a command in a child that kills itself at change `die_at`. Return exit code and changes."""
    back, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = in_child(list(map(str, words)), there, die_at)
        finally:
            os._exit(code)
    os.close(there)
    with os.fdopen(back, "rb") as counted:
        n_points = len(counted.read())
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), n_points


def in_child(words: list[str], there: int, die_at: int) -> int:
    passed: list[object] = []

    def before(event: str, arguments: tuple[object, ...]) -> None:
        if event in CHANGES and FOLDER in str(arguments[0]):
            if len(passed) == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            passed.append(arguments[0])
            os.write(there, b".")

    sys.addaudithook(before)
    sys.argv, sys.stdout = ["ensemble-kit", *words], open(os.devnull, "w")  # noqa: SIM115
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def digests(run: Path) -> dict[str, str]:
    return {
        path.relative_to(run).as_posix(): digest_file(path)
        for path in sorted(run.glob("ensembles/[!.]*/*"))
        if path.name in RESULTS
    }


def prepared(run: Path) -> Path:
    """A run after every command. Its members were then trained again."""
    made = toy_run(run, n_samples=60, n_members=2, n_classes=2, n_groups=20, n_folds=2)
    for words in words_of(run, 10).values():
        assert called(words)[0] == 0, words
    for name in made.store.members():
        old = made.store.read(name)
        made.store.write(name, dataclasses.replace(old, oof=old.oof[:, ::-1] + old.oof))
    return run


def fault_at(name: str, point: int, start: Path, run: Path, want: dict[str, str]) -> str:
    """The fault after a kill at a change, or ""."""
    shutil.copytree(start, run)
    words = words_of(run, 20)
    code, _ = called(words[name], point)
    if code != -signal.SIGKILL:
        return f"it ended with {code}"
    before, now = digests(start), digests(run)
    if torn := [n for n, digest in now.items() if digest not in (before.get(n), want.get(n))]:
        return f"torn: {torn}"
    if name == "stack" and point % 4:
        read = called(words["conformal"])[0]
        if read not in {0, 2, 3, 7}:
            return f"a reader ended with {read}"
        fresh = {n: now.get(n) == d for n, d in want.items() if n.startswith("ensembles/ridge/")}
        if read == 0 and not all(fresh.values()):
            return f"a reader accepted partly old files: {fresh}"
    if (code := called(words[name])[0]) != 0:
        return f"the same command ended with {code}"
    if (again := {n: d for n, d in digests(run).items() if n in want}) != want:
        return f"differs from undisturbed: {[n for n in want if again.get(n) != want[n]]}"
    return f"left {left}" if (left := [p.name for p in run.rglob("*.tmp")]) else ""


def check(folder: Path, step: int) -> dict[str, Any]:
    """Kill each command at every `step`th change."""
    start, faults, points = prepared(folder / "start"), [], {}
    for name in words_of(start, 20):
        clean = folder / f"{name}-clean"
        shutil.copytree(start, clean)
        code, points[name] = called(words_of(clean, 20)[name])
        assert code == 0, name
        fresh = digests(clean)
        want = {n: d for n, d in fresh.items() if d != digests(start).get(n)}
        for point in range(0, points[name], step):
            if fault := fault_at(name, point, start, folder / f"{name}-{point}", want):
                faults.append(f"{name}, change {point}: {fault}")
        start = clean
    return {"points": points, "faults": faults}


if __name__ == "__main__":
    print(json.dumps(check(Path(sys.argv[1]), int(sys.argv[2]))))
