"""`textllm ask`, in this process."""

import json
from pathlib import Path

import pytest
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core.errors import ProviderError, ProviderUnavailableError, StorageUnavailableError
from textllm_core.records.tools import JsonSchemaFormat


def test_the_answer_is_printed_with_one_newline_at_its_end(run: Run) -> None:
    result = run("ask", "hi", says=[ScriptedReply(deltas=("Hel", "lo"))])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "Hello\n", "")


@pytest.mark.parametrize("options", [["--no-stream"], []])
def test_an_answer_that_ends_its_line_gets_no_further_newline(run: Run, options: list[str]) -> None:
    assert run("ask", "hi", *options, says=[ScriptedReply(deltas=("a\n", "b\n"))]).stdout == "a\nb\n"


def test_what_is_piped_in_comes_after_the_text(run: Run) -> None:
    assert run("ask", "explain", "--no-stream", stdin="line 1\nline 2\n").stdout == (
        "[0] You said: explain\n\nline 1\nline 2\n"
    )


def test_what_is_piped_in_is_enough(run: Run) -> None:
    assert run("ask", stdin="hello\n").stdout == "[0] You said: hello\n"
    assert run("ask", stdin="\ufeffhello\n").stdout == "[0] You said: hello\n"  # as PowerShell pipes


def test_json_is_the_wire_shape_of_chat_on_one_line(run: Run) -> None:
    result = run("ask", "hi", "--json", says=[ScriptedReply(deltas=("Hel", "lo\n"))])
    reply = json.loads(result.stdout)
    assert result.stdout.count("\n") == 1
    assert reply["text"] == "Hello\n"
    assert reply["user_id"] == "cli"
    assert reply["usage"].keys() == {"input", "output", "total", "cached", "reasoning"}
    assert result.stderr == ""


def test_the_latest_conversation_is_continued(run: Run) -> None:
    first = json.loads(run("ask", "one", "--json").stdout)
    second = json.loads(run("ask", "two", "--continue", "--json").stdout)
    assert second["conversation_id"] == first["conversation_id"]
    assert second["text"] == "[2] You said: two"
    assert second["message_number"] == 2


def test_a_conversation_is_continued_by_its_id(run: Run) -> None:
    first = json.loads(run("ask", "one", "--json").stdout)
    run("ask", "another")
    assert run("ask", "two", "-c", first["conversation_id"]).stdout == "[2] You said: two\n"


def test_with_nothing_to_continue_the_exit_code_is_3(run: Run) -> None:
    result = run("ask", "hi", "--continue", "--user", "ada")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == "error: There is no conversation of 'ada' to continue.\n"


def test_the_conversation_of_another_user_does_not_exist(run: Run) -> None:
    conversation = json.loads(run("ask", "one", "--json", "--user", "ada").stdout)["conversation_id"]
    assert run("ask", "two", "-c", conversation).exit_code == 3


def test_continue_and_conversation_exclude_each_other(run: Run) -> None:
    assert run("ask", "hi", "--continue", "-c", "conv_1").exit_code == 2


def test_control_sequences_of_the_model_are_not_printed(run: Run) -> None:
    says = [ScriptedReply(deltas=("a\x1b[3", "1mb\x1b", "]0;title\x07c\u202e"))]
    assert run("ask", "hi", says=says).stdout == "abc\n"
    assert run("ask", "hi", "--no-stream", says=says).stdout == "abc\n"


def test_raw_prints_them(run: Run) -> None:
    assert run("ask", "hi", "--raw", says=[ScriptedReply(deltas=("a\x1b[3", "1mb"))]).stdout == "a\x1b[31mb\n"


@pytest.mark.parametrize(
    ("text", "stdin", "why"),
    [
        (" ", "", "blank"),
        ("x" * 10_001, "", "10001 characters"),
        ("hi", b"\xff\xfe", "stdin: is not UTF-8 text, from byte 0 on"),
        ("hi", b"x" * 16_000_001, "stdin: holds more than 16 MB"),
        ("hi\udcff", "", "surrogate"),
    ],
)
def test_input_that_is_refused_has_exit_code_4(
    run: Run, wiring: MemoryWiring, monkeypatch: pytest.MonkeyPatch, text: str, stdin: str | bytes, why: str
) -> None:
    monkeypatch.setenv("TEXTLLM_MAX_INPUT_LENGTH", "10000")
    result = run("ask", text, stdin=stdin)
    assert result.exit_code == 4
    assert why in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert wiring.store.entries == {}


