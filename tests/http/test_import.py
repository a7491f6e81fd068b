"""`POST /conversations/import`: a conversation of an export, taken in whole and once."""

import json
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.conftest import JSON, Server, serving
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.application import SCRIPTED_FILE_POLICY
from textllm_core import Caller, TextTurn

AT = "/conversations/import"


async def exported(bench: Bench, server: Server) -> dict[str, Any]:
    """What was said in a conversation of Ada's, as an export of another place has it."""
    reply = await bench.send_message(Caller(), TextTurn("Rivers?\0", user_id="ada"))
    it = f"/conversations/{reply.conversation_id}"
    conversation: dict[str, Any] = (await server.get(it)).json()
    messages = (await server.get(f"{it}/messages")).json()["data"]
    return conversation | {"id": "conv_" + "1" * 24, "messages": messages}


async def test_it_is_made_once_costs_nothing_and_goes_on(server: Server, bench: Bench) -> None:
    line = await exported(bench, server)
    entries = dict(bench.store.entries)
    made, again = [await server.post(AT, line) for _ in range(2)]
    told = {"id": line["id"], "user_id": "ada", "imported_from": line["id"], "is_new": True, "is_deleted": False}
    it = f"/conversations/{line['id']}"
    assert (made.status, made.json(), made.headers["location"]) == (201, told, it)
    assert (again.status, again.json()) == (200, told | {"is_new": False})
    assert bench.store.entries == entries
    sums = {"total_cost": 0, "total_tokens_input": 0, "total_tokens_output": 0, "session_id": None}
    messages = (await server.get(f"{it}/messages")).json()["data"]
    assert (await server.get(it)).json() | {"messages": messages} == line | sums
    went_on = await server.post("/chat", {"message": "More?", "conversation_id": line["id"]})
    assert went_on.json()["message_number"] == 2
    assert bench.transcript is not None
    [at_provider] = [kept.transcript_id for key, kept in bench.store.conversations.items() if key[2] == line["id"]]
    assert at_provider is not None
    assert [message.text for message in await bench.transcript.messages(at_provider)][:2] == [
        message["text"] for message in line["messages"]
    ]


HELLO = {"role": "assistant", "content": "Hello, I am here to help."}
QUESTION = {"role": "user", "content": "Does it rain?"}
CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "dry"}


@pytest.mark.parametrize(
    "items",
    [
        [HELLO],
        [HELLO, QUESTION],
        [{"role": "system", "content": "Be brief."}],
        [{"role": "developer", "content": "Be brief."}, QUESTION],
        [QUESTION, QUESTION],
        [QUESTION, CALL, RESULT],
    ],
    ids=["greeting", "greeting and question", "system", "developer", "questions", "result"],
)
async def test_whatever_was_added_to_a_conversation_comes_back_from_its_export(
    server: Server, items: list[dict[str, Any]]
) -> None:
    begun = await server.post("/v1/conversations", {"items": items, "user": "ada"})
    it = f"/conversations/{begun.json()['id']}"
    messages = (await server.get(f"{it}/messages")).json()["data"]
    line = (await server.get(it)).json() | {"id": "conv_" + "1" * 24, "messages": messages}
    made = await server.post(AT, line)
    assert made.status == 201, made.body
    it = f"/conversations/{line['id']}"
    told = (await server.get(it)).json() | {"messages": (await server.get(f"{it}/messages")).json()["data"]}
    assert told == line
    went_on = await server.post(
        "/v1/responses", {"input": "Go on.", "conversation": line["id"], "user": line["user_id"]}
    )
    assert went_on.status == 200, went_on.body


async def test_what_cannot_be_is_refused_and_nothing_is_kept(server: Server, bench: Bench) -> None:
    line = await exported(bench, server)
    kept = dict(bench.store.conversations)
    for body, fields in (
        (line | {"id": "../x"}, ["id"]),
        (line | {"a canary": 1}, []),
        (line | {"messages": [{"id": "a"}]}, ["messages[0].role"]),
        (line | {"messages": [line["messages"][0] | {"role": "canary"}]}, ["messages[0].role"]),
        (line | {"total_cost": "canary"}, ["total_cost"]),
        ([], []),
        (b'{"id": "\xff"}', []),
        (b"[" * 10_000, []),
    ):
        answer = await server.post(AT, body)
        assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
        assert [each["field"] for each in answer.json()["errors"]] == fields
        assert b"canary" not in answer.body
    content = [json.dumps(line).encode()]
    assert (await server.call("POST", f"{AT}?x=1", content, headers=JSON)).status == 400
    assert (await server.call("POST", AT, content, headers={"content-type": "text/plain"})).status == 415
    assert bench.store.conversations == kept


async def test_its_limits_are_said() -> None:
    file_policy = replace(SCRIPTED_FILE_POLICY, rate_per_minute=1, max_file_bytes=2000)
    bench = Bench(file_policy=file_policy)
    async with serving(bench) as server:
        line = await exported(bench, server)
        large = await server.post(AT, line | {"summary": "x" * 2000})
        assert (large.status, large.json()["code"], large.json()["limit"]) == (413, "file_too_large", 2000)
        assert (await server.post(AT, line)).status == 201
        assert (await server.post(AT, line)).status == 200  # which counts nowhere
        fast = await server.post(AT, line | {"id": "conv_" + "2" * 24})
        assert (fast.status, fast.json()["code"], "retry-after" in fast.headers) == (429, "rate_limited", True)


async def test_a_user_has_no_more_than_allowed_and_nothing_comes_where_no_messages_are_kept(
    server: Server, bench: Bench
) -> None:
    line = await exported(bench, server)
    for policy, setting in (
        (replace(POLICY, max_conversations=0), "max_conversations_per_user"),
        (replace(POLICY, keep_messages=False), "store_messages"),
    ):
        async with serving(Bench(policy=policy)) as other:
            refused = await other.post(AT, line)
            assert (refused.status, setting in refused.json()["detail"]) == (403, True)
