"""`textllm ask`, in this process."""

import json

import pytest
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core.errors import ProviderError, ProviderUnavailableError, StorageUnavailableError


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
    run: Run, wiring: MemoryWiring, text: str, stdin: str | bytes, why: str
) -> None:
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