def test_an_unknown_prompt_is_refused_with_the_names_there_are(run: Run) -> None:
    result = run("ask", "hi", "-p", "pirate")
    assert result.exit_code == 4
    assert "default" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [(ProviderUnavailableError("It is overloaded."), 7), (StorageUnavailableError(), 8)],
)
def test_a_failure_has_its_exit_code_and_one_line(run: Run, error: Exception, code: int) -> None:
    assert isinstance(error, ProviderUnavailableError | StorageUnavailableError)
    result = run("ask", "hi", says=[ScriptedReply(error=error)])
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"error: {error}\n")


def test_a_reply_that_breaks_off_leaves_what_came_and_says_so(run: Run) -> None:
    reply = ScriptedReply(deltas=("par", "tial"), error=ProviderError("It broke off."), after=1)
    result = run("ask", "hi", says=[reply])
    assert (result.exit_code, result.stdout, result.stderr) == (7, "par\n", "error: It broke off.\n")


def test_a_problem_is_json_where_json_is_wanted(run: Run) -> None:
    error = ProviderUnavailableError("It is overloaded.", retry_after_s=7)
    result = run("ask", "hi", "--json", says=[ScriptedReply(error=error)])
    assert result.stdout == ""
    assert json.loads(result.stderr) == {
        "type": "/problems/provider_unavailable",
        "title": "Provider unavailable",
        "status": 503,
        "detail": "It is overloaded.",
        "code": "provider_unavailable",
        "retry_after_s": 7,
        "cost": 2.4e-05,  # of what was sent
        "estimated": True,
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ask", "hi", "--nonsense"), "No such option: --nonsense"),
        (("ask", "hi", "-c", "conv_1", "--continue"), "--continue"),
        (("usage", "--days", "many"), "--days"),
        (("nonsense",), "No such command"),
        (("ask", "-i", "none.png", "hi"), "none.png"),
    ],
)
def test_a_wrong_use_is_a_problem_where_json_is_wanted(run: Run, arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments, "--json")
    problem = json.loads(result.stderr)
    assert (result.exit_code, result.stdout, problem["code"], problem["status"]) == (2, "", "invalid_request", 400)
    assert words in problem["detail"]
    assert (plainly := run(*arguments)).exit_code == 2
    assert "Usage: " in plainly.stderr


def test_a_spent_budget_has_exit_code_6(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTLLM_COST_LIMIT_PER_SESSION", "0")
    assert run("ask", "hi").exit_code == 6


def test_warnings_go_to_stderr(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTLLM_WARN_AT_COST", "0")
    result = run("ask", "hi")
    assert result.stdout == "[0] You said: hi\n"
    assert result.stderr.startswith("warning: ")


def test_bad_settings_have_exit_code_2_and_are_all_listed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTLLM_MODEL", "two words")
    monkeypatch.setenv("TEXTLLM_AUTH", "maybe")
    result = run("ask", "hi")
    assert result.exit_code == 2
    assert "TEXTLLM_MODEL" in result.stderr
    assert "TEXTLLM_AUTH" in result.stderr


def test_an_unknown_option_has_exit_code_2(run: Run) -> None:
    assert run("ask", "hi", "--nope").exit_code == 2


def test_nothing_to_ask_is_a_usage_error(run: Run) -> None:
    result = run("ask", stdin="")
    assert (result.exit_code, "pipe it in" in result.stderr) == (2, True)


def test_an_answer_without_text_is_pointed_out(run: Run) -> None:
    result = run("ask", "hi", says=[ScriptedReply(deltas=())])
    assert (result.exit_code, result.stderr) == (0, "warning: the model answered with no text\n")


def test_a_long_text_is_no_matter_for_a_person_at_the_terminal(run: Run) -> None:
    diff = "+ a line\n" * 2_000  # 17 KB and more
    result = run("ask", "Write a commit message.", stdin=diff, says=[ScriptedReply(text="Add lines.")])
    assert (result.exit_code, result.stderr) == (0, "")


def test_no_rate_limit_stands_between_a_person_and_the_model(run: Run) -> None:
    assert [run("ask", str(number)).exit_code for number in range(24)] == [0] * 24


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("TEXTLLM_MAX_INPUT_LENGTH", "4", 4),
        ("TEXTLLM_COST_LIMIT_PER_SESSION", "0", 6),
    ],
)
def test_a_limit_that_the_settings_do_set_holds_and_its_refusal_names_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, code: int
) -> None:
    monkeypatch.setenv(variable, value)
    refusals = [result for result in (run("ask", "hello") for _ in range(2)) if result.exit_code]
    assert {result.exit_code for result in refusals} == {code}
    assert variable.removeprefix("TEXTLLM_").lower() in refusals[-1].stderr


