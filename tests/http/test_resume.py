"""`/chat/stream/{response_id}`: read on, or cancelled, by whoever may."""

import asyncio
import json
from collections.abc import Mapping

import pytest
from tests.http.conftest import JSON, Answer, Server
from tests.http.sse_reader import Received, read_events

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core.ids import new_id


async def left(server: Server, *, stream_format: str = "events", gate: asyncio.Event | None = None) -> Answer:
    """A stream of three pieces whose client has left after the first."""
    server.bench.llm.script(ScriptedReply(deltas=("a\r", "\n", "c"), gate=gate, unheard="cancelled"))
    return await server.call(
        "POST",
        "/chat/stream",
        [json.dumps({"message": "Hi", "user_id": "ada", "stream_format": stream_format}).encode()],
        headers=JSON,
        leave_when=lambda answer: b"a" in answer.body.split(b"user_id")[-1],
    )


def numbered(events: list[Received]) -> list[tuple[str, str]]:
    return [(event.last_id, event.name) for event in events]


WHOLE = [("1", "reply.started"), *((str(n), "reply.delta") for n in (2, 3, 4)), ("5", "reply.completed")]


@pytest.mark.parametrize("last_event_id", [None, *range(5)])
async def test_a_stream_is_read_on_where_it_was_left(server: Server, last_event_id: int | None) -> None:
    gate = asyncio.Event()
    begun = await left(server, gate=gate)
    asyncio.get_running_loop().call_later(0.05, gate.set)
    headers = {} if last_event_id is None else {"Last-Event-ID": str(last_event_id)}
    answer = await server.get(f"/chat/stream/{begun.headers['x-response-id']}", headers)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    for name in ("x-response-id", "x-conversation-id", "x-user-id"):
        assert answer.headers[name] == begun.headers[name]
    events = read_events(answer.body)
    assert numbered(events) == WHOLE[last_event_id or 0 :]
    assert json.loads(events[-1].data)["text"] == "a\r\nc"


async def test_after_the_last_event_there_is_nothing_more(server: Server) -> None:
    begun = await left(server)
    await server.bench.check_books()
    answer = await server.get(f"/chat/stream/{begun.headers['x-response-id']}", {"Last-Event-ID": "5"})
    assert (answer.status, answer.body) == (204, b"")


async def test_what_was_said_in_a_deleted_conversation_is_read_on_once_it_is_restored(server: Server) -> None:
    begun = await left(server)
    await server.bench.check_books()
    conversation = f"/conversations/{begun.headers['x-conversation-id']}"
    doors = [("GET", f"/chat/stream/{begun.headers['x-response-id']}")]
    doors.append(("POST", f"{doors[0][1]}/cancel"))
    for step, status in ((("DELETE", conversation), 404), (("POST", f"{conversation}/restore"), 200)):
        assert (await server.call(*step)).status == 200
        assert [(await server.call(*door)).status for door in doors] == [status, status]


async def test_a_stream_of_text_is_read_again_from_its_start(server: Server) -> None:
    begun = await left(server, stream_format="text")
    answer = await server.get(f"/chat/stream/{begun.headers['x-response-id']}?stream_format=text")
    assert [event.data for event in read_events(answer.body)] == ["a", "\n", "c", "[DONE]"]


@pytest.mark.parametrize("value", ["", "-1", "x", "1.0", "٣", "9" * 400])
async def test_an_id_that_no_event_has_is_refused(server: Server, value: str) -> None:
    begun = await left(server)
    headers = [("last-event-id", value.encode().decode("latin-1"))]
    answer = await server.call("GET", f"/chat/stream/{begun.headers['x-response-id']}", headers=headers)
    assert (answer.status, answer.json()["errors"][0]["field"]) == (400, "Last-Event-ID")


async def test_a_format_that_is_none_is_refused(server: Server) -> None:
    answer = await server.get(f"/chat/stream/{new_id('resp')}?stream_format=json")
    assert (answer.status, answer.json()["errors"][0]["field"]) == (400, "stream_format")


@pytest.mark.parametrize("response_id", ["resp_unknown", "x", "%00", "..", "a" * 4000])
async def test_a_reply_that_is_not_there_is_not_found(server: Server, response_id: str) -> None:
    for answer in (
        await server.get(f"/chat/stream/{response_id}"),
        await server.call("POST", f"/chat/stream/{response_id}/cancel"),
    ):
        assert (answer.status, answer.json()["code"]) == (404, "not_found")


async def test_a_cancelled_stream_is_told_in_the_shape_of_chat(server: Server) -> None:
    begun = await left(server, gate=asyncio.Event())
    response_id = begun.headers["x-response-id"]
    answer = await server.call("POST", f"/chat/stream/{response_id}/cancel")
    assert answer.status == 200
    reply: Mapping[str, object] = answer.json()
    assert (reply["text"], reply["finish_reason"], reply["response_id"]) == ("a\r", "cancelled", response_id)
    assert reply.keys() == (await server.post("/chat", {"message": "Hi"})).json().keys()
    await server.bench.check_books()
    events = read_events((await server.get(f"/chat/stream/{response_id}")).body)
    assert numbered(events) == [WHOLE[0], WHOLE[1], ("3", "reply.completed")]
    assert json.loads(events[-1].data) == reply
    assert (await server.call("POST", f"/chat/stream/{response_id}/cancel")).json() == reply
