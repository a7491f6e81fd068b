"""`store_messages: false` over HTTP: replies that break off, before a stand-in for OpenAI that keeps none of them."""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.contracts.model_fixtures import QUICK
from tests.http.conftest import JSON, Answer, Server, serving
from tests.servers.openai import Fault, OpenAIStandIn, Reply
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.audit import MemoryAudit
from textllm_adapters.openai.client import open_client
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_core import Route, Routes
from textllm_core.events import TurnNotKept

ADD = "POST /conversations/{conversation_id}/items"
WORDS = ("Once", " upon", " a time")


@pytest.fixture
def provider() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn() as provider:
        yield provider


@asynccontextmanager
async def asking(provider: OpenAIStandIn, folder: Path, **policy: Any) -> AsyncIterator[Server]:
    bench = Bench(policy=replace(POLICY, keep_messages=False, **policy))
    async with open_client("sk-test", provider.base_url) as client:
        llm, transcript = ResponsesLLM(client, QUICK), OpenAITranscript(client, QUICK)
        routes = Routes(named={}, providers={}, otherwise=Route(llm=llm, transcript=transcript))
        bench.textllm = bench.over(llm=llm, routes=routes, transcript=transcript)
        async with serving(bench, spool_dir=folder / "spool") as running:
            yield running


@pytest.fixture
async def server(provider: OpenAIStandIn, tmp_path: Path) -> AsyncIterator[Server]:
    async with asking(provider, tmp_path) as running:
        yield running


async def chat(server: Server, message: str, conversation_id: str | None = None) -> Answer:
    return await server.post("/chat", {"message": message, "user_id": "ada", "conversation_id": conversation_id})


async def left(server: Server, conversation_id: str) -> str:
    """The id of a reply whose client has left after its first word."""
    body = {"message": "Tell me.", "user_id": "ada", "conversation_id": conversation_id, "stream_format": "events"}
    answer = await server.call(
        "POST",
        "/chat/stream",
        [json.dumps(body).encode()],
        headers=JSON,
        leave_when=lambda answer: WORDS[0].encode() in answer.body,
    )
    return answer.headers["x-response-id"]


async def messages(server: Server, conversation_id: str) -> list[tuple[str, str, str]]:
    shown = (await server.get(f"/conversations/{conversation_id}/messages")).json()["data"]
    assert not any("finish_reason" in message for message in shown)
    return [(message["role"], message["text"], message["status"]) for message in shown]


async def check(server: Server, provider: OpenAIStandIn, conversation_id: str, *, reply: str) -> None:
    """The turn is there, once, counts, was charged once, and the next one knows it."""
    await server.bench.check_books()
    assert (await messages(server, conversation_id))[2:] == [
        ("user", "Tell me.", "completed"),
        ("assistant", reply, "completed"),
    ]
    assert (await server.get(f"/conversations/{conversation_id}")).json()["message_count"] == 2
    assert len(server.bench.store.entries) == 2
    again = (await chat(server, "And then?", conversation_id)).json()
    assert (again["text"], again["message_number"]) == ("[4] You said: And then?", 3)
    assert len(provider.conversations) == 1
    assert len(server.bench.store.entries) == 3
    await server.bench.check_books()
    assert [drift async for drift in MemoryAudit(server.bench.store).drifts()] == []
    assert not [event for event in server.bench.telemetry.events if isinstance(event, TurnNotKept)]


@pytest.mark.parametrize(
    ("end", "status"),
    [("cut", 502), ("silent", 502), ("failed:server_error", 503), ("error_nested:server_error", 503)],
)
async def test_a_turn_whose_reply_breaks_off_stays_in_its_conversation(
    server: Server, provider: OpenAIStandIn, end: str, status: int
) -> None:
    first = (await chat(server, "one")).json()["conversation_id"]
    provider.script(Reply(deltas=WORDS, end=end, end_after=2))
    broken = await chat(server, "Tell me.", first)
    assert broken.status == status
    await check(server, provider, first, reply="Once upon")


