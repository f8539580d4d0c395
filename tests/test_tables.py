"""Tables of users: formats of different programs are read, invalid tables are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensemble_kit.errors import DataError, UsageError
from ensemble_kit.tables import as_list, names_of, numbers, read_table, strip

ROWS = {"id": ["a", "b"], "label": ["x, y", "z"]}


def written(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    path = folder / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ('id,label\na,"x, y"\nb,z\n', "utf-8"),
        ('id,label\r\na,"x, y"\r\nb,z\r\n', "utf-8-sig"),
        ("id;label\na;x, y\nb;z\n", "utf-8"),
        ("id\tlabel\na\tx, y\nb\tz\n", "utf-16"),
        ("id|label\na|x, y\nb|z\n", "utf-8"),
        ('sep=,\nid,label\na,"x, y"\nb,z\n', "utf-8-sig"),
        ("sep=;\r\nid;label\r\na;x, y\r\nb;z\r\n", "utf-8"),
        ('id,label\na,"x, y",\nb,z,\n', "utf-8"),
        ('id,label,\na,"x, y",\nb,z,\n,,\n\n', "utf-8"),
        (',id,label\n0,a,"x, y"\n1,b,z\n', "utf-8"),
        (' id , label\n a,"x, y\u00a0"\n\u200bb,\tz\n', "utf-8"),
    ],
)
def test_tables_of_all_programs_are_read(tmp_path: Path, text: str, encoding: str) -> None:
    assert read_table(written(tmp_path, text, encoding)).frame.to_dict("list") == ROWS


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"PK\x03\x04...", "Excel"),
        (b"PAR1...", "Parquet"),
        ("id,label\na,b\u00e9nin\n".encode("cp1252"), "line 2"),
        ("id,label\na,b\n".encode("utf-16-le"), "zero bytes"),
        (b"id,label\na,x,y\n", "2"),
        (b'id,label\n"a,x\nb,y\n', "unexpected end"),
        (b"id,id\na,b\n", "'id'"),
        (b"", "empty"),
    ],
)
def test_an_unreadable_table_is_refused_with_the_reason(
    tmp_path: Path, content: bytes, named: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert named in str(caught.value)
    assert "table.csv" in str(caught.value)


def test_removed_white_space_is_a_note(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "id,group\na,P1\nb,P1 \nc,P2\u200b\n"))
    assert table.frame["group"].tolist() == ["P1", "P1", "P2"]
    assert len(table.notes) == 1
    assert "'group'" in table.notes[0]
    assert read_table(written(tmp_path, "id, group\na, P1\nb, P2\n")).notes == ()


def test_cells_that_look_like_numbers_or_nothing_stay_text(tmp_path: Path) -> None:
    frame = read_table(written(tmp_path, "id,label\n001,NA\n1.0,nan\n,x\n")).frame
    assert frame["id"].tolist() == ["001", "1.0", ""]
    assert frame["label"].tolist() == ["NA", "nan", "x"]


def test_a_decimal_comma_is_read_if_commas_do_not_separate_cells(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "id;x;y\na;0,25;.5\nb;1;2,5e-1\n"))
    assert numbers(table, ["x", "y"]).tolist() == [[0.25, 0.5], [1.0, 0.25]]
    quoted = read_table(written(tmp_path, 'id,x\na,1\n\nb,"0,25"\n'))
    with pytest.raises(DataError, match="line 4"):
        numbers(quoted, ["x"])


def test_names_with_commas_are_quoted() -> None:
    names = ("benign", "in situ, DCIS", 'so-called "5"')
    assert names_of(as_list(names)) == names
    assert names_of(" a , b,,c ") == ("a", "b", "c")
    with pytest.raises(UsageError):
        names_of('a,"b')


def test_only_outer_white_space_is_stripped() -> None:
    assert strip("\ufeff\t P 1\u00a0\r\n") == "P 1"