@pytest.mark.parametrize("options", [[], ["--no-stream"], ["--json"], ["--stream-json"]])
def test_an_answer_that_was_cut_short_says_so_and_fails(run: Run, options: list[str]) -> None:
    says = [ScriptedReply(deltas=("half of",), finish_reason="length")]
    result = run("ask", "hi", *options, says=says)
    assert (result.exit_code, "half of" in result.stdout) == (7, True)
    assert result.stderr.startswith("warning: the answer was cut short after")
    assert "max_output_tokens" in result.stderr


def test_a_refusal_says_so_and_has_exit_code_4(run: Run) -> None:
    result = run("ask", "hi", says=[ScriptedReply(deltas=("I cannot.",), finish_reason="refusal")])
    assert (result.exit_code, result.stdout, result.stderr) == (
        4,
        "I cannot.\n",
        "warning: the model refused to answer\n",
    )


def test_a_first_turn_that_failed_is_nothing_to_continue(run: Run) -> None:
    good = json.loads(run("ask", "one", "--json").stdout)
    assert run("ask", "two", says=[ScriptedReply(deltas=(), content_filtered=True)]).exit_code == 4
    again = json.loads(run("ask", "three", "--continue", "--json").stdout)
    assert again["conversation_id"] == good["conversation_id"]


def test_the_options_reach_the_model(run: Run, wiring: MemoryWiring) -> None:
    options = ["-s", "Rhyme.", "--max-tokens", "99", "--temperature", "0.5"]
    assert run("ask", "hi", *options).exit_code == 0
    (asked,) = wiring.asked
    assert (asked.instructions, asked.max_output_tokens, asked.temperature) == ("Rhyme.", 99, 0.5)
    assert run("ask", "hi", "-s", "Rhyme.", "-p", "default").exit_code == 2


@pytest.mark.parametrize(
    ("answer", "block"),
    [
        ("Here:\n```python\nprint(1)\n```\nand\n```\nmore\n```\n", "print(1)\n"),
        ("~~~~\n```\nnot the end\n~~~~\n", "```\nnot the end\n"),
        ("- so\n  ```sh\n  ls\n   -l\n  ```\n", "ls\n -l\n"),
        ("```\nnever ends", "never ends\n"),
        ("```\na\x1b[31mb\n```", "ab\n"),
    ],
)
def test_the_first_fenced_block_is_printed_alone(run: Run, answer: str, block: str) -> None:
    result = run("ask", "hi", "-x", says=[ScriptedReply(text=answer)])
    assert (result.exit_code, result.stdout, result.stderr) == (0, block, "")


def test_an_answer_without_a_fenced_block_is_not_printed_in_its_place(run: Run) -> None:
    result = run("ask", "hi", "-x", says=[ScriptedReply(text="rm -rf `here`")])
    assert (result.exit_code, result.stdout) == (4, "")
    assert "conversations messages conv_" in result.stderr