async def test_a_turn_whose_model_falls_silent_stays_in_its_conversation(
    provider: OpenAIStandIn, tmp_path: Path
) -> None:
    async with asking(provider, tmp_path, silence_timeout_s=0.2) as server:
        provider.script(Reply(deltas=("Once",), end="stall"))
        assert (await chat(server, "Tell me.")).status == 504
        await server.bench.check_books()
        [listed] = (await server.get("/conversations?user_id=ada")).json()["data"]
        assert [text for _, text, _ in await messages(server, listed["id"])] == ["Tell me.", "Once"]
        assert (listed["title"], listed["message_count"]) == ("Tell me.", 1)


async def test_a_reply_that_the_provider_says_is_whole_stays_as_a_whole(
    server: Server, provider: OpenAIStandIn
) -> None:
    first = (await chat(server, "one")).json()["conversation_id"]
    provider.script(Reply(deltas=WORDS, end="cut", end_after=1, cut_completes=True))
    assert (await chat(server, "Tell me.", first)).status == 502
    await check(server, provider, first, reply="Once upon a time")


async def test_a_reply_that_is_cancelled_stays_as_far_as_it_came(server: Server, provider: OpenAIStandIn) -> None:
    first = (await chat(server, "one")).json()["conversation_id"]
    provider.script(Reply(deltas=WORDS, gate=threading.Event()))
    response_id = await left(server, first)
    cancelled = (await server.call("POST", f"/chat/stream/{response_id}/cancel")).json()
    assert (cancelled["text"], cancelled["finish_reason"], cancelled["message_number"]) == ("Once", "cancelled", 2)
    await check(server, provider, first, reply="Once")


async def test_a_reply_that_a_shutdown_cuts_short_stays_as_far_as_it_came(
    server: Server, provider: OpenAIStandIn
) -> None:
    first = (await chat(server, "one")).json()["conversation_id"]
    provider.script(Reply(deltas=WORDS, gate=threading.Event()))
    await left(server, first)
    await server.bench.running.drain(0)
    await check(server, provider, first, reply="Once")


async def test_a_turn_of_a_conversation_that_has_just_begun_stays(server: Server, provider: OpenAIStandIn) -> None:
    provider.script(Reply(deltas=WORDS, end="cut", end_after=1))
    assert (await chat(server, "Tell me.")).status == 502
    [listed] = (await server.get("/conversations?user_id=ada")).json()["data"]
    assert (listed["title"], listed["message_count"]) == ("Tell me.", 1)
    assert await messages(server, listed["id"]) == [
        ("user", "Tell me.", "completed"),
        ("assistant", "Once", "completed"),
    ]
    await server.bench.check_books()


@pytest.mark.parametrize("fault", [Fault.http(403), Fault.http(500), Fault.cut()])
async def test_where_the_provider_takes_no_additions_the_turn_is_charged_and_the_conversation_goes_on(
    server: Server, provider: OpenAIStandIn, fault: Fault
) -> None:
    first = (await chat(server, "one")).json()["conversation_id"]
    provider.script(Reply(deltas=WORDS, end="cut", end_after=1))
    provider.script_route(ADD, fault)
    assert (await chat(server, "Tell me.", first)).status == 502
    assert len(await messages(server, first)) == 2
    assert (await server.get(f"/conversations/{first}")).json()["message_count"] == 1
    [event] = [event for event in server.bench.telemetry.events if isinstance(event, TurnNotKept)]
    assert event.transcript_id in provider.conversations
    assert (await chat(server, "two", first)).json()["text"] == "[2] You said: two"
    costs = [entry.cost for entry in server.bench.store.entries.values()]
    assert len(costs) == 3
    assert all(costs)
    await server.bench.check_books()


async def test_what_is_added_costs_nothing(server: Server, provider: OpenAIStandIn) -> None:
    first = (await chat(server, "one")).json()["conversation_id"]
    provider.script(Reply(deltas=WORDS, end="cut", end_after=1, cut_completes=True))
    await chat(server, "Tell me.", first)
    await server.bench.check_books()
    entries = sorted(server.bench.store.entries.values(), key=lambda entry: entry.created_at)
    billed = [(bill.usage.input_tokens, bill.usage.output_tokens) for bill in provider.bills]
    assert [(entry.usage.input_tokens, entry.usage.output_tokens) for entry in entries] == billed
    assert sum(request.path == "/v1/responses" for request in provider.requests) == 2
