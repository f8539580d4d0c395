"""Atomic writes, checked reads of JSON, TOML, CSV and arrays, digests, and guarded CSV cells."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble_kit import files
from ensemble_kit.atomic_write import atomic_write, sweep, temporary_beside
from ensemble_kit.errors import DataError, EnvironmentFault, IntegrityError
from ensemble_kit.tables import read_table

# -- writing -------------------------------------------------------------------------------


def test_a_reader_sees_the_old_or_the_new_content(tmp_path: Path) -> None:
    target = tmp_path / "state"
    contents = [bytes([n]) * 200_000 for n in range(8)]
    files.write_bytes(target, contents[0])
    seen: list[bytes] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            seen.append(target.read_bytes())

    reader = threading.Thread(target=look)
    reader.start()
    for content in contents * 5:
        files.write_bytes(target, content)
    done.set()
    reader.join()
    assert seen
    assert set(seen) <= set(contents)


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "state"
    files.write_bytes(target, b"old")

    def half(file: BinaryIO) -> None:
        file.write(b"new, but only ha")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        atomic_write(target, half)
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_sweep_removes_files_of_dead_writers_only(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    own = temporary_beside(tmp_path / "run.json")
    left = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{int(dead.stdout)}-"))
    foreign = [tmp_path / name for name in (".run.json.tmp", ".a.b-c-d.tmp", ".tmp", "..tmp")]
    for path in (own, left, *foreign):
        path.write_text("")
    sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {own, *foreign}


def test_missing_folders_are_created(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "b" / "c.txt", "é\n")
    assert (tmp_path / "a" / "b" / "c.txt").read_bytes() == b"\xc3\xa9\n"


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127, "🔬" * 63], ids=["n", "two bytes", "four"])
def test_the_longest_names_can_be_written(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    files.write_bytes(target, b"x")
    assert target.read_bytes() == b"x"


def test_the_data_are_synced_before_the_rename_and_the_folder_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def spy_fsync(handle: int) -> None:
        order.append("folder" if Path(f"/proc/self/fd/{handle}").resolve() == tmp_path else "data")
        fsync(handle)

    def spy_replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(Path, "replace", spy_replace)
    files.write_bytes(tmp_path / "state", b"x")
    assert order == ["data", "rename", "folder"]


# Simulates a full disk: the old file has 1 kB, the limit is 100 kB, the new file has 1 MB.
FULL_DISK = """
import resource, signal, sys
from ensemble_kit.errors import EnvironmentFault
from ensemble_kit.files import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_bytes(sys.argv[1], b"n" * 1_000_000)
except EnvironmentFault as fault:
    print(fault)
    sys.exit(fault.exit_code)
"""


def test_a_full_disk_keeps_the_old_file_and_is_exit_4(tmp_path: Path) -> None:
    target = tmp_path / "state"
    target.write_bytes(b"o" * 1000)
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(target)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4, done.stderr
    assert f"'{target}'" in done.stdout
    assert "the file-size limit is reached" in done.stdout
    assert "MiB are free there" in done.stdout
    assert target.read_bytes() == b"o" * 1000
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "words"),
    [("ENOSPC", "the disk is full"), ("EDQUOT", "the quota is used up"), ("EROFS", "read-only")],
)
def test_the_error_of_a_disk_names_the_reason(tmp_path: Path, number: str, words: str) -> None:
    import errno

    def refuse(file: BinaryIO) -> None:
        raise OSError(getattr(errno, number), "as the kernel says")

    with pytest.raises(EnvironmentFault, match=words):
        atomic_write(tmp_path / "state", refuse)


KILLED = """
import sys
from ensemble_kit.files import write_bytes
n = 0
while True:
    write_bytes(sys.argv[1], bytes([n % 256]) * 4_000_000)
    if n == 0:
        print("writing", flush=True)
    n += 1
