"""Disks that are full, limited or read-only: exit code 4, sizes in the message, old files unchanged."""

from __future__ import annotations

import contextlib
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ensemble_kit.errors import EnvironmentFault
from ensemble_kit.files import digest_bytes, read_json
from ensemble_kit.launch.slurm import SlurmEngine
from ensemble_kit.members.fit_members import fit_members
from ensemble_kit.members.member import Member
from ensemble_kit.members.recipe import Recipe
from ensemble_kit.run import Run

pytestmark = pytest.mark.slow

Mount = Callable[..., Path]
# A training state takes 0.9 MiB. Two and a half generations do not fit.
NETWORK, TOO_SMALL = "tiny_resnet", "size=2m"


def states_are_whole(run: Path) -> bool:
    """Whether there are training states, and all match the digests in their records."""
    records = list(run.rglob("resume-*.json"))
    return bool(records) and all(
        digest_bytes(r.with_suffix(".pt").read_bytes()) == read_json(r)["digest"] for r in records
    )


@pytest.mark.slow
@pytest.mark.parametrize("slots", [pytest.param(1, marks=pytest.mark.dense), 2])
def test_row_5_a_full_disk_ends_with_exit_4_and_training_can_be_continued(
    processes: Any, slides: Path, mounted: Mount, tmp_path: Path, slots: int
) -> None:
    disk = mounted(TOO_SMALL)
    line = processes.command(slides, disk / "run", "--members", NETWORK, "--slots", slots, epochs=5)
    done = processes.finished(line)
    assert done.returncode == 4, done.stderr
    needed, free = sizes(done.stderr)
    assert needed > free
    assert states_are_whole(disk / "run")
    assert not list(disk.rglob("*.pt.*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    again = processes.finished(line)
    assert again.returncode == 0, again.stderr
    assert re.search(r"after epoch \d", again.stdout)


def sizes(message: str) -> tuple[float, float]:
    """The needed and the free size in a message, in bytes."""
    found = re.findall(r"([\d.]+) (bytes|KiB|MiB)\b", message)
    assert len(found) == 2, message
    units = {"bytes": 1, "KiB": 2**10, "MiB": 2**20}
    needed, free = (float(n) * units[unit] for n, unit in found)
    return needed, free


@pytest.mark.slow
def test_row_5_a_limit_on_file_sizes_gives_exit_4(
    processes: Any, slides: Path, tmp_path: Path
) -> None:
    line = processes.command(slides, tmp_path / "run", "--members", NETWORK, epochs=2)
    done = processes.finished(
        line, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    )
    assert done.returncode == 4, done.stderr
    assert str(tmp_path / "run") in done.stderr


@pytest.mark.slow
def test_row_5_a_full_disk_gives_exit_4_through_a_slurm_array(trained: Any, mounted: Mount) -> None:
    pytest.importorskip("submitit")
    disk = mounted(TOO_SMALL)
    member = Member(NETWORK, image_size=16, pretrained=False, recipe=Recipe(epochs=5))
    with pytest.raises(EnvironmentFault, match=re.escape(str(disk))) as failed:
        fit_members(
            [member], trained.manifest, trained.folds, Run(disk / "run"), device="cpu",
            engine=SlurmEngine(gpus=0, cpus=1, minutes=5, cluster="local"), shard=(1, 3),
        )  # fmt: skip
    assert failed.value.exit_code == 4


FILLING = """
import os, sys
from pathlib import Path
from ensemble_kit.errors import EnvironmentFault
from ensemble_kit.images.tiles import build as tiles
from ensemble_kit.manifest.table import Manifest

slides, disk, reserve = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "True"
if not reserve:
    del os.posix_fallocate
real = tiles.render

def render(*words, **options):
    try:
        with open(disk / "another", "xb", buffering=0) as another:
            while True:
                another.write(bytes(2**20))
    except OSError:
        pass
    return real(*words, **options)

tiles.render = render
try:
    tiles.build_tiles(Manifest.from_folders(slides), 192, cache_dir=disk / "cache")
except EnvironmentFault as error:
    print(error.exit_code, error)
"""


@pytest.mark.parametrize("reserve", [True, False])
def test_row_5_a_disk_that_fills_during_decoding_gives_exit_4_and_no_files_are_left(
    processes: Any, slides: Path, mounted: Mount, reserve: bool
) -> None:
    disk = mounted("size=75m")
    done = processes.python(FILLING, slides, disk, reserve)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("4 ")
    needed, free = sizes(done.stdout)
    assert free < needed
    assert needed == pytest.approx(80 * 192 * 192 * 3, rel=0.01)  # 80 images of 192 x 192 pixels
    assert not list((disk / "cache").glob(".tiles-*"))


@pytest.mark.parametrize("size", ["4k", "40k"])
def test_row_5_a_disk_that_is_too_small_for_the_plan_gives_exit_4(
    processes: Any, slides: Path, mounted: Mount, size: str
) -> None:
    done = processes.finished(
        processes.command(slides, mounted(f"size={size}") / "run", "--slots", 1, epochs=1)
    )
    assert done.returncode == 4, done.stderr
    assert "/disk/run" in done.stderr
    assert "Traceback" not in done.stderr


def test_row_6_a_read_only_folder_gives_exit_4_before_training(
    processes: Any, slides: Path, mounted: Mount
) -> None:
    done = processes.finished(processes.command(slides, mounted("ro") / "run"))
    assert done.returncode == 4, done.stderr
    assert "/disk/run" in done.stderr
    assert "epoch" not in done.stdout.partition("Plan:")[2]


# root may write anywhere, so the script changes its user. It does so after the imports and inside the
# folder, because the other user may have no access to either.
CLOSED = """
import os, sys
from pathlib import Path
import ensemble_kit.cli as cli
from ensemble_kit.run.lock import held
os.chdir(sys.argv[1])
if os.geteuid() == 0:
    try:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    except OSError:
        sys.exit(77)
def work(**_):
    with held(Path("run")): pass
cli.app = work
cli.main()
"""


def test_row_6_a_folder_without_permission_gives_exit_4(processes: Any, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    done = processes.python(CLOSED, folder)
    if done.returncode == 77:
        pytest.skip("this user may not become another one")
    assert done.returncode == 4, done.stderr
    assert "'run'" in done.stderr


TRACED = re.compile(
    r"(?P<call>fsync|fdatasync|rename\w*)\((?:\d+<(?P<synced>[^>]*)>|"
    r'(?:AT_FDCWD[^,]*, )?"(?P<old>[^"]*)", (?:AT_FDCWD[^,]*, )?"(?P<new>[^"]*)")'
)
LINE = (
    "import sys\nimport ensemble_kit.cli as cli\n"
    "for words in (sys.argv[1].split('|'), sys.argv[2].split('|')):\n"
    "    sys.argv = ['ensemble-kit', *words]\n    cli.main()\n"
)


@pytest.mark.slow
def test_row_4_every_file_is_synced_then_renamed_then_its_folder_is_synced(
    processes: Any, slides: Path, tmp_path: Path
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    run, trace = tmp_path / "run", tmp_path / "trace"
    train = processes.command(slides, run, "--slots", 1, epochs=1)[3:]
    stack = ["stack", "--run", str(run), "--method", "ridge", "--resamples", "10"]
    done = processes.finished(
        [
            "strace", "-f", "-y", "-s", "999", "--seccomp-bpf", "-o", str(trace),
            "-e", "trace=fsync,fdatasync,rename,renameat,renameat2",
            sys.executable, "-c", LINE, "|".join(train), "|".join(stack),
        ]
    )  # fmt: skip
    if not trace.is_file() or "fsync" not in trace.read_text():
        pytest.skip(f"strace is not allowed here: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    calls = [m.groupdict() for m in map(TRACED.search, trace.read_text().splitlines()) if m]
    renamed = {n: one for n, one in enumerate(calls) if (one["new"] or "").startswith(str(run))}
    for n, one in renamed.items():
        if Path(one["new"]).name.startswith("."):
            continue  # locks and heartbeat files are not needed after a power loss
        synced = [other["synced"] for other in calls[:n]]
        assert one["old"] in synced or any(s and s.startswith(f"{one['old']}/") for s in synced), (
            one
        )
        assert str(Path(one["new"]).parent) in [other["synced"] for other in calls[n:]], one
    targets = {one["new"] for one in renamed.values()}
    folders = tuple(f"{new}/" for new in targets)
    files = [p for p in run.rglob("*") if p.is_file() and not p.name.startswith((".", "events."))]
    assert len(files) > 20
    assert [str(p) for p in files if str(p) not in targets and not str(p).startswith(folders)] == []


@pytest.mark.slow
def test_row_39_a_run_does_not_need_shared_memory(
    processes: Any, slides: Path, tmp_path: Path
) -> None:
    line = processes.command(slides, tmp_path / "run", "--slots", 2, epochs=2)
    script = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && cat /dev/zero > /dev/shm/full; exec "$@"'
    done = processes.finished(["unshare", "-m", "sh", "-c", script, "sh", *line])
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip("this user may not shrink /dev/shm")
    assert "No space left" in done.stderr, "/dev/shm was not full"
    assert done.returncode == 0, done.stderr


def test_row_5_the_message_has_the_size_of_the_write(processes: Any, tmp_path: Path) -> None:
    code = (
        "import resource, sys\nfrom ensemble_kit.files import write_bytes\n"
        "from ensemble_kit.errors import EnvironmentFault\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "try:\n    write_bytes(sys.argv[1], b'n' * (3 * 2**20))\n"
        "except EnvironmentFault as error:\n    print(error)\n"
    )
    assert "3.0 MiB" in processes.python(code, tmp_path / "state").stdout


def filled(disk: Path) -> Path:
    """A file that takes all free space of the disk."""
    full = disk / "full"
    with full.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))
    with full.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1))
    return full


def test_row_5_a_full_disk_ends_every_writing_command_with_exit_4_and_old_files(
    after_stack: Path, mounted: Mount, invoke: Any, commands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemble_kit.plots.style.svg_bytes", lambda figure: b"<svg/>")
    disk = mounted("size=8m")
    run = Path(shutil.copytree(after_stack, disk / "run"))
    shutil.copytree(after_stack, disk / "other")
    full = filled(disk)
    before = {p: digest_bytes(p.read_bytes()) for p in run.rglob("*") if p.is_file()}
    ends = {}
    for name, words in commands(run).items():
        ends[name], printed = invoke(*words)
        assert ends[name] in {0, 4}, f"{name}: {printed}"
        assert not ends[name] or str(disk) in printed, f"{name}: {printed}"
        now = {p: digest_bytes(p.read_bytes()) for p in run.rglob("*") if p in before}
        assert now == before, name
        assert not list(run.rglob("*.tmp")), name
    assert {name for name, code in ends.items() if code == 0} == {"compare", "status"}
    full.unlink()
    assert {name: invoke(*words)[0] for name, words in commands(run).items()} == dict.fromkeys(
        ends, 0
    )
