"""`/conversations`: made, listed, changed, hidden, restored, erased; and what was said in them."""

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.conftest import JSON, Answer, Server
from tests.unit.conftest import Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Caller, TextTurn

UNKNOWN = "conv_" + "0" * 24


async def change(server: Server, conversation_id: str, body: bytes) -> Answer:
    return await server.call("PATCH", f"/conversations/{conversation_id}", [body], headers=JSON)


async def remove(server: Server, conversation_id: str, query: str = "") -> Answer:
    return await server.call("DELETE", f"/conversations/{conversation_id}{query}")


def only_at_provider(bench: Bench) -> None:
    for key, kept in bench.store.conversations.items():
        bench.store.conversations[key] = replace(kept, keeps_messages=False, messages=())


async def listed(server: Server, query: str = "") -> list[str]:
    answer = await server.get(f"/conversations{query}")
    assert answer.status == 200
    return [each["id"] for each in answer.json()["data"]]


def fields(answer: Answer) -> list[str]:
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
    return [error["field"] for error in answer.json()["errors"]]


async def test_a_new_conversation_has_exactly_the_fields_of_the_contract(server: Server) -> None:
    asked = {"user_id": "ada", "metadata": {"topic": "support"}, "title": "Help", "tags": ["a", "b"]}
    answer = await server.post("/conversations", asked)
    made = answer.json()
    assert (answer.status, answer.headers["content-type"]) == (201, "application/json")
    assert made == {
        "id": made["id"],
        "user_id": "ada",
        "session_id": None,
        "created_at": "2026-11-22T12:00:00Z",
        "updated_at": "2026-11-22T12:00:00Z",
        "message_count": 0,
        "total_tokens_input": 0,
        "total_tokens_output": 0,
        "total_cost": 0,
        "title": "Help",
        "summary": None,
        "tags": ["a", "b"],
        "metadata": {"topic": "support"},
        "is_deleted": False,
        "last_image_url": None,
    }
    assert list(made)[-1] == "last_image_url"
    assert (await server.get(f"/conversations/{made['id']}")).json() == made


async def test_a_user_is_made_where_none_is_named(server: Server) -> None:
    for body in ({}, {"user_id": None, "title": None, "tags": None, "metadata": None}):
        made = (await server.post("/conversations", body)).json()
        assert made["user_id"].startswith("user_")
        assert (made["title"], made["tags"], made["metadata"]) == (None, [], {})


async def test_a_turn_goes_on_with_a_new_conversation(server: Server) -> None:
    made = (await server.post("/conversations", {"user_id": "ada"})).json()
    reply = await server.post("/chat", {"message": "Name three rivers", "conversation_id": made["id"]})
    assert reply.json()["message_number"] == 1
    after = (await server.get(f"/conversations/{made['id']}")).json()
    assert (after["title"], after["message_count"]) == ("Name three rivers", 1)
    assert after["session_id"] == reply.json()["session_id"]
    assert after["total_cost"] == reply.json()["cost"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"user_id": "a b"}', "user_id"),
        (b'{"user_id": 7}', "user_id"),
        (b'{"titel": "x"}', "titel"),
        (b'{"summary": "x"}', "summary"),
    ],
)
async def test_what_only_a_new_conversation_can_get_wrong_is_refused(server: Server, body: bytes, field: str) -> None:
    assert fields(await server.post("/conversations", body)) == [field]
    assert await listed(server) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"title": ""}', "title"),
        (b'{"title": " \\n"}', "title"),
        (b'{"title": "%s"}' % (b"x" * 501), "title"),
        (b'{"title": 7}', "title"),
        (b'{"title": "\\ud800"}', None),
        (b'{"title": "a\\u0000"}', "title"),
        (b'{"tags": "a"}', "tags"),
        (b'{"tags": [1]}', "tags"),
        (b'{"tags": [null]}', "tags"),
        (b'{"tags": [["a"]]}', "tags"),
        (b'{"tags": {"a": 1}}', "tags"),
        (b'{"tags": ["a", "b", "a"]}', "tags"),
        (b'{"tags": [""]}', "tags"),
        (b'{"tags": ["%s"]}' % (b"x" * 65), "tags"),
        (b'{"tags": [%s]}' % b", ".join(b'"%d"' % n for n in range(17)), "tags"),
        (b'{"metadata": []}', "metadata"),
        (b'{"metadata": {"a": 1}}', "metadata.a"),
        (b'{"metadata": {"%s": ""}}' % (b"k" * 65), "metadata"),
        (b'{"metadata": {"k": "%s"}}' % (b"v" * 513), "metadata"),
        (b'{"metadata": {%s}}' % b", ".join(b'"%d": ""' % n for n in range(17)), "metadata"),
        (b'{"is_deleted": true}', "is_deleted"),
        (b"[]", None),
        (b"{", None),
    ],
)
async def test_what_a_conversation_cannot_have_is_refused_when_it_is_made_and_changed(
    server: Server, body: bytes, field: str | None
) -> None:
    made = (await server.post("/conversations", {})).json()
    for answer in (await server.post("/conversations", body), await change(server, made["id"], body)):
        assert fields(answer) == ([] if field is None else [field])
    assert (await server.get(f"/conversations/{made['id']}")).json() == made


