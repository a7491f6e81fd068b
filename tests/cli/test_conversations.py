"""`textllm conversations`, over a store in which something was said."""

import json
from typing import Any

import pytest
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run

from textllm_adapters.memory.llm import ScriptedReply

FIELDS = ["id", "user_id", "session_id", "created_at", "updated_at", "message_count", "total_tokens_input"]
FIELDS += ["total_tokens_output", "total_cost", "title", "summary", "tags", "metadata", "is_deleted", "last_image_url"]
COMMANDS = [("show",), ("messages",), ("rename", "x"), ("tag", "x"), ("delete",), ("delete", "--hard"), ("export",)]
COMMANDS += [("summarize",)]


@pytest.fixture
def conversation_id(run: Run) -> str:
    """Ada's: one question, one answer."""
    asked = run("ask", "Name three rivers", "--user", "ada", "--json", says=[ScriptedReply(text="Rhine.")])
    return str(json.loads(asked.stdout)["conversation_id"])


def shown(run: Run, *arguments: str) -> Any:
    result = run("conversations", *arguments, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_json_is_the_conversation_as_rest_has_it(run: Run, conversation_id: str) -> None:
    conversation = shown(run, "show", conversation_id)
    assert list(conversation) == FIELDS
    assert (conversation["id"], conversation["title"]) == (conversation_id, "Name three rivers")
    assert run("conversations", "show", conversation_id).stdout.startswith(f"id: {conversation_id}\nuser_id: ada\n")


def test_conversations_are_listed_newest_first_with_title_and_tags(run: Run, conversation_id: str) -> None:
    newer = json.loads(run("ask", "Lakes?", "--user", "ada", "--json").stdout)["conversation_id"]
    run("conversations", "tag", conversation_id, "work", "geo")
    page = shown(run, "list", "--user", "ada")
    assert [each["id"] for each in page["data"]] == [newer, conversation_id]
    assert (page["total"], page["limit"], page["offset"]) == (2, 50, 0)
    header, _, line = run("conversations", "list", "--user", "ada").stdout.splitlines()
    assert header.split() == ["conversation", "last", "turn", "messages", "tokens", "cost"]
    assert line.startswith(conversation_id)
    assert line.endswith("Name three rivers #work #geo")
    for narrowed in (("--tag", "work"), ("--q", "RIVERS"), ("--offset", "1")):
        assert [each["id"] for each in shown(run, "list", "--user", "ada", *narrowed)["data"]] == [conversation_id]
    more = run("conversations", "list", "--user", "ada", "--limit", "1")
    assert more.stderr == "2 in all; --offset 1 shows more\n"
    assert len(run("conversations", "list").stdout.splitlines()) == 1


def test_messages_are_shown_in_both_orders_and_page_by_page(run: Run, conversation_id: str) -> None:
    assert run("conversations", "messages", conversation_id).stdout == "you: Name three rivers\nmodel: Rhine.\n"
    turned = run("conversations", "messages", conversation_id, "--order", "desc", "--limit", "1")
    assert turned.stdout == "model: Rhine.\n"
    newest = shown(run, "messages", conversation_id, "--order", "desc", "--limit", "1")
    assert (list(newest), newest["has_more"]) == (["data", "has_more"], True)
    assert turned.stderr == f"there is more; --after {newest['data'][0]['id']} shows it\n"
    rest = shown(run, "messages", conversation_id, "--order", "desc", "--after", newest["data"][0]["id"])
    assert [message["text"] for message in rest["data"]] == ["Name three rivers"]
    assert rest["has_more"] is False


def test_a_title_and_tags_can_be_set_and_taken_away(run: Run, conversation_id: str) -> None:
    assert shown(run, "rename", conversation_id, "Rivers of Europe")["title"] == "Rivers of Europe"
    assert shown(run, "tag", conversation_id, "a", "b")["tags"] == ["a", "b"]
    assert shown(run, "rename", conversation_id)["title"] is None
    assert shown(run, "tag", conversation_id)["tags"] == []


def test_what_is_hidden_can_be_restored(run: Run, conversation_id: str) -> None:
    before = shown(run, "show", conversation_id)
    assert run("conversations", "delete", conversation_id).stdout == f"{conversation_id} is hidden\n"
    assert run("conversations", "show", conversation_id).exit_code == 3
    assert run("ask", "and?", "-c", conversation_id).exit_code == 3
    assert shown(run, "list", "--user", "ada")["total"] == 0
    hidden = run("conversations", "list", "--user", "ada", "--include-deleted").stdout
    assert hidden.endswith("(deleted)\n")
    assert shown(run, "restore", conversation_id) == before


def test_what_is_erased_is_gone_and_stays_in_the_books(run: Run, wiring: MemoryWiring, conversation_id: str) -> None:
    deleted = shown(run, "delete", conversation_id, "--hard")
    assert deleted == {"id": conversation_id, "soft": False, "deleted": True}
    assert run("conversations", "restore", conversation_id).exit_code == 3
    assert wiring.store.conversations == {}
    assert len(wiring.store.entries) == 1


def test_a_summary_is_printed_and_kept_and_costs_what_it_costs(
    run: Run, wiring: MemoryWiring, conversation_id: str
) -> None:
    before = shown(run, "show", conversation_id)
    asked = run("conversations", "summarize", conversation_id, says=[ScriptedReply(text="Rivers.\x1b[31m")])
    assert (asked.exit_code, asked.stdout, asked.stderr) == (0, "Rivers.\n", "")
    after = shown(run, "show", conversation_id)
    assert (after["summary"], after["message_count"]) == ("Rivers.\x1b[31m", 1)
    assert [entry.kind for entry in wiring.store.entries.values()] == ["text", "summary"]
    assert after["total_cost"] > before["total_cost"]
    again = run("conversations", "summarize", conversation_id, "--json", says=[ScriptedReply(text="Three rivers.")])
    assert json.loads(again.stdout) == shown(run, "show", conversation_id)
    assert json.loads(again.stdout)["summary"] == "Three rivers."


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_an_export_is_one_line_of_json_with_all_messages(
    run: Run, conversation_id: str, option: tuple[str, ...]
) -> None:
    run("ask", "More?", "-c", conversation_id, "--user", "ada", says=[ScriptedReply(text="Elbe.\x1b[31m")])
    result = run("conversations", "export", conversation_id, *option)
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1)
    assert "\x1b" not in result.stdout
    exported = json.loads(result.stdout)
    assert list(exported) == [*FIELDS, "messages"]
    texts = [message["text"] for message in exported["messages"]]
    assert texts == ["Name three rivers", "Rhine.", "More?", "Elbe.\x1b[31m"]