def test_events_are_printed_as_they_come_a_line_each(run: Run) -> None:
    lines = run("ask", "hi", "--stream-json", says=[ScriptedReply(deltas=("Hel", "lo"))]).stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["reply.started", "reply.delta", "reply.delta", "reply.completed"]
    assert [event["data"]["text"] for event in events[1:]] == ["Hel", "lo", "Hello"]
    assert events[0]["data"]["response_id"] == events[-1]["data"]["response_id"]


def test_a_repeat_with_its_key_gets_the_first_answer(run: Run, wiring: MemoryWiring) -> None:
    first = run("ask", "hi", "--json", "--idempotency-key", "k1", says=[ScriptedReply(text="once")])
    again = run("ask", "hi", "--json", "--idempotency-key", "k1", says=[ScriptedReply(text="twice")])
    assert again.stdout == first.stdout
    assert len(wiring.store.entries) == 1
    assert run("ask", "other", "--idempotency-key", "k1").exit_code == 4
    for unset in ("", " ", "k\n1", "é", "k" * 256):
        refused = run("ask", "hi", "--idempotency-key", unset)
        assert (refused.exit_code, refused.stdout) == (4, "")
        assert "1 to 255 visible ASCII characters" in refused.stderr


def test_whoever_waits_is_told_why_and_gets_the_answer(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textllm_cli.speaking.pause", _no_pause)
    says = [ScriptedReply(error=ProviderUnavailableError("It is busy.", may_have_run=False, retry_after_s=7))]
    says.append(ScriptedReply(text="Now."))
    result = run("ask", "hi", "--wait", says=says)
    assert (result.exit_code, result.stdout) == (0, "Now.\n")
    assert result.stderr == "It is busy. Waiting for 7 s.\n"
    assert run("ask", "hi", "--wait", says=says[:1] * 9).exit_code == 7


async def _no_pause(_seconds: float) -> None:
    """The time is up already."""


def test_the_user_may_come_from_the_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEXTLLM_USER", "ada")
    assert json.loads(run("ask", "hi", "--json").stdout)["user_id"] == "ada"
    assert json.loads(run("ask", "hi", "--json", "--user", "bob").stdout)["user_id"] == "bob"
    assert json.loads(run("conversations", "list", "--json").stdout)["total"] == 1


def test_a_conversation_is_named_by_the_beginning_of_its_id(run: Run) -> None:
    first = json.loads(run("ask", "one", "--json").stdout)["conversation_id"]
    for named in (first[:12], first.removeprefix("conv_")[:7]):
        assert json.loads(run("ask", "more", "-c", named, "--json").stdout)["conversation_id"] == first
        assert json.loads(run("conversations", "show", named, "--json").stdout)["id"] == first
    assert run("conversations", "show", "conv_0000").exit_code == 3


def test_a_beginning_that_several_ids_have_is_refused_with_all_of_them(run: Run) -> None:
    ids = [json.loads(run("ask", "hi", "--json").stdout)["conversation_id"] for _ in range(17)]  # 16 first characters
    shared = next(each for each in ids if sum(other[5] == each[5] for other in ids) > 1)[5]
    result = run("conversations", "show", shared)
    assert (result.exit_code, f"conversations begin with {shared}" in result.stderr) == (4, True)


CAPITAL = '{"title": "The capital!", "type": "object", "properties": {"city": {"type": "string"}}}'


def test_an_answer_keeps_the_schema_of_a_file(run: Run, wiring: MemoryWiring, tmp_path: Path) -> None:
    (tmp_path / "capital.json").write_text(CAPITAL)
    run("ask", "The capital of France?", "--schema", str(tmp_path / "capital.json"))
    (asked,) = wiring.asked
    assert asked.response_format == JsonSchemaFormat(name="The_capital", schema=json.loads(CAPITAL))


@pytest.mark.parametrize(("content", "words"), [("{", "is not valid JSON"), ("[1]", "must hold a JSON object")])
def test_a_file_without_a_schema_is_a_wrong_use(run: Run, tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "no.json").write_text(content)
    result = run("ask", "hi", "--schema", str(tmp_path / "no.json"))
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