@pytest.mark.parametrize("headers", [{}, JSON, {"content-type": "application/x-www-form-urlencoded"}])
async def test_a_new_conversation_needs_no_body(server: Server, headers: dict[str, str]) -> None:
    answer = await server.post("/conversations", b"", headers)
    assert answer.status == 201
    assert answer.headers["location"] == f"/conversations/{answer.json()['id']}"
    assert (await server.get(answer.headers["location"])).json() == answer.json()


@pytest.mark.parametrize("body", [b"user_id=ada", b"{}"])
async def test_a_body_of_another_type_is_refused_where_none_is_needed(server: Server, body: bytes) -> None:
    answer = await server.post("/conversations", body, {"content-type": "application/x-www-form-urlencoded"})
    assert (answer.status, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_the_largest_that_is_allowed_is_kept(server: Server) -> None:
    metadata = {f"{n}".ljust(64, "k"): "v" * 512 for n in range(16)}
    tags = [f"{n}".ljust(64, "ä") for n in range(16)]
    answer = await server.post("/conversations", {"title": "ü" * 500, "tags": tags, "metadata": metadata})
    assert answer.status == 201
    assert (answer.json()["tags"], answer.json()["metadata"]) == (tags, metadata)


async def test_a_change_touches_what_it_names_and_null_empties_it(server: Server) -> None:
    asked = {"title": "old", "tags": ["t"], "metadata": {"k": "v"}}
    made = (await server.post("/conversations", asked)).json()
    bodies: list[tuple[bytes, dict[str, Any]]] = [
        (b'{"title": "new"}', {"title": "new"}),
        (b'{"tags": ["x", "y"]}', {"tags": ["x", "y"]}),
        (b'{"metadata": {}}', {"metadata": {}}),
        (b"{}", {}),
        (b'{"title": null, "tags": null, "metadata": null}', {"title": None, "tags": [], "metadata": {}}),
    ]
    for body, changed in bodies:
        answer = await change(server, made["id"], body)
        made |= changed
        assert (answer.status, answer.json()) == (200, made)
    assert (await server.get(f"/conversations/{made['id']}")).json() == made


async def test_the_list_is_newest_first_and_comes_in_pages(server: Server, bench: Bench) -> None:
    said = [(await bench.say(f"number {n}")).conversation_id for n in range(3)]
    other = (await server.post("/conversations", {"user_id": "bob"})).json()["id"]
    page = (await server.get("/conversations?user_id=ada&limit=2&offset=1")).json()
    assert list(page) == ["data", "total", "limit", "offset"]
    assert [each["id"] for each in page["data"]] == [said[1], said[0]]
    assert (page["total"], page["limit"], page["offset"]) == (3, 2, 1)
    assert (await server.get("/conversations?user_id=nobody")).json() == {
        "data": [],
        "total": 0,
        "limit": 50,
        "offset": 0,
    }
    assert set(await listed(server)) == {*said, other}
    assert await listed(server, "?user_id=null") == []


async def test_the_list_can_be_narrowed(server: Server) -> None:
    made = [
        (await server.post("/conversations", {"title": title, "tags": tags})).json()["id"]
        for title, tags in [("Three Rivers", ["work"]), ("100% sure", ["home", "work"]), ("Lakes", [])]
    ]
    assert set(await listed(server, "?tag=work")) == set(made[:2])
    assert await listed(server, "?tag=work&q=sure") == [made[1]]
    assert await listed(server, "?q=RIVERS") == [made[0]]
    assert await listed(server, "?q=%25") == [made[1]]
    assert await listed(server, "?q=_") == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("q=%00", "q"),
        ("tag=a%00b", "tag"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("offset=-1", "offset"),
        ("offset=99999999999999999999", "offset"),
        ("include_deleted=maybe", "include_deleted"),
        ("user_id=a%20b", "user_id"),
        ("order=asc", "order"),
        ("tag=a&tag=b", "tag"),
    ],
)
async def test_a_wrong_query_is_refused(server: Server, query: str, field: str) -> None:
    assert fields(await server.get(f"/conversations?{query}")) == [field]