@pytest.mark.parametrize("command", [*COMMANDS, ("restore",)], ids=" ".join)
@pytest.mark.parametrize("conversation_id", ["conv_never_made", "", "ü"])
def test_an_unknown_conversation_has_exit_code_3(run: Run, command: tuple[str, ...], conversation_id: str) -> None:
    name, *more = command
    result = run("conversations", name, conversation_id, *more)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", "error: No such conversation.\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("list", "--user", "a b"), 4),
        (("rename", "ID", " "), 4),
        (("rename", "ID", "x" * 501), 4),
        (("rename", "ID", "\udcff"), 4),
        (("list", "--q", "\udcff"), 4),
        (("tag", "ID", "a", "a"), 4),
        (("tag", "ID", ""), 4),
        (("messages", "ID", "--after", "msg_unknown"), 4),
        (("messages", "ID", "--limit", "0"), 2),
        (("messages", "ID", "--order", "up"), 2),
        (("list", "--limit", "101"), 2),
        (("list", "--offset", "-1"), 2),
    ],
)
def test_what_cannot_be_has_its_exit_code(
    run: Run, conversation_id: str, arguments: tuple[str, ...], code: int
) -> None:
    named = [conversation_id if word == "ID" else word for word in arguments]
    assert run("conversations", *named).exit_code == code
