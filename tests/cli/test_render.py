"""What a model writes cannot drive the terminal, however it is cut into pieces."""

import json
import os
import pty
import subprocess
import sys
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textllm_cli.render import PlainText, Screen, comma_separated, outline, plain, reporting, table

HOSTILE = st.text(st.sampled_from("\x1b[]0123;mPX^_\\\x07\x9b\x9c\x9d\x00\r\n\t\u202e\u2066a é"), max_size=30)


def pieced(pieces: list[str]) -> str:
    take = PlainText()
    return "".join(take(piece) for piece in pieces)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("\x1b]never ended\nnext line", "\nnext line"),
        ("\x1bcreset", "reset"),
        ("a\x1b\x1b[2Jb", "ab"),
        ("bell\x07 null\x00 del\x7f nel\x85", "bell null del nel"),
        ("over\rwritten\b\b", "overwritten"),
        ("abc\u202edef\u2066ghi\u2069", "abcdefghi"),
        ("tab\tand\nnewline, ümlaut, 漢字, 👩‍💻", "tab\tand\nnewline, ümlaut, 漢字, 👩‍💻"),
    ],
)
def test_control_sequences_are_taken_out_and_text_stays(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert pieced([text]) == shown
    assert pieced(list(text)) == shown


@given(HOSTILE, st.lists(st.integers(0, 30)))
def test_no_cut_into_pieces_lets_a_sequence_survive(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    shown = pieced([text[start:end] for start, end in pairwise(edges)])
    assert not set(shown) - set("[]0123;mPX^_\\\n\ta é")
    assert plain(text).startswith(shown)


def test_what_looks_like_a_sequence_for_too_long_is_not_held_back_for_ever() -> None:
    take = PlainText()
    assert "x" in "".join(take("x" * 1000) for _ in range(10)) + take("\x1b]" + "y" * 5000) + take("\nx")


def test_json_on_a_terminal_is_harmless_and_means_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    with reporting(as_json=True) as screen:
        screen.record({"text": "\x1b[31m \x9b \u202e é"}, "")
    line = capsys.readouterr().out
    assert line.isprintable() is False  # for its newline alone
    assert line[:-1].isprintable()
    assert json.loads(line) == {"text": "\x1b[31m \x9b \u202e é"}


def test_nested_settings_are_shown_by_their_path() -> None:
    assert outline({"a": "x", "b": {"c": 1, "d": {"e": None}}, "f": {}}) == "a: x\nb.c: 1\nb.d.e: null\nf: {}"


@pytest.mark.parametrize(("encoding", "block"), [("utf-8", "█"), ("ascii", "#")])
def test_bars_on_a_terminal_share_a_scale(monkeypatch: pytest.MonkeyPatch, encoding: str, block: str) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding=encoding) as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        bars = Screen().bars([Decimal(10), Decimal(5), Decimal("0.0001"), Decimal(0)])
        nothing = Screen().bars([Decimal(0)])
    os.close(master)
    assert [bar.rstrip() for bar in bars] == [block * 24, block * 12, block, ""]
    assert len({len(bar) for bar in bars}) == 1
    assert nothing == [""]


def test_where_stdout_is_no_terminal_there_are_no_bars() -> None:
    assert Screen().bars([Decimal(1), Decimal(2)]) == ["", ""]


def test_a_table_is_aligned_whatever_its_cells_hold() -> None:
    text = table(("name", "n"), [("a\n\x1b[31mb", "1,000"), ("c", "2")], ["note"])
    assert text == "name      n\na b   1,000  note\nc         2"


def test_what_a_cell_holds_cannot_end_it_in_csv() -> None:
    assert comma_separated(("name", "n"), [('a,"b"\nc', "1")]) == 'name,n\n"a,""b""\nc",1'


def test_progress_that_stays_where_it_is_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    for done in (0, 0, 50, 100, 100, 100):
        screen.model_progress(done * 1_000_000, 100_000_000)
    assert capsys.readouterr().err == "fetching the model: 0 % of 100 MB\nfetching the model: 100 % of 100 MB\n"


def test_progress_on_a_terminal_moves_only_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        screen = Screen()
        for done in (0, 0, 50, 50, 100, 100):
            screen.model_progress(done * 1_000_000, 100_000_000)
        seen = ""
        while not seen.endswith("\n"):  # a terminal hands on what was written when it likes
            seen += os.read(master, 1000).decode()
    os.close(master)
    assert [seen.count(f" {percent} %") for percent in (0, 50, 100)] == [1, 1, 1]
    assert seen.count("\n") == 1


def test_json_is_utf_8_whatever_the_terminal_speaks() -> None:
    program = (
        "from textllm_cli.render import reporting\n"
        "from textllm_core.errors import InvalidRequestError\n"
        "with reporting(as_json=True) as screen:\n"
        "    screen.json({'text': '漢字 ü'})\n"
        "    screen.problem(InvalidRequestError('漢字 ü'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "cp1252"},
    )
    assert result.stdout == '{"text":"漢字 ü"}\n'.encode()
    assert json.loads(result.stderr.decode())["detail"] == "漢字 ü"