async def test_what_is_hidden_is_nowhere_until_it_is_restored(server: Server, bench: Bench) -> None:
    reply = await bench.say("Hi")
    it = f"/conversations/{reply.conversation_id}"
    before = (await server.get(it)).json()
    session = (await server.get(f"/sessions/{reply.session_id}")).json()
    answer = await remove(server, reply.conversation_id)
    assert (answer.status, answer.json()) == (200, {"id": reply.conversation_id, "soft": True, "deleted": True})
    for missing in (
        await server.get(it),
        await server.get(f"{it}/messages"),
        await change(server, reply.conversation_id, b'{"title": "x"}'),
        await remove(server, reply.conversation_id, "?soft=true"),
        await server.post("/chat", {"message": "Hi", "conversation_id": reply.conversation_id}),
    ):
        assert (missing.status, missing.json()["code"]) == (404, "conversation_not_found")
    assert await listed(server) == []
    hidden = (await server.get("/conversations?include_deleted=true")).json()["data"]
    assert hidden == [before | {"is_deleted": True}]
    assert (await server.get(f"/sessions/{reply.session_id}")).json() == session
    for _ in range(2):
        restored = await server.call("POST", f"{it}/restore")
        assert (restored.status, restored.json()) == (200, before)
    assert (await bench.say("And again", reply.conversation_id)).message_number == 2


@pytest.mark.parametrize("is_hidden", [False, True])
async def test_what_is_erased_is_gone_here_and_at_the_provider(server: Server, bench: Bench, is_hidden: bool) -> None:
    reply = await bench.say("Hi")
    await bench.say("More", reply.conversation_id)
    (transcript_id,) = (kept.transcript_id for kept in bench.store.conversations.values())
    if is_hidden:
        await remove(server, reply.conversation_id)
    answer = await remove(server, reply.conversation_id, "?soft=false")
    assert answer.json() == {"id": reply.conversation_id, "soft": False, "deleted": True}
    assert (await server.call("POST", f"/conversations/{reply.conversation_id}/restore")).status == 404
    assert await listed(server, "?include_deleted=true") == []
    assert len(await bench.entries()) == 2
    assert bench.transcript is not None
    assert transcript_id not in bench.transcript.ids
    assert bench.store.erasures == {}


async def test_while_a_turn_runs_nothing_is_deleted(server: Server, bench: Bench) -> None:
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    events = bench.send_message.stream(Caller(), TextTurn("Hi", user_id="ada"))
    await anext(events)
    (conversation_id,) = await listed(server)
    for query in ("", "?soft=false"):
        answer = await remove(server, conversation_id, query)
        assert (answer.status, answer.json()["code"]) == (409, "conversation_busy")
        assert answer.headers["retry-after"] == "1"
    gate.set()
    _ = [event async for event in events]
    assert (await remove(server, conversation_id)).status == 200


async def test_the_repeat_of_a_turn_whose_conversation_is_erased_finds_nothing(server: Server) -> None:
    headers = JSON | {"idempotency-key": "once"}
    first = (await server.post("/chat", {"message": "Hi"}, headers)).json()
    await remove(server, first["conversation_id"], "?soft=false")
    again = await server.post("/chat", {"message": "Hi"}, headers)
    assert (again.status, again.json()["code"]) == (404, "conversation_not_found")
    assert await listed(server, "?include_deleted=true") == []


