"""`textllm chat` with lines that are piped in."""

import json
from pathlib import Path

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


def test_usage_counts_what_replies_that_broke_off_cost(run: Run, wiring: MemoryWiring) -> None:
    broken = ScriptedReply(text="I was about to", error=ProviderError("It fell over."), after=2)
    says = [ScriptedReply(text="first"), broken, ScriptedReply(text="second"), broken]
    used = run("chat", "--json", stdin="one\ntwo\nthree\nfour\n/usage\n", says=says).stdout.splitlines()[-1]
    charged = [entry for entry in wiring.store.entries.values() if entry.usage.output_tokens]
    assert json.loads(used) == {
        "replies": 2,
        "input": sum(entry.usage.input_tokens for entry in charged),
        "output": sum(entry.usage.output_tokens for entry in charged),
        "cost": pytest.approx(float(sum(entry.cost for entry in charged))),
        "estimated_cost": pytest.approx(float(sum(entry.cost for entry in charged if entry.estimated))),
    }
    assert len(charged) == 4
    later = run("chat", "--continue", "--json", stdin="five\n/usage\n", says=[broken]).stdout.splitlines()[-1]
    assert json.loads(later)["cost"] == pytest.approx(float(list(wiring.store.entries.values())[-1].cost))


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


def test_open_goes_on_with_an_earlier_conversation(run: Run, wiring: MemoryWiring) -> None:
    run("ask", "one")
    [key] = wiring.store.conversations
    earlier = key[-1] if isinstance(key, tuple) else key
    result = run("chat", stdin=f"two\n/open {earlier[:12]}\nthree\n/open\n/open conv_0123\n")
    assert result.stdout == "[0] You said: two\n[2] You said: three\n"
    assert "one: 1 turns so far." in result.stderr
    assert "Say which conversation" in result.stderr


def test_the_model_and_its_instructions_change_for_the_turns_that_follow(run: Run, wiring: MemoryWiring) -> None:
    stdin = "/model\n/system\n/prompt\n/system Be brief.\none\n/prompt document_analyst\ntwo\n/model gpt-4o\n"
    result = run("chat", stdin=stdin)
    first, second = wiring.asked
    assert first.instructions == "Be brief."
    assert second.instructions not in (None, "Be brief.")
    assert "model: as the settings say\nsystem: none of yours\nprompt: default\nsystem: Be brief.\n" in result.stderr
    assert "prompt: document_analyst\n" in result.stderr
    assert "model: gpt-4o\n" in result.stderr


def test_retry_sends_the_last_message_again(run: Run) -> None:
    result = run("chat", stdin="/retry\none\n/retry\n")
    assert result.stdout == "[0] You said: one\n[2] You said: one\n"
    assert "You have sent nothing yet." in result.stderr


def test_save_writes_the_conversation_and_nothing_over_another_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "tea.md"
    result = run("chat", stdin=f"/save {path}\none\n/save {path}\n/save {path}\n/save\n/save {tmp_path}/no/where\n")
    assert path.read_text() == "## You\n\none\n\n## Model\n\n[0] You said: one\n"
    assert "Nothing was said yet." in result.stderr
    assert f"2 messages are in {path}." in result.stderr
    assert "exists already; give another name" in result.stderr
    assert "Say which file: /save PATH" in result.stderr
    assert "cannot be written: No such file" in result.stderr


def test_no_editor_takes_the_lines_that_are_piped(run: Run) -> None:
    result = run("chat", stdin="/edit\none\n")
    assert "An editor needs a terminal" in result.stderr
    assert result.stdout == "[0] You said: one\n"


@pytest.mark.parametrize("line", ["exit", " Quit ", "/quit", "/exit"])
def test_leaving_has_several_names(run: Run, line: str) -> None:
    assert run("chat", stdin=f"{line}\none\n").stdout == ""


@pytest.mark.parametrize("line", ["/etc/hosts: what is it?", " /imgae cat.png", "exit now"])
def test_what_is_no_command_is_a_message(run: Run, line: str) -> None:
    assert run("chat", stdin=f"{line}\n").stdout == f"[0] You said: {line}\n"


@pytest.mark.parametrize(
    ("line", "guess"), [("/imgae cat.png", "did you mean /image?"), ("/xyz", "/help shows what there is.")]
)
def test_a_mistyped_command_is_no_message(run: Run, line: str, guess: str) -> None:
    result = run("chat", stdin=f"{line}\n")
    assert result.stdout == ""
    assert guess in result.stderr
