"""`textllm chat` as a person sees it."""

import re
import stat
import time
from pathlib import Path

import pytest
from tests.cli.emulated import UP, Emulated, emulated
from tests.cli.terminal import CTRL_C, CTRL_D, World

MARKDOWN = [
    "# Tea\n\nIt is **hot** and",
    " `green`.\n\n",
    "| leaf | price |\n|---|---|\n",
    "| oolong | 4 |\n\n```python\nprint('tea')\n```\n\n- one\n- two\n",
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def environment(world: World, tmp_path: Path, *replies: list[str], gated: bool = False, **more: str) -> dict[str, str]:
    return world.environment(list(replies), gated=gated, TEXTLLM_DATA_DIR=str(tmp_path / "data"), **more)


def leave(screen: Emulated) -> int:
    """Leave as soon as there is a prompt to leave from."""
    screen.wait_for_prompt()
    screen.press(CTRL_D)
    return screen.end()


@pytest.mark.parametrize("columns", [80, 40])
def test_a_reply_is_rendered_and_followed_by_what_it_cost(world: World, tmp_path: Path, columns: int) -> None:
    with emulated(["chat"], environment(world, tmp_path, MARKDOWN), columns=columns, lines=40) as screen:
        screen.wait_for_prompt()
        screen.press(b"hello\r")
        screen.wait_for("tokens in")
        screen.wait_for_prompt()
        lines = [line.strip() for line in screen.text.splitlines() if line.strip()]
        assert leave(screen) == 0
    begin = lines.index("> hello") + 1
    assert lines[begin : begin + 9] == [
        "Tea",
        "It is hot and green.",
        lines[begin + 2],  # the head of the table, and its rule
        lines[begin + 3],
        "oolong  4",
        "print('tea')",
        "• one",
        "• two",
        lines[begin + 8],
    ]
    assert lines[begin + 2].split() == ["leaf", "price"]
    assert re.match(r"13 tokens in, \d+ out · \$", lines[begin + 8])


@pytest.mark.parametrize(("terminal", "arguments"), [("", []), ("xterm", ["--raw"])])
def test_it_is_printed_as_it_is_where_nothing_can_be_rendered(
    world: World, tmp_path: Path, terminal: str, arguments: list[str]
) -> None:
    told = environment(world, tmp_path, ["It is **hot**."], TERM=terminal)
    with emulated(["chat", *arguments], told) as screen:
        screen.wait_for_prompt()
        screen.press(b"hello\r" if terminal else b"hello\n")
        screen.wait_for("It is **hot**.")
        screen.wait_for("tokens in")
        assert leave(screen) == 0


def test_a_long_reply_is_all_there_and_nothing_is_there_twice(world: World, tmp_path: Path) -> None:
    pieces = [f"{number}. line\n" for number in range(1, 101)]
    with emulated(["chat"], environment(world, tmp_path, pieces), lines=10) as screen:
        screen.wait_for_prompt()
        screen.press(b"hello\r")
        screen.wait_for("tokens in")
        assert leave(screen) == 0
    printed = screen.seen[screen.seen.rindex("  1 ") :]  # what moved before was erased
    assert [int(number) for number in re.findall(r"(\d+) (?:\x1b\[[\d;]*m)*line", printed)] == list(range(1, 101))


def test_ctrl_c_has_the_prompt_back_at_once_and_the_books_are_settled_behind(world: World, tmp_path: Path) -> None:
    told = environment(world, tmp_path, ["partial", "unaccountable"], ["second"], gated=True)
    with emulated(["chat"], told) as screen:
        screen.wait_for_prompt()
        screen.press(b"one\r")
        screen.wait_for("partial")
        screen.press(b"two\rthree")  # is sent by nobody
        screen.press(CTRL_C)
        screen.wait_for_prompt()
        assert "interrupted; what was written is kept" in screen.text
        world.open_gate()
        screen.press(b"four")
        screen.wait_for("> four")  # or it would be held back, should the prompt not be up yet
        screen.press(b"\r")
        screen.wait_for("second")
        assert "(an estimate)" in screen.text
        screen.press(b"/history\r")
        screen.wait_for("model (cut short): partial")
        screen.press(b"/usage\r")
        screen.wait_for("replies: 2")
        screen.press(b"/quit\r")
        assert screen.end() == 0
    assert "unaccountable" not in screen.seen
    assert [entry["status"] for entry in world.ledger()] == ["cancelled", "completed"]
    assert len({entry["conversation_id"] for entry in world.ledger()}) == 1


def test_what_is_typed_while_the_model_writes_waits_at_the_prompt(world: World, tmp_path: Path) -> None:
    with emulated(["chat"], environment(world, tmp_path, ["first", " reply"], gated=True)) as screen:
        screen.wait_for_prompt()
        screen.press(b"one\r")
        screen.wait_for("first")
        screen.press(b"two\rthree")
        time.sleep(0.3)  # until it has read them, which it does not show
        world.open_gate()
        screen.wait_for("> two\n… three")
        screen.press(CTRL_C)
        assert leave(screen) == 0
    assert len(world.ledger()) == 1


def test_a_paste_is_one_message(world: World, tmp_path: Path) -> None:
    with emulated(["chat"], environment(world, tmp_path)) as screen:
        screen.wait_for_prompt()
        screen.paste("\n".join(f"line {number}" for number in range(200)))
        screen.wait_for("line 199")
        screen.press(b"\r")
        screen.wait_for("tokens in")
        assert leave(screen) == 0
    assert len(world.ledger()) == 1
    assert world.ledger()[0]["usage"]["input_tokens"] > 200


def test_a_mistyped_command_is_sent_to_nobody_and_exit_leaves(world: World, tmp_path: Path) -> None:
    with emulated(["chat"], environment(world, tmp_path)) as screen:
        screen.wait_for_prompt()
        screen.press(b"/imgae cat.png\r")
        screen.wait_for("There is no /imgae; did you mean /image?")
        screen.press(b"exit\r")
        assert screen.end() == 0
    assert world.ledger() == []


def test_what_was_sent_is_remembered_from_one_start_to_the_next(world: World, tmp_path: Path) -> None:
    told = environment(world, tmp_path)
    with emulated(["chat"], told) as screen:
        screen.wait_for_prompt()
        screen.press(b"the first question\r")
        screen.wait_for("tokens in")
        assert leave(screen) == 0
    assert stat.S_IMODE((tmp_path / "data" / "chat_history").stat().st_mode) == 0o600
    with emulated(["chat"], told) as screen:
        screen.wait_for_prompt()
        screen.press(UP)
        screen.wait_for("> the first question")
        screen.press(CTRL_C)
        assert leave(screen) == 0


def test_a_window_may_change_its_size_at_any_time(world: World, tmp_path: Path) -> None:
    with emulated(["chat"], environment(world, tmp_path, ["first\n\n", "then 漢字 and more"], gated=True)) as screen:
        screen.wait_for_prompt()
        screen.press("漢字のとても長い質問 that is longer than thirty columns".encode())
        screen.wait_for("thirty columns")
        screen.resize(30, 24)
        screen.wait_for("columns")
        screen.press(b"\r")
        screen.wait_for("first")
        screen.resize(60, 20)
        world.open_gate()
        screen.wait_for("then 漢")
        screen.wait_for("tokens in")
        assert leave(screen) == 0


def test_commands_are_completed(world: World, tmp_path: Path) -> None:
    (tmp_path / "tea.txt").write_text("Tea.")
    with emulated(["chat"], environment(world, tmp_path)) as screen:
        screen.wait_for_prompt()
        screen.press(b"/hist\t")
        screen.wait_for("> /history")
        screen.press(CTRL_C)
        screen.press(f"/file {tmp_path}/te\t".encode())
        screen.wait_for("tea.txt")
        screen.press(CTRL_C)
        assert leave(screen) == 0


def test_ctrl_c_throws_away_what_was_typed_and_twice_without_any_leaves(world: World, tmp_path: Path) -> None:
    with emulated(["chat"], environment(world, tmp_path)) as screen:
        screen.wait_for_prompt()
        screen.press(b"never mind")
        screen.wait_for("> never mind")
        screen.press(CTRL_C)
        screen.wait_for_prompt()
        assert "once more" not in screen.text
        screen.press(CTRL_C)
        screen.wait_for("Ctrl-C once more leaves")
        screen.press(CTRL_C)
        screen.wait_for("leaving")
        assert screen.end() == 0
    assert "Traceback" not in screen.seen


def test_a_model_cannot_drive_the_terminal(world: World, tmp_path: Path) -> None:
    payload = ["a\x1b", "]0;title\x07b\x1b[2J\x9b31m", "c `\x1b[31m` \x1b[8mhidden"]
    with emulated(["chat"], environment(world, tmp_path, payload)) as screen:
        screen.wait_for_prompt()
        screen.press(b"hello\r")
        screen.wait_for("abc")
        screen.wait_for("hidden")
        assert leave(screen) == 0
    assert not re.search(r"\x1b\]0;|\x1b\[2J|\x9b|\x1b\[8m|\x1b\[31m", screen.seen)


def test_a_message_may_be_written_in_an_editor(world: World, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\n[ -t 0 ] && printf 'written\\nthere\\n' > \"$1\"\n")
    editor.chmod(0o755)
    told = environment(world, tmp_path, ["It is hot."], VISUAL="", EDITOR=str(editor))
    with emulated(["chat"], told, columns=300) as screen:  # no path breaks its lines
        screen.wait_for_prompt()
        screen.press(b"/edit\r")
        screen.wait_for("there")  # what was written waits to be sent
        screen.press(b"\r")
        screen.wait_for("It is hot.")
        editor.unlink()
        screen.wait_for_prompt()
        screen.press(b"/edit\r")
        screen.wait_for("Set EDITOR")
        assert leave(screen) == 0