"""


def test_a_killed_writer_leaves_a_complete_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for attempt in range(6):
        target = tmp_path / f"state-{attempt}"
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
            time.sleep(float(rng.uniform(0, 0.05)))
            writer.send_signal(signal.SIGKILL)
        content = target.read_bytes()
        assert len(content) == 4_000_000
        assert len(set(content)) == 1


# -- JSON, TOML, CSV, arrays ---------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=30, deadline=None, derandomize=True)
@given(VALUES)
def test_json_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    files.write_json(path, value)
    assert files.read_json(path) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_has_no_nan_when_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"value": value})
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("text", ["NaN", "[1, Infinity]", '{"a": -Infinity}', "{", "", "[1,]"])
def test_invalid_json_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"x\.json'"):
        files.read_json(path)


@pytest.mark.parametrize(("reader", "open_"), [(files.read_json, "["), (files.read_json, '{"a":'), (files.read_toml, "a = [")])  # fmt: skip
def test_deep_nesting_is_an_error_and_no_crash(tmp_path: Path, reader: object, open_: str) -> None:
    path = tmp_path / "deep"
    path.write_text(open_ + "[" * 200_000)
    with pytest.raises(DataError):
        reader(path)  # type: ignore[operator]


def test_huge_text_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.json"
    with path.open("wb") as file:
        file.truncate(files.MAX_TEXT_BYTES + 1)
    with pytest.raises(DataError, match="64 MiB"):
        files.read_json(path)


def test_text_with_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.csv'.*UTF-8"):
        files.read_csv(tmp_path / "latin.csv")


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfpath,label\na,b\n")
    assert files.read_csv(tmp_path / "t.csv").columns.tolist() == ["path", "label"]
    (tmp_path / "t.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert files.read_json(tmp_path / "t.json") == [1]


def test_cells_stay_text(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"label": ["NA", "", "007", "1+", "null"], "x": ["1e3", "True", " ", "é", "nan"]}
    )
    files.write_csv(tmp_path / "t.csv", frame)
    assert files.read_csv(tmp_path / "t.csv").to_dict("list") == frame.to_dict("list")


def test_floats_in_tables_keep_every_digit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=200) * 10.0 ** np.arange(-100, 100)
    files.write_csv(tmp_path / "t.csv", pd.DataFrame({"x": values}))
    assert np.array_equal(files.read_csv(tmp_path / "t.csv")["x"].astype(np.float64), values)


def test_an_array_is_read_as_it_was_written(tmp_path: Path) -> None:
    array = np.array([[np.nan, -0.0, np.inf], [1e-45, 1.0, -np.inf]], dtype=np.float32)
    files.write_npy(tmp_path / "a.npy", array)
    back = files.read_npy(tmp_path / "a.npy")
    assert back.dtype == np.float32
    assert back.tobytes() == array.tobytes()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_truncated_array_is_an_integrity_error(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.npy"
    files.write_npy(path, np.arange(1000.0))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(IntegrityError, match=r"a\.npy"):
        files.read_npy(path)


def test_an_array_with_code_is_refused_and_the_code_is_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "owned"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {marker}",)

    np.save(tmp_path / "a.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    with pytest.raises(IntegrityError):
        files.read_npy(tmp_path / "a.npy")
    assert not marker.exists()


# -- digests and folders -------------------------------------------------------------------


def test_a_digest_is_sha256_of_the_bytes(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "f").write_bytes(content)
    want = hashlib.sha256(content).hexdigest()
    assert files.digest_file(tmp_path / "f") == files.digest_bytes(content) == want


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(), min_size=2, max_size=5)
)
def test_a_digest_of_json_ignores_the_order_of_keys(value: dict[str, int]) -> None:
    turned = dict(reversed(value.items()))
    assert files.digest_json(value) == files.digest_json(turned)
    key = next(iter(value))
    assert files.digest_json(value) != files.digest_json({**value, key: value[key] + 1})


def test_a_digest_of_json_is_the_same_in_another_process() -> None:
    value = {"b": [1, 2.5, None], "a": {"é": "x"}}
    code = f"from ensemble_kit.files import digest_json; print(digest_json({value!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONHASHSEED": "7"})  # fmt: skip
    assert other.stdout.strip() == files.digest_json(value)


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_KIT_CACHE", "/somewhere/else")
    assert files.cache_folder() == Path("/somewhere/else")
    monkeypatch.delenv("ENSEMBLE_KIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert files.cache_folder() == Path("/xdg/ensemble-kit")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert files.cache_folder() == Path.home() / ".cache" / "ensemble-kit"


@pytest.mark.parametrize("read", [files.read_text, files.read_toml, files.read_json, read_table])
def test_a_named_pipe_is_refused(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"pipe\.csv"):
        read(tmp_path / "pipe.csv")


def test_a_pipe_of_the_shell_is_read() -> None:
    out, into = os.pipe()
    os.write(into, b"path,label\n")
    os.close(into)
    assert files.read_text(f"/dev/fd/{out}") == "path,label\n"
    os.close(out)


# -- tables that spreadsheets open ---------------------------------------------------------

CELLS = st.text(st.sampled_from("'=+-@\t\r\n＝\",; a0é"), max_size=4)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4), CELLS)
def test_texts_are_read_back_and_are_no_formulas(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], name: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "texts.csv"
    frame = pd.DataFrame([("x", *row) for row in rows], columns=["x", f"a{name}", f"{name}b"])
    files.write_csv(path, frame)
    back = files.read_csv(path)
    assert back.columns.tolist() == frame.columns.tolist()
    assert back.to_numpy().tolist() == frame.to_numpy().tolist()
    with path.open(newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "＝"))]


def test_numbers_and_older_unguarded_tables_are_read(
    tmp_path: Path,
) -> None:
    files.write_csv(tmp_path / "new.csv", pd.DataFrame({"id": ["-1"], "value": [-0.5]}))
    assert (tmp_path / "new.csv").read_text() == "id,value\n'-1,-0.5\n"
    (tmp_path / "old.csv").write_text("id,group\n=1+1,-7\n")
    assert files.read_csv(tmp_path / "old.csv").to_numpy().tolist() == [["=1+1", "-7"]]
