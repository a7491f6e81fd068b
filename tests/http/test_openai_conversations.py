"""`/v1/conversations`: one conversation at both doors, in the shapes of OpenAI's API."""

from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.conftest import JSON, Answer, Server
from tests.unit.conftest import Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Caller, TextTurn
from textllm_core.records.tools import FunctionTool, ToolCall

ITEMS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Is it raining in Oslo, and in Bergen?"},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see.", "annotations": []}]},
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Oslo"}'},
    {"type": "function_call", "call_id": "call_2", "name": "weather", "arguments": '{"city": "Bergen"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": "dry"},
    {"type": "function_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "rain"}]},
    {"type": "message", "role": "assistant", "content": "Only in Bergen."},
]
KINDS = ["message"] * 3 + ["function_call"] * 2 + ["function_call_output"] * 2 + ["message"]


async def made(server: Server, **body: Any) -> str:
    answer = await server.post("/v1/conversations", body)
    assert answer.status == 200, answer.body
    return str(answer.json()["id"])


async def listed(server: Server, conversation_id: str, query: str = "") -> Any:
    answer = await server.get(f"/v1/conversations/{conversation_id}/items{query}")
    assert answer.status == 200, answer.body
    return answer.json()


def refusal(answer: Answer) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status, error["code"], error["param"]


async def test_a_conversation_begins_with_its_items_and_metadata(server: Server) -> None:
    answer = await server.post("/v1/conversations", {"items": ITEMS, "metadata": {"topic": "rain"}, "strange": 1})
    conversation = answer.json()
    assert conversation["metadata"] == {"topic": "rain"}
    assert (await server.get(f"/v1/conversations/{conversation['id']}")).json() == conversation
    items = (await listed(server, conversation["id"], "?order=asc"))["data"]
    assert [item["type"] for item in items] == KINDS
    assert items[2]["content"] == [{"type": "output_text", "text": "Let me see.", "annotations": [], "logprobs": []}]
    assert [item["output"] for item in items[5:7]] == ["dry", "rain"]
    assert len({item["id"] for item in items}) == len(items)


async def test_it_begins_empty_without_a_body(server: Server) -> None:
    answer = await server.call("POST", "/v1/conversations")
    assert (answer.status, answer.json()["metadata"]) == (200, {})
    page = await listed(server, answer.json()["id"])
    assert (page["data"], page["first_id"], page["last_id"], page["has_more"]) == ([], "", "", False)


async def test_both_doors_show_the_same_conversation(server: Server, bench: Bench) -> None:
    conversation_id = await made(server, items=ITEMS[:2], user="ada")
    reply = (await server.post("/chat", {"message": "And now?", "conversation_id": conversation_id})).json()
    assert reply["user_id"] == "ada"
    sent = bench.llm.requests[-1]
    kept = (await server.get(f"/conversations/{conversation_id}/messages")).json()["data"]
    assert [(message["role"], message["text"]) for message in kept[:2]] == [
        ("system", "Be brief."),
        ("user", "Is it raining in Oslo, and in Bergen?"),
    ]
    items = (await listed(server, conversation_id, "?order=asc"))["data"]
    assert [item["id"] for item in items] == [message["id"] for message in kept]
    assert items[-1]["content"][0]["text"] == reply["text"]
    assert bench.transcript is not None
    assert sent.transcript_id is not None
    assert [m.text for m in await bench.transcript.messages(sent.transcript_id)][:2] == [m["text"] for m in kept[:2]]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 20])
async def test_every_item_is_on_one_page(server: Server, order: str, limit: int) -> None:
    conversation_id = await made(server, items=ITEMS)
    whole = (await listed(server, conversation_id, f"?order={order}&limit=100"))["data"]
    found: list[Any] = []
    after = ""
    while True:
        page = await listed(server, conversation_id, f"?order={order}&limit={limit}{after}")
        found += page["data"]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert found == whole
    assert len(whole) == len(KINDS)


async def test_the_newest_items_come_first_unless_said_otherwise(server: Server) -> None:
    page = await listed(server, await made(server, items=ITEMS))
    assert page["data"][0]["content"][0]["text"] == "Only in Bergen."


async def test_items_are_added_shown_and_removed_one_by_one(server: Server) -> None:
    conversation_id = await made(server)
    path = f"/v1/conversations/{conversation_id}/items"
    added = (await server.post(f"{path}?include[]=message.input_image.image_url", {"items": ITEMS})).json()["data"]
    assert [item["type"] for item in added] == KINDS
    for item in added:
        assert (await server.get(f"{path}/{item['id']}")).json() == item
    for item in (added[3], added[2], added[7]):
        assert (await server.call("DELETE", f"{path}/{item['id']}")).json()["id"] == conversation_id
        assert refusal(await server.get(f"{path}/{item['id']}"))[:2] == (404, "not_found")
        assert refusal(await server.call("DELETE", f"{path}/{item['id']}"))[:2] == (404, "not_found")
    left = (await listed(server, conversation_id, "?order=asc"))["data"]
    assert [item["type"] for item in left] == ["message", "message", "function_call"] + ["function_call_output"] * 2


