"""JSON records with their own digest, and folders that are replaced as a whole."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble_kit.atomic_write import sweep
from ensemble_kit.checked import check_file, is_bound, read_checked, write_checked
from ensemble_kit.errors import DataError, EnvironmentFault, IntegrityError
from ensemble_kit.files import digest_file, read_csv, read_json
from ensemble_kit.replaced import replaced_whole

RECORD: dict[str, Any] = {"n": 3, "of": [1.5, None, "ä"], "by": {"a": (1, 2)}}


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_checked(tmp_path / "r.json", RECORD)
    assert read_checked(tmp_path / "r.json", advice="-") == json.loads(json.dumps(RECORD))
    assert is_bound(tmp_path / "r.json")


def test_the_digest_is_that_of_the_readme(tmp_path: Path) -> None:
    readme = Path(__file__).resolve().parents[1] / "checkpoints" / "README.md"
    blocks = re.findall(r"^```python\n(.*?)^```$", readme.read_text("utf-8"), re.DOTALL | re.MULTILINE)  # fmt: skip
    found: dict[str, Any] = {}
    exec(next(block for block in blocks if "def own_digest" in block), found)
    write_checked(tmp_path / "r.json", RECORD)
    record = json.loads((tmp_path / "r.json").read_text())
    assert found["own_digest"](record) == record["own_digest"]


def test_a_changed_digit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_checked(path, {"accuracy": 0.8125, "n": 160, "notes": ["7 groups"]})
    whole = path.read_text()
    for at in [m.start() for m in re.finditer(r"\d", whole)]:
        path.write_text(whole[:at] + ("1" if whole[at] != "1" else "2") + whole[at + 1 :])
        with pytest.raises(IntegrityError, match=r"r\.json"):
            read_checked(path, advice="-")


@pytest.mark.parametrize("text", ["null", "[]", "3", '"x"', "{", ""])
def test_a_record_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(IntegrityError, match=r"r\.json"):
        read_checked(tmp_path / "r.json", advice="-")


def test_a_record_of_an_earlier_version_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"n": 3}')
    assert read_checked(tmp_path / "r.json", advice="-") == {"n": 3}
    assert not is_bound(tmp_path / "r.json")


def test_a_missing_record_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"r\.json"):
        read_checked(tmp_path / "r.json", advice="-")


def test_a_file_beside_its_record_is_compared(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a\n1\n")
    digest = digest_file(path)
    check_file(path, digest, advice="-")
    path.write_text("a\n2\n")
    with pytest.raises(IntegrityError, match=r"a\.csv"):
        check_file(path, digest, advice="-")
    path.unlink()
    with pytest.raises(IntegrityError, match=r"a\.csv"):
        check_file(path, digest, advice="-")


@pytest.mark.parametrize("reader", [read_csv, read_json])
def test_row_25_a_pipe_in_place_of_a_stored_file_does_not_hang(tmp_path: Path, reader: Any) -> None:
    os.mkfifo(tmp_path / "t")
    with pytest.raises(DataError, match="/t'"):
        reader(tmp_path / "t")


def test_an_endless_device_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "t.csv").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"t\.csv"):
        read_csv(tmp_path / "t.csv")


def test_tables_of_a_run_can_be_larger_than_user_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.csv").write_text("a\n" + "1\n" * 200)
    write_checked(tmp_path / "t.json", {"ids": list(range(200))})
    monkeypatch.setattr("ensemble_kit.files.MAX_TEXT_BYTES", 100)
    assert len(read_csv(tmp_path / "t.csv")) == 200
    assert len(read_checked(tmp_path / "t.json", advice="-")["ids"]) == 200


# -- folders -------------------------------------------------------------------------------


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "vote"
    for text in ("old", "new"):
        with replaced_whole(target) as fresh:
            (fresh / f"{text}.txt").write_text(text)
            assert target.is_dir() == (text == "new")
    assert [p.name for p in target.iterdir()] == ["new.txt"]
    assert [p.name for p in target.parent.iterdir()] == ["vote"]


def test_the_old_folder_stays_if_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    target = tmp_path / "vote"
    target.mkdir()
    (target / "old.txt").write_text("old")
    with pytest.raises(ZeroDivisionError), replaced_whole(target) as fresh:
        (fresh / "new.txt").write_text(str(1 / 0))
    assert [p.name for p in target.iterdir()] == ["old.txt"]
    assert [p.name for p in tmp_path.iterdir()] == ["vote"]


def test_the_old_folder_is_put_back_if_the_new_one_cannot_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, rename = tmp_path / "vote", Path.rename
    target.mkdir()
    (target / "old.txt").write_text("old")

    def fail(self: Path, to: Path) -> Path:
        if (self / "new.txt").exists():
            raise OSError(28, "no space", str(self))
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(EnvironmentFault, match="/vote'"), replaced_whole(target) as fresh:
        (fresh / "new.txt").write_text("new")
    assert [p.name for p in target.iterdir()] == ["old.txt"]


def test_folders_of_killed_writers_are_removed(tmp_path: Path) -> None:
    from ensemble_kit.atomic_write import temporary_beside

    mine = temporary_beside(tmp_path / "run" / "vote")
    dead = mine.with_name(re.sub(r"-\d+-", f"-{2**22 + 7}-", mine.name))
    for folder in (mine, dead):
        folder.mkdir(parents=True)
        np.save(folder / "a.npy", np.zeros(2))
    sweep(tmp_path)
    assert [p.name for p in (tmp_path / "run").iterdir()] == [mine.name]
