"""`textllm conversations import`: what `export` wrote is taken in again, whole and once."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run

from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.store import MemoryStore
from textllm_core.errors import RateLimitedError

Lines = list[dict[str, Any]]


def exported(run: Run, *, user: str = "ada") -> Lines:
    return [json.loads(line) for line in run("conversations", "export", "--all", "--user", user).stdout.splitlines()]


def written(path: Path, lines: Lines) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture
def lines(run: Run, wiring: MemoryWiring) -> Lines:
    """Two conversations of Ada's, exported elsewhere; nothing of them is here."""
    first = run("ask", "Name three rivers", "--user", "ada", "--json", says=[ScriptedReply(text="Rhine.")])
    run("ask", "More?", "-c", json.loads(first.stdout)["conversation_id"], "--user", "ada")
    run("ask", "Lakes?\x00\u202e", "--user", "ada")
    lines = exported(run)
    wiring.store = MemoryStore()
    return lines


def test_a_round_trip_has_all_that_was_said_and_costs_nothing(
    run: Run, wiring: MemoryWiring, lines: Lines, tmp_path: Path
) -> None:
    result = run("conversations", "import", written(tmp_path / "in.jsonl", lines))
    ids = [line["id"] for line in lines]
    assert (result.exit_code, result.stdout) == (0, "".join(f"{each} is imported\n" for each in ids))
    assert result.stderr == "2 conversations imported, 0 were there already\n"
    sums = {"total_cost": 0, "total_tokens_input": 0, "total_tokens_output": 0, "session_id": None}
    assert exported(run) == [line | sums for line in lines]
    assert wiring.store.entries == {}
    found = run("conversations", "search", "rhine", "--user", "ada", "--json")
    assert [each["id"] for each in json.loads(found.stdout)["data"]] == ids[:1]


def test_an_imported_conversation_goes_on(run: Run, wiring: MemoryWiring, lines: Lines, tmp_path: Path) -> None:
    run("conversations", "import", written(tmp_path / "in.jsonl", lines))
    went_on = run("ask", "The longest?", "-c", lines[0]["id"], "--user", "ada", "--json")
    assert json.loads(went_on.stdout)["message_number"] == 3
    said = [message["text"] for message in lines[0]["messages"]]
    assert [message.text for message in wiring.asked[0].messages] == [*said, "The longest?"]
    assert run("audit").exit_code == 0


def test_a_file_may_begin_and_end_as_windows_writes_it(run: Run, lines: Lines, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(line).encode() for line in lines) + b"\r\n\x1a")
    result = run("conversations", "import", str(path))
    assert (result.exit_code, result.stderr) == (0, "2 conversations imported, 0 were there already\n")


def test_the_same_file_again_changes_nothing(run: Run, wiring: MemoryWiring, lines: Lines, tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", lines)
    run("conversations", "import", path)
    run("ask", "The longest?", "-c", lines[0]["id"], "--user", "ada")
    run("conversations", "delete", lines[1]["id"])
    before = dict(wiring.store.conversations)
    again = run("conversations", "import", path)
    assert (again.exit_code, again.stderr) == (0, "0 conversations imported, 2 were there already\n")
    first, second = again.stdout.splitlines()
    assert first == f"{lines[0]['id']} was there already"
    assert second.endswith(f"it is deleted, and `textllm conversations restore {lines[1]['id']}` shows it")
    assert wiring.store.conversations == before


def test_an_id_that_is_taken_is_left_to_whom_it_belongs_and_the_new_one_is_said(
    run: Run, wiring: MemoryWiring, lines: Lines, tmp_path: Path
) -> None:
    path = written(tmp_path / "in.jsonl", lines[:1])
    run("conversations", "import", path)
    for _ in range(2):
        result = run("conversations", "import", path, "--user", "bob", "--json")
        [told] = [json.loads(line) for line in result.stdout.splitlines()]
        assert (told["imported_from"], told["user_id"], told["line"]) == (lines[0]["id"], "bob", 1)
        assert told["id"] != lines[0]["id"]
    assert told["is_new"] is False
    assert [each["id"] for each in exported(run, user="bob")] == [told["id"]]
    run("ask", "More?", "-c", lines[0]["id"], "--user", "ada")
    run("conversations", "delete", lines[0]["id"], "--hard")
    assert "is taken" in run("conversations", "import", path).stdout  # by what the ledger says of it
    assert run("audit").exit_code == 0


def spoiled(line: dict[str, Any], spoil: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(line))
    spoil(copy)
    return copy


CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
SPOILS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda of: of.pop("id"), "id: is missing"),
    (lambda of: of.update(id="conv_1/../x"), "id: must be conv_"),
    (lambda of: of.update(user_id="a b"), "user_id: must be"),
    (lambda of: of.update(message_count=10**400), "message_count: must be a number"),
    (lambda of: of.update(total_cost="sNaN"), "total_cost: must be a number"),
    (lambda of: of.update(total_cost=-1), "total_cost: must be a number"),
    (lambda of: of.update(extra=1), "extra: is no field"),
    (lambda of: of.update(title="x" * 501), "title: must have"),
    (lambda of: of.update(summary="x" * 65_537), "summary: must have at most 65536"),
    (lambda of: of.update(tags=["a", "a"]), "tags: must differ"),
    (lambda of: of["messages"][3]["content"].extend([CALL, CALL]), "messages[3].content: has calls, or results, whose"),
    (lambda of: of["messages"][3]["content"].append(CALL | {"call_id": ""}), "messages[3].content: has calls, or res"),
    (lambda of: of["messages"][2]["content"].extend([RESULT, RESULT]), "messages[2].content: has calls, or results, w"),
    *(
        (lambda of, field=field, value=value: of.update({field: value}), f"{field}: must not contain the character NUL")
        for field, value in {"title": "a\0", "summary": "a\0", "tags": ["a", "a\0"], "metadata": {"k\0": "v"}}.items()
    ),
    (lambda of: of.update(created_at="2026-03-14T09:26:53"), "created_at: must be a moment"),
    (lambda of: of.update(updated_at="0001-01-01T00:00:00+14:00"), "updated_at: must be a moment"),
    (lambda of: of["messages"][2].update(role="system", content=[RESULT]), "messages[2].content: has a part"),
    (lambda of: of["messages"][1].update(id=of["messages"][0]["id"]), "messages: must have ids"),
    (lambda of: of["messages"][0].update(role="wizard"), "messages[0].role: is not what"),
    (lambda of: of["messages"][0].pop("content"), "messages[0].content: is missing"),
    (lambda of: of["messages"][0].update(content=[]), "messages[0].content: must say something"),
    (lambda of: of["messages"][0].update(content=[{"type": "output_text", "text": "x"}]), "messages[0].content: has"),
]


