"""Faults of disk, memory, processes and numbers. They are real if possible."""

from __future__ import annotations

import itertools
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from ensemble_kit.errors import DataError, EnvironmentFault, IntegrityError, JobsFailedError
from ensemble_kit.launch.local import LocalEngine
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.jobs.events import EpochEnded, Event, JobFailed, JobStarted, Notice
from ensemble_kit.members.jobs.resume import load_resume, save_resume
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.members.training import step as step_module
from ensemble_kit.run import Run

pytestmark = pytest.mark.slow

RECIPE = Recipe(epochs=3, batch_size=16, learning_rate=3e-3)
TINY = Member("tiny_cnn", image_size=16, pretrained=False, recipe=RECIPE)


def train(trained: Any, folder: Path, *members: Member, **options: Any) -> list[Event]:
    events: list[Event] = []
    fit_members(
        members or [TINY], trained.manifest, trained.folds, Run(folder), device="cpu",
        listener=events.append, **options,
    )  # fmt: skip
    return events


def of_kind(events: list[Event], kind: type) -> list[Any]:
    return [e for e in events if isinstance(e, kind)]


def python(code: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


# -- the disk ------------------------------------------------------------------------------


def test_row_2_after_a_kill_during_saving_the_previous_state_is_used(tmp_path: Path) -> None:
    # torch is loaded once; each writer is a fork of that process.
    code = (
        "import os, random, signal, sys, time, torch\n"
        "from pathlib import Path\n"
        "from ensemble_kit.members.jobs.resume import save_resume\n"
        "def write(folder):\n"
        "    torch.set_num_threads(1)\n"
        "    state = {'weights': torch.zeros(8_000_000), 'history': []}\n"
        "    for step in range(10_000):\n"
        "        state['history'].append(step); state['weights'].fill_(step)\n"
        "        save_resume(folder, state, {'of': 'this'})\n"
        "rng = random.Random(3)\n"
        "for attempt in range(6):\n"
        "    folder = Path(sys.argv[1]) / str(attempt)\n"
        "    if (pid := os.fork()) == 0:\n"
        "        write(folder)\n"
        "        os._exit(1)\n"
        "    while not (folder / 'resume-0.json').exists():\n"
        "        time.sleep(0.01)\n"
        "    time.sleep(rng.uniform(0.0, 0.6))\n"
        "    os.kill(pid, signal.SIGKILL)\n"
        "    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])\n"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    for attempt in range(6):
        folder = tmp_path / str(attempt)
        state = load_resume(folder, {"of": "this"}, notice=pytest.fail)
        assert state is not None
        step = state["history"][-1]
        assert len(state["history"]) == step + 1
        assert bool((state["weights"] == step).all())


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_row_9_a_truncated_state_is_named_and_the_previous_state_is_used(
    tmp_path: Path, share: float
) -> None:
    save_resume(tmp_path, {"history": [0], "weights": torch.ones(1000)}, {"of": "this"})
    save_resume(tmp_path, {"history": [0, 1], "weights": torch.ones(1000)}, {"of": "this"})
    newest = tmp_path / "resume-1.pt"
    content = newest.read_bytes()
    newest.write_bytes(content[: int(share * len(content))])
    notices: list[str] = []
    state = load_resume(tmp_path, {"of": "this"}, notices.append)
    assert state is not None
    assert state["history"] == [0]
    (text,) = notices
    assert str(newest) in text


def test_row_9_if_all_states_are_damaged_one_notice_names_them(tmp_path: Path) -> None:
    for n in (1, 2):
        save_resume(tmp_path, {"history": [0] * n}, {"of": "this"})
    for path in tmp_path.glob("resume-*.pt"):
        path.write_bytes(b"torn")
    notices: list[str] = []
    assert load_resume(tmp_path, {"of": "this"}, notices.append) is None
    (text,) = notices
    assert "epoch 1" in text
    assert "resume-0.pt" in text
    assert "resume-1.pt" in text


def test_row_5_a_full_disk_leaves_the_old_file_unchanged_and_names_it(
    trained: Any, tmp_path: Path
) -> None:
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from ensemble_kit.files import write_bytes\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "from ensemble_kit.errors import EnvironmentFault\n"
        "try:\n"
        "    write_bytes(sys.argv[1], b'n' * 1_000_000)\n"
        "except EnvironmentFault as error:\n"
        "    print(error); sys.exit(error.exit_code)\n"
    )
    target = tmp_path / "state.bin"
    target.write_bytes(b"old")
    done = python(code, target)
    assert done.returncode == 4, done.stderr
    assert str(target) in done.stdout
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["state.bin"]


def test_row_11_a_checkpoint_swapped_between_folds_is_refused(trained: Any, tmp_path: Path) -> None:
    copy = trained.copied_to(tmp_path / "run")
    one, other = copy.run.fold_dir("tiny_cnn", 0), copy.run.fold_dir("tiny_cnn", 1)
    shutil.copy(other / "model.safetensors", one / "model.safetensors")
    with pytest.raises(IntegrityError, match=r"fold-0/model\.safetensors"):
        train(
            copy,
            copy.run.path,
            Member(
                "tiny_cnn",
                image_size=16,
                pretrained=False,
                recipe=Recipe(epochs=2, batch_size=16, learning_rate=3e-3),
            ),
        )


def test_row_12_a_changed_recipe_is_refused_with_its_keys(trained: Any, tmp_path: Path) -> None:
    copy = trained.copied_to(tmp_path / "run")
    changed = TINY.model_copy(
        update={"recipe": Recipe(epochs=5, batch_size=16, learning_rate=3e-3)}
    )
    with pytest.raises(DataError, match=r"member\.recipe\.epochs: 2 -> 5"):
        train(copy, copy.run.path, changed)
    events = train(copy, copy.run.path, changed, retrain=True)
    assert len(of_kind(events, JobStarted)) == 3
    assert (
        copy.run.path / "replaced" / "tiny_cnn-1" / "members" / "fold-0" / "fold.json"
    ).is_file()


# -- numbers -------------------------------------------------------------------------------


def poison(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Make the first job's losses NaN in its second epoch, in the first `times` attempts at it."""
    real, first = step_module._forward_backward, []

    def poisoned(training: Any, *rest: Any) -> Any:
        loss, logits = real(training, *rest)
        first.append(training)
        attempt = 1 if training.rate_factor == 1.0 else 2
        if training is first[0] and training.epoch == 1 and attempt <= times:
            loss = loss * float("nan")
        return loss, logits

    monkeypatch.setattr(step_module, "_forward_backward", poisoned)


def test_row_34_after_one_nan_loss_training_resumes_at_a_lower_rate(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 1)
    events = train(trained, tmp_path / "run")
    assert of_kind(events, Notice)
    rates = [e.learning_rate for e in of_kind(events, EpochEnded) if e.fold == 0]
    clean = [
        e.learning_rate
        for e in of_kind(train(trained, tmp_path / "clean"), EpochEnded)
        if e.fold == 0
    ]
    assert rates[0] == clean[0]
    np.testing.assert_allclose(rates[1:], 0.1 * np.array(clean[1:]))


def test_row_34_a_second_nan_fails_the_job_and_the_other_jobs_continue(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, 2)
    with pytest.raises(JobsFailedError, match="1 of 3") as failed:
        train(trained, tmp_path / "run")
    assert re.search(r"P\d\d_\d", str(failed.value))
    assert re.search(r"nan\b.*epoch 2", str(failed.value))
    done = sorted(p.parent.name for p in (tmp_path / "run").glob("members/tiny_cnn/*/fold.json"))
    assert done == ["fold-1", "fold-2"]


def out_of_memory_above(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    real = step_module._forward_backward

    def cramped(training: Any, forward: Any, images: Any, *rest: Any) -> Any:
        if -(-len(images) // training.micro_batches) > n:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(training, forward, images, *rest)

    monkeypatch.setattr(step_module, "_forward_backward", cramped)


def test_row_36_out_of_memory_splits_the_batch_into_parts(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_memory_above(monkeypatch, 4)
    events = train(trained, tmp_path / "run")
    assert any("4 parts" in n.text for n in of_kind(events, Notice))
    assert len(of_kind(events, EpochEnded)) == 9


@pytest.mark.parametrize("at", [0, 2, 5])
def test_row_36_out_of_memory_inside_a_step_does_not_change_the_weights(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    # Without batch normalisation, parts change only rounding.
    recipe = RECIPE.model_copy(update={"epochs": 2})
    member = Member("basic_cnn", image_size=32, pretrained=False, drop_rate=0, recipe=recipe)
    options = {"precision": "fp32", "shard": (1, 3)}
    train(trained, tmp_path / "calm", member, **options)
    real, steps = step_module._forward_backward, itertools.count()

    def cramped(training: Any, forward: Any, images: Any, target: Any, plan: Any, n: int) -> Any:
        if next(steps) == at:
            # The first part has computed its gradients before the next part fails.
            real(training, forward, images[:5], target[:5], plan, 1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return real(training, forward, images, target, plan, n)

    monkeypatch.setattr(step_module, "_forward_backward", cramped)
    events = train(trained, tmp_path / "run", member, **options)
    assert sum("2 parts" in n.text for n in of_kind(events, Notice)) == 1
    calm, got = (
        load_file(Run(tmp_path / name).fold_dir("basic_cnn", 0) / "model.safetensors")
        for name in ("calm", "run")
    )
    for name, tensor in calm.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("network", "n", "smallest"), [("tiny_cnn", 1, r"two images"), ("basic_cnn", 0, r"one image\b")]
)
def test_row_36_if_the_smallest_part_does_not_fit_the_run_fails(
    trained: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: str,
    n: int,
    smallest: str,
) -> None:
    out_of_memory_above(monkeypatch, n)
    member = Member(network, image_size=32, pretrained=False, recipe=RECIPE)
    with pytest.raises(EnvironmentFault, match=smallest):
        train(trained, tmp_path / "run", member)


def test_parts_of_a_batch_give_the_gradient_of_the_batch(trained: Any, tmp_path: Path) -> None:
    # Without batch normalisation, parts change only rounding.
    plain = Member("basic_cnn", image_size=32, pretrained=False, drop_rate=0, recipe=RECIPE)
    optim = {"micro_batches": 4}
    parts = Member(
        "basic_cnn",
        name="parts",
        drop_rate=0,
        image_size=32,
        pretrained=False,
        recipe=Recipe(**{**RECIPE.model_dump(), "optim": optim}),
    )
    losses = {}
    for member in (plain, parts):
        named = member.model_copy(update={"name": "same"})
        events = train(trained, tmp_path / member.name, named, precision="fp32")
        losses[member.name] = [e.train_loss for e in of_kind(events, EpochEnded)]
    np.testing.assert_allclose(losses["basic_cnn"], losses["parts"], rtol=1e-4)


# -- processes -----------------------------------------------------------------------------


@pytest.mark.slow
def test_row_38_a_killed_worker_is_replaced_and_its_job_is_run_again(
    trained: Any, tmp_path: Path
) -> None:
    killed: list[int] = []

    def kill_first(event: Event) -> None:
        if isinstance(event, EpochEnded) and event.epoch == 0 and not killed:
            for child in psutil.Process().children():
                if "ensemble_kit.launch.worker" in " ".join(child.cmdline()):
                    child.kill()
                    killed.append(child.pid)
        events.append(event)

    events: list[Event] = []
    members = [TINY]
    fit_members(
        members, trained.manifest, trained.folds, Run(tmp_path / "run"), device="cpu",
        listener=kill_first, engine=LocalEngine(slots=1, threads=1),
    )  # fmt: skip
    assert killed
    assert any("SIGKILL" in n.text for n in of_kind(events, Notice))
    calm = train(trained, tmp_path / "calm")
    assert not of_kind(calm, JobFailed)
    for k in range(3):
        got = np.load(Run(tmp_path / "run").fold_dir("tiny_cnn", k) / "logits-oof.npy")
        want = np.load(Run(tmp_path / "calm").fold_dir("tiny_cnn", k) / "logits-oof.npy")
        np.testing.assert_array_equal(got, want)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_row_59_a_signal_ends_parent_and_workers_and_finished_epochs_are_stored(
    slides: Path, tmp_path: Path, number: int, code: int
) -> None:
    command = [
        sys.executable, "-m", "ensemble_kit", "train-members", "--data", str(slides), "--members", "tiny_cnn",
        "--folds", "2", "--image-size", "16", "--epochs", "100000", "--no-pretrained", "--slots", "2",
        "--run", str(tmp_path / "run"),
    ]  # fmt: skip
    parent = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        # If a shell runs the tests in the background they ignore Ctrl-C. The child must not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: list((tmp_path / "run").rglob("resume-*.json")))
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    parent.send_signal(number)
    parent.communicate(timeout=60)
    assert parent.returncode == code
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
    assert list((tmp_path / "run").rglob("resume-*.pt"))


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timeout"
        time.sleep(0.05)
