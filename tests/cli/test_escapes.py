"""Nothing that a model writes is obeyed by a terminal, wherever it is shown."""

import io
import json
import sys
from pathlib import Path

import pytest
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run
from tests.cli.escapes import OBEYED, payloads, told
from tests.cli.terminal import World, terminal
from typer.testing import Result

from textllm_adapters.memory.llm import ScriptedReply
from textllm_cli.chat.markdown import MarkdownPage
from textllm_core.errors import ProviderError

LINES = [f"line {number}" for number in range(500)]


def harmless(result: Result) -> Result:
    for shown in (result.stdout, result.stderr):
        assert not OBEYED.search(shown), repr(OBEYED.search(shown))
    return result


def says() -> list[ScriptedReply]:
    return [ScriptedReply(deltas=tuple(told()))]


def test_the_payloads_are_what_they_should_be() -> None:
    assert len(set(payloads())) > 450
    assert all(OBEYED.search(payload) or "&" in payload for payload in payloads())


@pytest.mark.parametrize("option", ["--no-stream", "--json", "--stream-json", "--wait"])
def test_an_answer_has_all_its_lines_and_nothing_else(run: Run, option: str) -> None:
    shown = harmless(run("ask", "hi", option, says=says()))
    if "json" not in option:
        assert [line for line in shown.stdout.splitlines() if line in LINES] == LINES


def test_a_fenced_block_and_a_chat_are_harmless(run: Run) -> None:
    fenced = ScriptedReply(text="```\n" + "".join(told()) + "\n```")
    harmless(run("ask", "hi", "-x", says=[fenced]))
    talked = harmless(run("chat", stdin="hi\n/history\n", says=says()))
    assert [line for line in talked.stdout.splitlines() if line in LINES] == LINES * 2


def test_what_was_said_stays_harmless_wherever_it_is_looked_at(run: Run, wiring: MemoryWiring, tmp_path: Path) -> None:
    asked = run("ask", "".join(payloads(40)), "--json", says=says())
    conversation = json.loads(asked.stdout)["conversation_id"]
    run("conversations", "tag", conversation, *("x\x1b[31m", "y\x9b31m"))
    run("conversations", "summarize", conversation, says=says())
    for command in (
        ("list",),
        ("show", conversation),
        ("search", "line"),
        ("messages", conversation),
        ("export", conversation),
        ("rename", conversation, payloads(1)[0] + "title"),
    ):
        harmless(run("conversations", *command))
        harmless(run("conversations", *command, *(() if command[0] == "export" else ("--json",))))
    harmless(run("conversations", "summarize", conversation, says=says()))
    (tmp_path / "in.jsonl").write_text('"hi"\n')
    harmless(run("batch", "in.jsonl", says=says()))
    harmless(run("usage", "--by", "conversation"))
    harmless(run("usage", "--by", "conversation", "--csv"))


def test_what_a_provider_says_of_a_failure_is_harmless(run: Run) -> None:
    text = "\n".join(payloads())
    broken = ScriptedReply(deltas=("a", "b"), error=ProviderError(f"It said: {text}"), after=1)
    for option in ((), ("--json",), ("--stream-json",)):
        assert harmless(run("ask", "hi", *option, says=[broken])).exit_code == 7


def test_a_rendered_answer_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", shown := io.StringIO())
    for payload in payloads():
        page = MarkdownPage()
        page.begin()
        page.delta(payload)
        page.end()
    assert not OBEYED.search(shown.getvalue()), repr(OBEYED.search(shown.getvalue()))


def test_on_a_real_terminal_no_escape_arrives(tmp_path: Path) -> None:
    environment = World(tmp_path).environment([told()], gated=False, NO_COLOR="1")
    with terminal(["ask", "hi"], environment) as screen:
        assert screen.end() == 0
    seen = screen.seen.replace("\r\n", "\n")
    assert not OBEYED.search(seen), repr(OBEYED.search(seen))
    assert [line for line in seen.splitlines() if line in LINES] == LINES