def test_of_a_file_with_broken_lines_nothing_is_imported_and_each_is_named(
    run: Run, wiring: MemoryWiring, lines: Lines, tmp_path: Path
) -> None:
    for spoil, told in SPOILS:
        path = written(tmp_path / "in.jsonl", [lines[1], spoiled(lines[0], spoil)])
        result = run("conversations", "import", path)
        assert (result.exit_code, result.stdout, wiring.store.conversations) == (4, "", {}), told
        assert f"Nothing was imported: 1 of 2 lines cannot be taken in.\n  line 2: {told}" in result.stderr, (
            result.stderr
        )
    for line in (b"{", b"[1]", b'"\xff"', b"{}", b'"\\ud800"', b"[" * 10_000):
        (tmp_path / "in.jsonl").write_bytes(b"\n" + json.dumps(lines[0]).encode() + b"\r\n" + line + b"\n\n")
        result = run("conversations", "import", str(tmp_path / "in.jsonl"))
        assert (result.exit_code, "line 3: " in result.stderr, wiring.store.conversations) == (4, True, {}), line
    (tmp_path / "in.jsonl").write_bytes(b"{\n" * 30)
    assert "and 20 more" in run("conversations", "import", str(tmp_path / "in.jsonl")).stderr


def test_a_line_that_is_too_long_is_named_with_the_setting(
    run: Run, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTLLM_MAX_FILE_SIZE_MB", "1")
    long = spoiled(lines[0], lambda of: of.update(summary="x" * (1 << 20)))
    result = run("conversations", "import", written(tmp_path / "in.jsonl", [long, lines[1]]))
    assert (result.exit_code, "1 of 2 lines" in result.stderr, "max_file_size_mb" in result.stderr) == (4, True, True)


def test_whoever_may_have_no_more_is_told_which_line_it_is_about(
    run: Run, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTLLM_MAX_CONVERSATIONS_PER_USER", "1")
    result = run("conversations", "import", written(tmp_path / "in.jsonl", lines))
    assert (result.exit_code, result.stdout) == (9, f"{lines[0]['id']} is imported\n")
    assert "max_conversations_per_user" in result.stderr
    assert result.stderr.endswith(
        "This is about line 2. What stands before it is there, 1 in all; run it again to go on.\n"
    )


def test_what_is_piped_in_is_imported(run: Run, lines: Lines) -> None:
    result = run("conversations", "import", "-", stdin="".join(json.dumps(line) + "\n" for line in lines))
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)
    assert run("conversations", "import", "none.jsonl").exit_code == 2


def test_a_server_that_asks_to_wait_is_waited_for(
    run: Run, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = [RateLimitedError(limit=1, retry_after_s=7)]

    async def admit(*_: object) -> None:
        if refusals:
            raise refusals.pop()

    async def no_pause(_: float) -> None: ...

    monkeypatch.setattr("textllm_core.files.AdmitUpload.__call__", admit)
    monkeypatch.setattr("textllm_cli.importing.pause", no_pause)
    result = run("conversations", "import", written(tmp_path / "in.jsonl", lines))
    assert (result.exit_code, "Waiting for 7 s." in result.stderr, refusals) == (0, True, [])


def test_a_file_of_a_message_is_named_in_its_place(run: Run, lines: Lines, tmp_path: Path) -> None:
    image = {"type": "input_image", "key": "LLM/x", "media_type": "image/png", "size": 9, "name": "cat.png"}
    pictured = spoiled(lines[0], lambda of: of["messages"][0]["content"].append(image))
    run("conversations", "import", written(tmp_path / "in.jsonl", [pictured]))
    said = exported(run)[0]["messages"][0]
    assert said["text"] == "Name three rivers\n\n[The file cat.png was not imported.]\n"
    assert {part["type"] for part in said["content"]} == {"input_text"}


def test_calls_of_functions_and_their_results_come_along(run: Run, lines: Lines, tmp_path: Path) -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "level", "arguments": "{}"}
    result = {"type": "function_call_output", "call_id": "c1", "output": "3 m"}

    def use(of: dict[str, Any]) -> None:
        of["messages"][1]["content"] = [call]
        of["messages"][2]["content"] = [result]

    taken_in = run("conversations", "import", written(tmp_path / "in.jsonl", [spoiled(lines[0], use)]))
    assert taken_in.exit_code == 0, taken_in.stderr
    kept = [message["content"] for message in exported(run)[0]["messages"]]
    assert (kept[1], kept[2]) == ([call], [result])
