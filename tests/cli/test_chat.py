"""`textllm chat` with lines that are piped in."""

import json

import pytest
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core.errors import ProviderError


def test_each_line_is_a_turn_of_one_conversation(run: Run, wiring: MemoryWiring) -> None:
    result = run("chat", stdin="one\n\ntwo\n")
    assert (result.exit_code, result.stdout) == (0, "[0] You said: one\n[2] You said: two\n")
    assert len(wiring.store.conversations) == 1


def test_a_backslash_at_its_end_goes_on_in_the_next_line(run: Run) -> None:
    assert run("chat", stdin="one\\\ntwo\n").stdout == "[0] You said: one\ntwo\n"


def test_new_starts_another_conversation(run: Run, wiring: MemoryWiring) -> None:
    assert run("chat", stdin="one\n/new\ntwo\n").stdout == "[0] You said: one\n[0] You said: two\n"
    assert len(wiring.store.conversations) == 2


def test_quit_leaves(run: Run) -> None:
    assert run("chat", stdin="/quit\none\n").stdout == ""


def test_history_shows_what_was_said(run: Run) -> None:
    result = run("chat", stdin="/history\none\n/history\n", says=[ScriptedReply(text="first")])
    assert result.stdout == "first\nyou: one\nmodel: first\n"
    assert "Nothing was said yet." in result.stderr


def test_usage_counts_this_conversation(run: Run) -> None:
    says = [ScriptedReply(text="first", usage_stated=False)]
    result = run("chat", "--json", stdin="one\ntwo\n/usage\n/new\n/usage\n", says=says)
    first, second, used, unused = map(json.loads, result.stdout.splitlines())
    assert used["replies"] == 2
    assert used["input"] == first["usage"]["input"] + second["usage"]["input"]
    assert used["output"] == first["usage"]["output"] + second["usage"]["output"]
    assert used["cost"] == pytest.approx(first["cost"] + second["cost"])
    assert used["estimated_cost"] == first["cost"]
    assert unused == {"replies": 0, "input": 0, "output": 0, "cost": 0, "estimated_cost": 0}
    assert "of it an estimate" in run("chat", stdin="one\n/usage\n", says=says).stdout


def test_a_turn_that_fails_is_reported_and_the_chat_goes_on(run: Run) -> None:
    says = [ScriptedReply(error=ProviderError("It fell over.")), ScriptedReply(text="better")]
    result = run("chat", stdin="one\ntwo\n", says=says)
    assert (result.exit_code, result.stdout) == (0, "better\n")
    assert "error: It fell over.\n" in result.stderr


def test_a_line_that_is_no_text_is_refused_and_the_chat_goes_on(run: Run) -> None:
    result = run("chat", stdin=b"\xff\ntwo\n")
    assert (result.exit_code, result.stdout) == (0, "[0] You said: two\n")
    assert "error: message: " in result.stderr


def test_an_unknown_command_is_not_sent_to_the_model(run: Run) -> None:
    result = run("chat", stdin="/nope\n/help\n")
    assert result.stdout == ""
    assert "There is no /nope" in result.stderr
    assert "/usage" in result.stderr


def test_the_latest_conversation_is_continued(run: Run) -> None:
    run("ask", "one")
    assert run("chat", "--continue", stdin="two\n").stdout == "[2] You said: two\n"


def test_with_nothing_to_continue_the_exit_code_is_3(run: Run) -> None:
    assert run("chat", "--continue", stdin="two\n").exit_code == 3
