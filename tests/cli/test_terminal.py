"""What only real processes show: streaming, colours, Ctrl-C, and readers that leave."""

import re
import signal
import subprocess
from pathlib import Path

import pytest
from tests.cli.emulated import emulated
from tests.cli.terminal import CTRL_C, PATIENCE_S, PROGRAM, World, terminal

DIM = "\x1b[2m"


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_text_is_printed_as_it_comes(world: World) -> None:
    environment = world.environment([["first", " second"]], gated=True)
    with terminal(["ask", "hi"], environment) as screen:
        screen.read_until("first")
        assert "second" not in screen.seen
        world.open_gate()
        assert screen.end() == 0
        assert "first second\r\n" in screen.seen


def test_text_is_piped_as_it_comes(world: World) -> None:
    environment = world.environment([["first\n", "second\n"]], gated=True)
    command = [*PROGRAM, "ask", "hi"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"first\n"
        world.open_gate()
        assert program.stdout.read() == b"second\n"


def test_on_a_terminal_a_dim_line_says_what_it_cost(world: World) -> None:
    with terminal(["ask", "hi"], world.environment([["hello"]], gated=False)) as screen:
        assert screen.end() == 0
    assert f"hello\r\n{DIM}" in screen.seen
    assert "tokens in" in screen.seen
    assert "$0.0000" in screen.seen
    assert "conv_" in screen.seen


def test_on_a_terminal_a_cost_that_is_an_estimate_says_so(world: World) -> None:
    with terminal(["ask", "hi"], world.environment([["unaccountable"]], gated=False)) as screen:
        assert screen.end() == 0
    assert " · about $0.0000" in screen.seen
    assert " (an estimate) · conv_" in screen.seen


@pytest.mark.parametrize("variable", [{"NO_COLOR": "1"}, {"TERM": ""}])
def test_no_colour_where_none_is_wanted(world: World, variable: dict[str, str]) -> None:
    with terminal(["ask", "hi"], world.environment([["hello"]], gated=False, **variable)) as screen:
        assert screen.end() == 0
    assert "tokens in" in screen.seen
    assert "\x1b" not in screen.seen


def test_with_stdout_in_a_file_the_terminal_shows_no_colour(world: World, tmp_path: Path) -> None:
    environment = world.environment([["hello"]], gated=False)
    with (tmp_path / "out").open("wb") as out, terminal(["ask", "hi"], environment, stdout=out) as screen:
        assert screen.end() == 0
    assert (tmp_path / "out").read_bytes() == b"hello\n"
    assert screen.seen == ""


def test_nothing_to_ask_at_a_terminal_is_a_usage_error(world: World) -> None:
    with terminal(["ask"], world.environment([], gated=False)) as screen:
        assert screen.end() == 2
    assert "say what to ask" in screen.seen


def test_ctrl_c_keeps_the_partial_text_and_the_books(world: World) -> None:
    environment = world.environment([["partial", " and the rest"]], gated=True)
    with terminal(["ask", "hi"], environment) as screen:
        screen.read_until("partial")
        screen.press(CTRL_C)
        screen.read_until("interrupted; settling what it cost")
        assert screen.end() == 130
    assert "and the rest" not in screen.seen
    assert "Traceback" not in screen.seen
    [entry] = world.ledger()
    assert (entry["status"], entry["estimated"]) == ("cancelled", False)


def test_a_second_ctrl_c_quits_at_once(world: World) -> None:
    settling = world.environment([["partial", "unaccountable"]], gated=True, TEXTLLM_TEST_UNTOLD_S="60")
    with terminal(["ask", "hi"], settling) as screen:
        screen.read_until("partial")
        screen.press(CTRL_C)
        screen.read_until("settling what it cost")
        screen.press(CTRL_C)
        assert screen.end() == -signal.SIGINT  # which a shell calls 130
    assert "Traceback" not in screen.seen


def test_a_reader_that_leaves_ends_it_quietly_and_the_reply_is_settled(world: World) -> None:
    environment = world.environment([["first\n", *["more\n"] * 100]], gated=True)
    with subprocess.Popen(
        [*PROGRAM, "ask", "hi"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline() == b"first\n"
        program.stdout.close()
        world.open_gate()
        assert program.stderr.read() == b""
        assert program.wait(PATIENCE_S) == 0
    [entry] = world.ledger()
    assert (entry["status"], entry["estimated"]) == ("cancelled", False)


def test_head_gets_its_line(world: World) -> None:
    environment = world.environment([[f"line {number}\n" for number in range(5000)]], gated=False)
    command = f'{" ".join(PROGRAM)} ask hi </dev/null | head -1; echo "${{PIPESTATUS[0]}}"'
    result = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("line 0\n0\n", "")


def test_a_full_disk_under_stdout_is_one_line_and_exit_code_1(world: World) -> None:
    environment = world.environment([["hello"]], gated=False)
    command = [*PROGRAM, "ask", "hi"]
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert result.returncode == 1
    assert result.stderr.startswith(b"error: ")
    assert b"Traceback" not in result.stderr


def test_progress_moves_on_a_terminal(world: World) -> None:
    with terminal(["model", "fetch"], world.environment([], gated=False)) as screen:
        assert screen.end() == 0
    assert "\rfetching the model: 50 % of 100 MB\rfetching" in screen.seen
    assert screen.seen.count("\n") == 2


def test_a_batch_shows_how_far_it_is_as_a_bar_in_one_line(world: World, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('"one"\n"two"\n"three"\n')
    arguments = ["batch", "in.jsonl", "-o", "out.jsonl", "--concurrency", "1"]
    folder = world.environment([], gated=False)
    with emulated(arguments, folder, columns=40, cwd=tmp_path) as screen:
        assert screen.end() == 0
    bar, words, *_ = screen.text.splitlines()
    assert re.fullmatch(r"█+ 3/3 answered  \$0\.0\d+", bar)
    assert len(bar) < 40
    assert words.startswith("3 of 3 lines answered, 0 failed")
    assert re.search(r"\r█+ +1/3 answered", screen.seen)
