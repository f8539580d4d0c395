"""Printed sentences and tables: wrapped on a terminal only."""

from __future__ import annotations

import pytest

from ensemble_kit.cli.output import tables, text

SENTENCE = "Use the best single member, densenet121: no ensemble is shown to be better than that."
ROWS = [("method", "cross-fitted", "test"), ("vote", "0.750 [0.600, 0.900]", "0.881"), ("mean", "0.681", "0.977")]  # fmt: skip


def test_a_sentence_is_wrapped_between_words_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text.print_text(SENTENCE)
    assert capsys.readouterr().out == SENTENCE + "\n"
    monkeypatch.setattr(text, "terminal_width", lambda stream: 40)
    text.print_text(SENTENCE)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 40
    assert " ".join(lines) == SENTENCE
    text.print_command("Next", SENTENCE)
    assert capsys.readouterr().out == f"Next: {SENTENCE}\n"


@pytest.mark.parametrize("width", [None, 100, 30, 5])
def test_every_column_is_printed_once_and_fits_the_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int | None
) -> None:
    monkeypatch.setattr(tables, "terminal_width", lambda stream: width)
    tables.print_table(ROWS)
    printed = capsys.readouterr().out
    for cell in ("cross-fitted", "test", "0.750 [0.600, 0.900]", "0.8", "0.681", "0.977"):
        assert printed.count(cell) == 1
    blocks = list(tables.blocks(ROWS, width))
    assert [block[0] for block in blocks] == [0] * len(blocks)
    assert sorted(column for block in blocks for column in block[1:]) == [1, 2]
    if width in (100, 30):
        assert max(map(len, printed.splitlines())) <= width