async def test_a_turn_of_chat_brings_the_outputs_of_calls_that_were_added(server: Server) -> None:
    conversation_id = await made(server, items=ITEMS[:6], user="ada")
    results = [{"tool_call_id": "call_2", "content": "rain"}]
    answer = await server.post("/chat", {"conversation_id": conversation_id, "tool_results": results})
    assert answer.status == 200
    items = (await listed(server, conversation_id, "?order=asc"))["data"]
    outputs = {item["call_id"]: item["output"] for item in items if item["type"] == "function_call_output"}
    assert outputs.keys() == {"call_1", "call_2"}
    assert outputs["call_2"] == "rain"


async def test_calls_of_a_turn_of_chat_are_items(server: Server, bench: Bench) -> None:
    call = ToolCall(call_id="call_1", name="weather", arguments="{}")
    bench.llm.script(ScriptedReply(text="Let me see.", tool_calls=(call,), finish_reason="tool_calls"))
    turn = TextTurn("Is it raining?", user_id="ada")
    turn = replace(turn, options=replace(turn.options, tools=[FunctionTool(name="weather")]))
    reply = await bench.send_message(Caller(), turn)
    items = (await listed(server, reply.conversation_id, "?order=asc"))["data"]
    assert [item["type"] for item in items] == ["message", "message", "function_call"]
    assert (items[2]["call_id"], items[2]["name"], items[2]["arguments"]) == ("call_1", "weather", "{}")


async def test_its_metadata_is_changed_as_a_whole(server: Server) -> None:
    conversation_id = await made(server, metadata={"a": "1", "b": "2"})
    path = f"/v1/conversations/{conversation_id}"
    assert (await server.post(path, {"metadata": {"c": "3"}})).json()["metadata"] == {"c": "3"}
    assert (await server.post(path, {})).json()["metadata"] == {"c": "3"}
    assert (await server.post(path, {"metadata": None})).json()["metadata"] == {}


async def test_deleting_it_erases_it(server: Server) -> None:
    conversation_id = await made(server, items=ITEMS)
    path = f"/v1/conversations/{conversation_id}"
    assert (await server.call("DELETE", path)).json() == {
        "id": conversation_id,
        "object": "conversation.deleted",
        "deleted": True,
    }
    for answer in (await server.get(path), await server.call("DELETE", path), await server.get(f"{path}/items")):
        assert refusal(answer)[:2] == (404, "conversation_not_found")
    assert (await server.get("/conversations?include_deleted=true")).json()["total"] == 0


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([1], "items[0]"),
        ([{"role": "tool", "content": "x"}], "items[0].role"),
        ([{"role": "user", "content": []}], "items[0].content"),
        ([{"role": "user", "content": None}], "items[0].content"),
        ([{"role": "user", "content": ["x"]}], "items[0].content"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "items[0].content[0].type"),
        ([{"type": "web_search_call", "id": "ws_1"}], "items[0].type"),
        ([{"type": "function_call", "name": "x", "arguments": "{}"}], "items[0].call_id"),
        ([{"type": "item_reference", "id": "msg_1"}], "items[0]"),
        ([{"type": "function_call", "call_id": "c", "name": "x", "arguments": "{}"}] * 2, "items"),
        ([{"type": "function_call_output", "call_id": "c", "output": "x"}] * 2, "items"),
        ([{"role": "user", "content": "x"}] * 21, "items"),
    ],
)
async def test_what_is_wrong_with_an_item_is_named(server: Server, items: list[Any], param: str) -> None:
    conversation_id = await made(server)
    for path in ("/v1/conversations", f"/v1/conversations/{conversation_id}/items"):
        assert refusal(await server.post(path, {"items": items})) == (400, "invalid_request", param)
    assert (await listed(server, conversation_id))["data"] == []


@pytest.mark.parametrize(
    "query", ["?limit=0", "?limit=101", "?limit=x", "?order=up", "?after=msg_x", "?after=fc_0123456789ab_x"]
)
async def test_a_page_that_cannot_be_is_refused_by_name(server: Server, query: str) -> None:
    conversation_id = await made(server, items=ITEMS)
    answer = await server.get(f"/v1/conversations/{conversation_id}/items{query}")
    assert refusal(answer) == (400, "invalid_request", query[1:].partition("=")[0])


async def test_nothing_is_added_while_a_turn_is_running(server: Server, bench: Bench) -> None:
    conversation_id = await made(server, user="ada")
    kept = bench.store.conversations["default", "ada", conversation_id]
    bench.store.conversations["default", "ada", conversation_id] = replace(kept, turn_id="resp_1")
    path = f"/v1/conversations/{conversation_id}/items"
    answer = await server.post(path, {"items": ITEMS})
    assert refusal(answer)[:2] == (409, "conversation_busy")
    assert answer.headers["x-should-retry"] == "true"


async def test_an_item_may_be_no_longer_than_a_message(server: Server, bench: Bench) -> None:
    items = [{"role": "user", "content": "x" * (bench.policy.max_input_chars + 1)}]
    answer = await server.post(f"/v1/conversations/{await made(server)}/items", {"items": items}, JSON)
    assert refusal(answer)[:2] == (413, "input_too_long")