async def test_messages_come_with_text_and_parts_in_both_orders(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="Hello."))
    reply = await bench.say("Hi")
    answer = (await server.get(f"/conversations/{reply.conversation_id}/messages")).json()
    question, said = answer["data"]
    assert answer == {"data": [question, said], "has_more": False}
    assert question == {
        "id": question["id"],
        "role": "user",
        "text": "Hi",
        "content": [{"type": "input_text", "text": "Hi"}],
        "created_at": "2026-11-22T12:00:01Z",
        "status": "completed",
    }
    assert (said["role"], said["content"]) == ("assistant", [{"type": "output_text", "text": "Hello."}])
    assert (said["estimated"], said["finish_reason"]) == (False, "stop")
    turned = (await server.get(f"/conversations/{reply.conversation_id}/messages?order=desc")).json()
    assert turned == {"data": [said, question], "has_more": False}


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("keeps_messages", [True, False])
async def test_pages_of_messages_join_without_a_gap(
    server: Server, bench: Bench, order: str, keeps_messages: bool
) -> None:
    reply = await bench.say("one")
    await bench.say("two", reply.conversation_id)
    if not keeps_messages:
        only_at_provider(bench)
    path = f"/conversations/{reply.conversation_id}/messages?order={order}"
    whole = (await server.get(path)).json()["data"]
    assert len(whole) == 4
    joined: list[Any] = []
    after = ""
    while True:
        page = (await server.get(f"{path}&limit=3{after}")).json()
        joined += page["data"]
        if not page["has_more"]:
            break
        after = f"&after={page['data'][-1]['id']}"
    assert joined == whole


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("order=up", "order"),
        ("after=msg_unknown", "after"),
        ("after=%00", "after"),
        ("before=x", "before"),
    ],
)
async def test_a_wrong_query_for_messages_is_refused(server: Server, bench: Bench, query: str, field: str) -> None:
    reply = await bench.say("Hi")
    assert fields(await server.get(f"/conversations/{reply.conversation_id}/messages?{query}")) == [field]


@pytest.mark.parametrize("conversation_id", [UNKNOWN, "x", "conv_\0", "ü", "'; --", "x" * 5000, "sess_1", " "])
@pytest.mark.parametrize(
    "call",
    [
        "GET /conversations/{}",
        "PATCH /conversations/{}",
        "DELETE /conversations/{}",
        "DELETE /conversations/{}?soft=false",
        "POST /conversations/{}/restore",
        "POST /conversations/{}/summary",
        "GET /conversations/{}/messages",
    ],
)
async def test_a_malformed_id_is_no_different_from_an_unknown_one(
    server: Server, call: str, conversation_id: str
) -> None:
    method, path = call.split()
    body, headers = ([b"{}"], JSON) if method == "PATCH" else ([], {})
    answer = await server.call(method, path.format(conversation_id), body, headers=headers)
    assert (answer.status, answer.json()["code"]) == (404, "conversation_not_found")


async def test_a_summary_answers_with_the_conversation_and_what_is_left_of_the_rate_limit(
    server: Server, bench: Bench
) -> None:
    first = (await server.post("/chat", {"message": "one", "user_id": "ada"})).json()
    bench.llm.script(ScriptedReply(text="We counted."))
    at = f"/conversations/{first['conversation_id']}"
    answer = await server.call("POST", f"{at}/summary", headers={"idempotency-key": "k"})
    assert answer.status == 200
    assert answer.json() == (await server.get(at)).json()
    assert (answer.json()["summary"], answer.json()["message_count"]) == ("We counted.", 1)
    assert answer.headers["ratelimit"].startswith('"turns";r=998;')
    again = await server.call("POST", f"{at}/summary", headers={"idempotency-key": "k"})
    assert (again.json(), again.headers["idempotent-replayed"]) == (answer.json(), "true")
    assert len(bench.llm.requests) == 2


async def test_a_summary_that_cannot_be_is_a_plain_problem(server: Server, bench: Bench) -> None:
    empty = (await server.post("/conversations", {"user_id": "ada"})).json()["id"]
    assert fields(await server.call("POST", f"/conversations/{empty}/summary")) == ["conversation_id"]
    assert (await server.call("POST", f"/conversations/{UNKNOWN}/summary")).json()["code"] == "conversation_not_found"
    it = (await server.post("/chat", {"message": "one"})).json()["conversation_id"]
    bench.llm.script(ScriptedReply(text="No.", finish_reason="refusal"))
    refused = await server.call("POST", f"/conversations/{it}/summary")
    assert (refused.status, refused.json()["code"]) == (422, "content_refused")
    gate = asyncio.Event()
    bench.llm.script(ScriptedReply(deltas=("a", "b"), gate=gate))
    events = bench.send_message.stream(Caller(), TextTurn("two", it))
    await anext(events)
    busy = await server.call("POST", f"/conversations/{it}/summary")
    assert (busy.status, busy.json()["code"], "retry-after" in busy.headers) == (409, "conversation_busy", True)
    gate.set()
    await events.aclose()
