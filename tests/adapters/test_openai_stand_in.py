"""The stand-in provider keeps the provider's contract, as the real SDK and a plain socket see it."""

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from tests.servers.openai import Fault, OpenAIStandIn, Reply

MODEL = "gpt-4o"
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(20)).decode()
REPLY_KEYS = {
    *(
        "id",
        "object",
        "created_at",
        "completed_at",
        "status",
        "error",
        "incomplete_details",
        "model",
        "output",
        "usage",
    ),
    *("conversation", "previous_response_id", "instructions", "metadata", "service_tier", "store", "background"),
    *("max_output_tokens", "reasoning", "text", "temperature", "top_p", "truncation", "tools", "tool_choice"),
    *("parallel_tool_calls", "prompt_cache_key", "safety_identifier"),
}


@pytest.fixture
def provider() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn(api_key="sk-test", expects_malformed=True) as running:
        yield running


@pytest.fixture
async def client(provider: OpenAIStandIn) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=provider.base_url, api_key="sk-test", max_retries=0) as connected:
        yield connected


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the stand-in lives in another thread
            await asyncio.sleep(0.005)


async def events_of(client: openai.AsyncOpenAI, **request: Any) -> list[ResponseStreamEvent]:
    async with await client.responses.create(model=MODEL, input="hello", stream=True, **request) as stream:
        return [event async for event in stream]


def text_in(events: list[ResponseStreamEvent]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def post(provider: OpenAIStandIn, path: str, body: object) -> bytes:
    """The whole answer to one POST, chunk framing included."""
    content = json.dumps(body).encode()
    with open_post(provider, path, content) as connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def open_post(provider: OpenAIStandIn, path: str, content: bytes) -> socket.socket:
    port = int(provider.base_url.split(":")[2].split("/")[0])
    connection = socket.create_connection(("127.0.0.1", port), timeout=20)
    head = f"POST /v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-test\r\nConnection: close\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


def chunks_in(answer: bytes) -> list[bytes]:
    """The chunks of a chunked answer, one for each write of the server."""
    rest, chunks = answer.partition(b"\r\n\r\n")[2], []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return chunks[:-1]


# Keys, headers and ids


@pytest.mark.parametrize("authorization", ["Bearer sk-wrong", ""])
async def test_a_wrong_or_missing_key_is_401(client: openai.AsyncOpenAI, authorization: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refusal:
        await client.conversations.create(extra_headers={"Authorization": authorization})
    assert refusal.value.code == "invalid_api_key"
    assert refusal.value.response.headers["content-type"].startswith("application/json")
    assert refusal.value.request_id is not None


async def test_every_answer_has_a_request_id_and_responses_have_rate_limits(client: openai.AsyncOpenAI) -> None:
    answer = await client.responses.with_raw_response.create(model=MODEL, input="hello")
    stream = await client.responses.with_raw_response.create(model=MODEL, input="hello", stream=True)
    conversation = await client.conversations.with_raw_response.create()
    ids = [raw.headers["x-request-id"] for raw in (answer, stream, conversation)]
    assert len(set(ids)) == 3
    for raw in (answer, stream):
        for unit in ("requests", "tokens"):
            assert {f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset")} <= raw.headers.keys()
    await stream.http_response.aclose()


async def test_ids_are_unique_and_carry_their_prefix(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    provider.script(*[Reply(text="a", reasoning="hm")] * 2)
    made = [await client.responses.create(model=MODEL, input="hello") for _ in range(2)]
    conversation = await client.conversations.create()
    assert conversation.id.startswith("conv_")
    assert isinstance(conversation.created_at, int)
    ids = [name for response in made for name in (response.id, *(item.id for item in response.output))]
    assert [str(name).split("_")[0] for name in ids] == ["resp", "rs", "msg"] * 2
    assert len(set(ids)) == 6


# Conversations


async def test_the_eight_conversation_routes_answer_in_their_shapes(client: openai.AsyncOpenAI) -> None:
    made = await client.conversations.create(metadata={"a": "1"}, items=[{"role": "user", "content": "one"}])
    assert made.to_dict().keys() == {"id", "object", "created_at", "metadata"}
    assert (await client.conversations.retrieve(made.id)) == made
    updated = await client.conversations.update(made.id, metadata={"b": "2"})
    assert updated.metadata == {"b": "2"}
    added = await client.conversations.items.create(made.id, items=[{"role": "assistant", "content": "two"}])
    assert added.to_dict().keys() == {"object", "data", "first_id", "last_id", "has_more"}
    item = await client.conversations.items.retrieve(added.first_id, conversation_id=made.id)
    assert item.to_dict()["content"] == [{"type": "output_text", "text": "two", "annotations": [], "logprobs": []}]
    assert (await client.conversations.items.delete(added.first_id, conversation_id=made.id)).id == made.id
    listed = await client.conversations.items.list(made.id)
    assert [item.to_dict()["content"] for item in listed.data] == [[{"type": "input_text", "text": "one"}]]
    deleted = await client.conversations.delete(made.id)
    assert deleted.to_dict() == {"id": made.id, "object": "conversation.deleted", "deleted": True}


async def test_conversations_cannot_be_listed(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refusal:
        await client.get("/conversations", cast_to=object)
    assert refusal.value.status_code == 405


async def test_a_deleted_conversation_is_404_everywhere_and_leaves_its_items(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    gone = await client.conversations.create(items=[{"role": "user", "content": "hi"}])
    await client.conversations.delete(gone.id)
    for use in (
        client.conversations.delete(gone.id),
        client.conversations.retrieve(gone.id),
        client.conversations.items.create(gone.id, items=[{"role": "user", "content": "hi"}]),
        client.responses.create(model=MODEL, input="hello", conversation=gone.id),
    ):
        with pytest.raises(openai.NotFoundError, match=f"Conversation with id '{gone.id}' not found") as refusal:
            await use
        assert (refusal.value.code, refusal.value.param) == (None, None)
    assert provider.conversations == {}
    assert len(provider.orphaned_items[gone.id]) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"items": [{"role": "user", "content": "hi"}] * 21}, "items"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata.k"),
        ({"metadata": {"k": 1}}, "metadata.k"),
    ],
)
async def test_limits_of_a_conversation_are_400_with_the_parameter(
    client: openai.AsyncOpenAI, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.conversations.create(**body)
    assert refusal.value.param == param


async def test_items_are_listed_newest_first_in_pages(client: openai.AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    empty = await client.conversations.items.list(conversation.id)
    assert (empty.data, empty.has_more) == ([], False)
    for start in (0, 15):
        items = [{"role": "user", "content": str(n)} for n in range(start, start + 15)]
        await client.conversations.items.create(conversation.id, items=items)  # type: ignore[arg-type]  # plain dicts
    page = await client.conversations.items.list(conversation.id)
    assert (len(page.data), page.has_more, page.last_id) == (20, True, page.data[-1].id)
    newest_first = [item.to_dict()["content"][0]["text"] async for item in page]  # type: ignore[index]  # a plain dict
    assert newest_first == [str(n) for n in reversed(range(30))]
    oldest = await client.conversations.items.list(conversation.id, order="asc", limit=1)
    assert oldest.data[0].to_dict()["content"] == [{"type": "input_text", "text": "0"}]
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.conversations.items.list(conversation.id, limit=101)
    assert (refusal.value.code, refusal.value.param) == ("integer_above_max_value", "limit")


async def test_the_url_of_an_image_is_shown_only_when_asked_for(client: openai.AsyncOpenAI) -> None:
    url = f"data:image/png;base64,{PNG}"
    image: Any = {"role": "user", "content": [{"type": "input_image", "detail": "auto", "image_url": url}]}
    conversation = await client.conversations.create(items=[image])
    plain = await client.conversations.items.list(conversation.id)
    full = await client.conversations.items.list(conversation.id, include=["message.input_image.image_url"])
    assert "image_url" not in plain.data[0].to_dict()["content"][0]  # type: ignore[index]  # a plain dict
    assert full.data[0].to_dict()["content"][0]["image_url"] == url  # type: ignore[index]  # a plain dict


# Responses


async def test_a_reply_and_its_tokens_depend_on_earlier_turns(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    conversation = await client.conversations.create()
    turns = [await client.responses.create(model=MODEL, input="hi", conversation=conversation.id) for _ in range(3)]
    assert [turn.output_text for turn in turns] == ["[0] You said: hi", "[2] You said: hi", "[4] You said: hi"]
    tokens = [bill.usage.input_tokens for bill in provider.bills]
    assert tokens == [5, 18, 31]  # 4 + 1 for the user, 4 + 4 for the model
    assert [bill.conversation_id for bill in provider.bills] == [conversation.id] * 3
    roles = [item["role"] for item in provider.conversations[conversation.id]]
    assert roles == ["user", "assistant"] * 3


async def test_a_chain_of_responses_carries_its_history_without_a_conversation(client: openai.AsyncOpenAI) -> None:
    first = await client.responses.create(model=MODEL, input="hi")
    second = await client.responses.create(model=MODEL, input="hi", previous_response_id=first.id)
    third = await client.responses.create(model=MODEL, input="hi", previous_response_id=second.id)
    assert third.output_text == "[4] You said: hi"
    read = await client.responses.input_items.list(third.id, order="asc")
    assert [item.to_dict()["role"] for item in read.data] == ["user", "assistant"] * 2 + ["user"]


async def test_a_response_without_success_leaves_the_conversation_as_it_was(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    conversation = await client.conversations.create()
    for end in ("failed:server_error", "error_flat:server_error", "silent"):
        provider.script(Reply(text="one two", end=end))
        await events_of(client, conversation=conversation.id)
    assert provider.conversations[conversation.id] == ()
    assert provider.bills == []
    await client.responses.create(model=MODEL, input="hi", conversation=conversation.id)
    assert len(provider.conversations[conversation.id]) == 2


async def test_items_appear_only_after_the_end_and_the_second_response_is_refused_meanwhile(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    gate = threading.Event()
    conversation = await client.conversations.create()
    provider.script(Reply(text="one two", gate=gate))
    async with await client.responses.create(
        model=MODEL, input="hi", conversation={"id": conversation.id}, stream=True
    ) as stream:
        async for event in stream:
            if event.type == "response.output_text.delta" and not gate.is_set():
                assert provider.conversations[conversation.id] == ()
                with pytest.raises(openai.BadRequestError) as refusal:
                    await client.responses.create(model=MODEL, input="hi", conversation=conversation.id)
                assert (refusal.value.code, refusal.value.param) == ("conversation_locked", "conversation")
                gate.set()
    assert len(provider.conversations[conversation.id]) == 2
    after = await client.responses.create(model=MODEL, input="hi", conversation=conversation.id)
    assert after.output_text == "[2] You said: hi"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"conversation": "conv_1", "previous_response_id": "resp_1"}, "mutually_exclusive_parameters", None),
        ({"previous_response_id": "resp_1"}, "previous_response_not_found", "previous_response_id"),
        ({"extra_body": {"modle": "x"}}, "unknown_parameter", "modle"),
        ({"stream_options": {"include_usage": True}}, "unknown_parameter", "stream_options.include_usage"),
        ({"max_output_tokens": 15}, "integer_below_min_value", "max_output_tokens"),
        ({"model": "gpt-5.4-mini", "temperature": 1.0}, None, "temperature"),
        ({"model": "o4-mini", "top_logprobs": 1}, "unsupported_parameter", "top_logprobs"),
        ({"input": [{"role": "user"}]}, "missing_required_parameter", "input[0].content"),
        ({"input": [{"role": "king", "content": "hi"}]}, "invalid_value", "input[0].role"),
        (
            {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "hi"}]}]},
            "invalid_value",
            "input[0].content[0].type",
        ),
    ],
)
async def test_a_wrong_request_is_400_and_takes_no_scripted_step(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI, body: dict[str, Any], code: str | None, param: str | None
) -> None:
    provider.script(Reply(text="kept"))
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.responses.create(**{"model": MODEL, "input": "hi", **body})
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert (await client.responses.create(model=MODEL, input="hi")).output_text == "kept"


async def test_a_response_object_is_whole_and_its_usage_adds_up(client: openai.AsyncOpenAI) -> None:
    raw = await client.responses.with_raw_response.create(model=MODEL, input="hi", service_tier="flex")
    response = json.loads(raw.content)
    assert response.keys() >= REPLY_KEYS
    assert "output_text" not in response
    assert (response["model"], response["service_tier"]) == ("gpt-4o-2024-08-06", "flex")
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens_details"].keys() == {"cached_tokens", "cache_write_tokens"}
    assert usage["output_tokens_details"].keys() == {"reasoning_tokens"}


async def test_a_long_prefix_is_cached_from_the_second_turn_on(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    conversation = await client.conversations.create()
    for _ in range(2):
        await client.responses.create(model=MODEL, input="long " * 1000, conversation=conversation.id)
    first, second = [bill.usage for bill in provider.bills]
    assert first.cached_tokens == 0
    assert 1024 <= second.cached_tokens <= second.input_tokens
    assert second.cached_tokens % 128 == 0


async def test_scripted_usage_replaces_what_was_counted(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    provider.script(Reply(text="hi", usage={"cache_write_tokens": 3}, service_tier="priority"))
    response = await client.responses.create(model=MODEL, input="hi")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.input_tokens_details.cache_write_tokens) == (5, 3)
    assert (provider.bills[0].usage.cache_write_tokens, provider.bills[0].service_tier) == (3, "priority")
    assert response.service_tier == "priority"


async def test_max_output_tokens_cuts_a_longer_answer(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    provider.script(Reply(text="word " * 100))
    response = await client.responses.create(model=MODEL, input="hi", max_output_tokens=16)
    assert response.status == "incomplete"
    assert len(response.output_text) == 64
    assert provider.bills[0].usage.output_tokens == 16


# Streams


async def test_the_bytes_of_a_stream_are_the_provider_s(provider: OpenAIStandIn) -> None:
    provider.script(Reply(deltas=("Tee ", "für zwei")))
    answer = await asyncio.to_thread(post, provider, "/responses", {"model": MODEL, "input": "hi", "stream": True})
    assert b"Content-Type: text/event-stream" in answer
    frames = chunks_in(answer)
    events = []
    for frame in frames:
        name, data, *rest = frame.decode().split("\n")
        assert (name[:7], data[:6], rest) == ("event: ", "data: ", ["", ""])
        events.append(json.loads(data[6:]))
        assert events[-1]["type"] == name[7:]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [event["type"].removeprefix("response.") for event in events] == [
        *("created", "in_progress", "output_item.added", "content_part.added", "output_text.delta"),
        *("output_text.delta", "output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    assert all(delta["logprobs"] == [] and delta["obfuscation"] for delta in deltas)
    text = "".join(delta["delta"] for delta in deltas)
    item = events[-2]["item"]
    assert text == "Tee für zwei" == events[6]["text"] == events[7]["part"]["text"] == item["content"][0]["text"]
    assert events[-1]["response"]["output"] == [item]
    assert b"[DONE]" not in answer


async def test_obfuscation_can_be_left_out(client: openai.AsyncOpenAI) -> None:
    events = await events_of(client, stream_options={"include_obfuscation": False})
    assert not [event for event in events if "obfuscation" in event.to_dict()]


async def test_a_stream_can_be_cut_inside_lines_and_characters(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    provider.script(*[Reply(deltas=("Grüße ", "🙂🙂"), split="bytes")] * 2)
    assert text_in(await events_of(client)) == "Grüße 🙂🙂"
    answer = await asyncio.to_thread(post, provider, "/responses", {"model": MODEL, "input": "hi", "stream": True})
    pieces = chunks_in(answer)
    assert any(after[0] & 0xC0 == 0x80 for _, after in pairwise(pieces))
    assert b"\n" in pieces
    assert b"ev" in pieces


async def test_deltas_come_one_by_one_with_a_pause(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    provider.script(Reply(deltas=("a", "b", "c"), created_pause_s=0.05, first_delta_pause_s=0.05, pause_s=0.05))
    began = time.monotonic()
    assert text_in(await events_of(client)) == "abc"
    assert time.monotonic() - began > 0.19


async def test_reasoning_is_an_item_before_the_message(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    provider.script(*[Reply(text="yes", reasoning="let me think")] * 2)
    events = await events_of(client, reasoning={"summary": "auto"})
    completed = events[-1]
    assert completed.type == "response.completed"
    assert [item.type for item in completed.response.output] == ["reasoning", "message"]
    assert completed.response.usage is not None
    assert completed.response.usage.output_tokens_details.reasoning_tokens == 3
    assert "response.reasoning_summary_text.delta" in {event.type for event in events}
    message = next(event for event in events if event.type == "response.output_text.delta")
    assert message.output_index == 1
    assert (await client.responses.create(model=MODEL, input="hi")).output_text == "yes"


async def test_a_refusal_is_a_part_of_its_own(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    provider.script(Reply(refusal="I will not."))
    events = await events_of(client)
    assert "".join(event.delta for event in events if event.type == "response.refusal.delta") == "I will not."
    completed = events[-1]
    assert completed.type == "response.completed"
    assert completed.response.output_text == ""


@pytest.mark.parametrize("reason", ["max_output_tokens", "content_filter"])
async def test_an_incomplete_response_keeps_its_part_and_is_billed(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI, reason: str
) -> None:
    provider.script(Reply(text="one two three", end=f"incomplete:{reason}", end_after=2))
    last = (await events_of(client))[-1]
    assert last.type == "response.incomplete"
    assert last.response.incomplete_details is not None
    assert (last.response.incomplete_details.reason, last.response.output_text) == (reason, "one two ")
    assert [bill.status for bill in provider.bills] == ["incomplete"]


async def test_failures_in_a_stream_come_in_their_three_shapes(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    provider.script(*[Reply(end=f"{shape}:server_error") for shape in ("failed", "error_flat", "error_nested")])
    failed = (await events_of(client))[-1]
    assert failed.type == "response.failed"
    assert failed.response.error is not None
    assert (failed.response.error.code, failed.response.usage) == ("server_error", None)
    flat = (await events_of(client))[-1]
    assert flat.type == "error"
    assert flat.code == "server_error"
    with pytest.raises(openai.APIError) as nested:
        await events_of(client)
    assert (nested.value.code, provider.bills) == ("server_error", [])


async def test_a_failed_response_is_billed_only_with_scripted_usage(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    provider.script(Reply(text="one", end="failed:server_error", usage={"output_tokens": 7}))
    response = await client.responses.create(model=MODEL, input="hi")
    assert response.status == "failed"
    assert [(bill.status, bill.usage.output_tokens) for bill in provider.bills] == [("failed", 7)]


async def test_a_silent_end_has_no_last_event(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    provider.script(Reply(text="one two", end="silent", end_after=1))
    events = await events_of(client)
    assert events[-1].type == "response.output_text.delta"
    assert text_in(events) == "one "


@pytest.mark.parametrize("completes", [False, True])
async def test_a_cut_stream_raises_and_retrieve_tells_how_it_ended(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI, completes: bool
) -> None:
    provider.script(Reply(text="one two", end="cut", end_after=1, cut_completes=completes))
    events: list[ResponseStreamEvent] = []

    async def read() -> None:
        async with await client.responses.create(model=MODEL, input="hi", stream=True) as stream:
            async for event in stream:
                events.append(event)  # noqa: PERF401 - the events before the cut are wanted

    with pytest.raises(openai.APIConnectionError):
        await read()
    assert text_in(events) == "one "
    kept = await client.responses.retrieve(started(events))
    assert kept.status == ("completed" if completes else "failed")
    assert (kept.usage is not None) == completes == bool(provider.bills)
    assert not completes or kept.output_text == "one two"
    assert provider.disconnects == []


def started(events: list[ResponseStreamEvent]) -> str:
    assert events[0].type == "response.created"
    return events[0].response.id


# Disconnects


async def leave_in_the_middle(client: openai.AsyncOpenAI, conversation_id: str) -> str:
    async with await client.responses.create(
        model=MODEL, input="hi", conversation=conversation_id, stream=True
    ) as stream:
        events: list[ResponseStreamEvent] = []
        async for event in stream:
            events.append(event)
            if event.type == "response.output_text.delta":
                break
    return started(events)


async def test_a_client_that_leaves_ends_its_response(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    conversation = await client.conversations.create()
    provider.script(Reply(text="one two", end="stall"))
    response_id = await leave_in_the_middle(client, conversation.id)
    await until(lambda: provider.disconnects == [response_id])
    kept = await client.responses.retrieve(response_id)
    assert (kept.status, kept.usage, provider.bills) == ("cancelled", None, [])
    assert provider.conversations[conversation.id] == ()
    next_turn = await client.responses.create(model=MODEL, input="hi", conversation=conversation.id)
    assert next_turn.status == "completed"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_gives_up_waiting_ends_its_response(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI, stream: bool
) -> None:
    conversation = await client.conversations.create()
    provider.script(Reply(created_pause_s=3600))

    async def ask() -> None:
        answer = await client.responses.create(model=MODEL, input="hi", conversation=conversation.id, stream=stream)
        assert isinstance(answer, openai.AsyncStream)
        async with answer:
            await anext(aiter(answer))

    asking = asyncio.create_task(ask())
    await until(lambda: len(provider.requests) == 2)
    asking.cancel()
    await asyncio.wait([asking])
    await until(lambda: len(provider.disconnects) == 1)
    assert (await client.responses.retrieve(provider.disconnects[0])).status == "cancelled"
    assert (await client.responses.create(model=MODEL, input="hi", conversation=conversation.id)).status == "completed"


async def test_a_response_can_finish_after_its_client_left(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    gate = threading.Event()
    provider.finish_after_disconnect = True
    provider.script(Reply(text="one two", gate=gate))
    conversation = await client.conversations.create()
    response_id = await leave_in_the_middle(client, conversation.id)
    await until(lambda: provider.disconnects == [response_id])
    gate.set()
    await until(lambda: bool(provider.bills))
    kept = await client.responses.retrieve(response_id)
    assert (kept.status, kept.output_text) == ("completed", "one two")
    assert kept.usage is not None
    assert provider.conversations[conversation.id] == ()


async def test_the_stop_is_prompt_with_open_streams(client: openai.AsyncOpenAI) -> None:
    with OpenAIStandIn() as provider:
        provider.script(Reply(end="stall"), Reply(gate=threading.Event()), Fault.stall())
        body = json.dumps({"model": MODEL, "input": "hi", "stream": True}).encode()
        connections = [open_post(provider, "/responses", body) for _ in range(3)]
        await until(lambda: len(provider.requests) == 3)
    for connection in connections:  # the stop has ended them all, else this would wait
        with connection:
            assert b"response.completed" not in b"".join(iter(lambda c=connection: c.recv(65536), b""))  # type: ignore[misc]  # a default argument
    assert provider.disconnects == []


# Faults before the stream


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (Fault.http(400, "context_length_exceeded"), openai.BadRequestError, "context_length_exceeded"),
        (Fault.http(401), openai.AuthenticationError, "invalid_api_key"),
        (Fault.http(404), openai.NotFoundError, "model_not_found"),
        (Fault.http(408), openai.APIStatusError, None),
        (Fault.http(409), openai.ConflictError, None),
        (Fault.http(429), openai.RateLimitError, "rate_limit_exceeded"),
        (Fault.insufficient_quota(), openai.RateLimitError, "insufficient_quota"),
        (Fault.http(500), openai.InternalServerError, None),
        (Fault.http(503), openai.InternalServerError, None),
        (Fault.html(502), openai.InternalServerError, None),
    ],
)
async def test_a_scripted_fault_comes_before_the_answer(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI, fault: Fault, kind: type[openai.APIStatusError], code: str
) -> None:
    provider.script(fault)
    with pytest.raises(kind) as refusal:
        await client.responses.create(model=MODEL, input="hi")
    assert refusal.value.code == code
    assert refusal.value.request_id is not None
    assert (await client.responses.create(model=MODEL, input="hi")).status == "completed"
    assert len(provider.bills) == 1


async def test_bodies_that_are_no_answer_break_the_sdk_in_their_own_ways(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    provider.script(Fault.html(200), Fault.broken_json(), Fault.cut(), Fault.stall())
    page: object = await client.responses.create(model=MODEL, input="hi")
    assert isinstance(page, str)
    with pytest.raises(json.JSONDecodeError):
        await client.responses.create(model=MODEL, input="hi")
    with pytest.raises(openai.APIConnectionError):
        await client.responses.create(model=MODEL, input="hi")
    with pytest.raises(openai.APITimeoutError):
        await client.responses.create(model=MODEL, input="hi", timeout=0.3)


async def test_the_sdk_s_retries_can_be_counted(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    provider.script(Fault.http(429, retry_after_s=0.001), Fault.http(400, should_retry=True, retry_after_s=0.001))
    response = await client.with_options(max_retries=2).responses.create(model=MODEL, input="hi")
    assert response.status == "completed"
    assert [request.retry_count for request in provider.requests] == [0, 1, 2]
    assert [request.body["input"] for request in provider.requests] == ["hi"] * 3
    provider.script(Fault.http(503, should_retry=False))
    with pytest.raises(openai.InternalServerError):
        await client.with_options(max_retries=2).responses.create(model=MODEL, input="hi")
    assert len(provider.requests) == 4


async def test_other_routes_fail_when_told_to(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    provider.script_route("GET /conversations/{conversation_id}", Fault.http(429, retry_after_s=2))
    conversation = await client.conversations.create()
    with pytest.raises(openai.RateLimitError) as refusal:
        await client.conversations.retrieve(conversation.id)
    assert refusal.value.response.headers["retry-after"] == "2"
    assert (await client.conversations.retrieve(conversation.id)).id == conversation.id


# Stored and background responses


async def test_a_stored_response_can_be_retrieved_until_it_is_deleted(client: openai.AsyncOpenAI) -> None:
    kept = await client.responses.create(model=MODEL, input="hi")
    unkept = await client.responses.create(model=MODEL, input="hi", store=False)
    assert (await client.responses.retrieve(kept.id)).output_text == kept.output_text
    await client.responses.delete(kept.id)
    for gone in (kept, unkept):
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(gone.id)
    replayed: Any = [item.to_dict() for item in unkept.output]
    with pytest.raises(openai.NotFoundError, match="Item with id"):
        await client.responses.create(model=MODEL, input=replayed)


async def test_an_unstored_response_still_adds_to_its_conversation(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    conversation = await client.conversations.create()
    await client.responses.create(model=MODEL, input="hi", conversation=conversation.id, store=False)
    assert len(provider.conversations[conversation.id]) == 2


async def test_a_background_response_is_polled_to_its_end(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    gate = threading.Event()
    provider.script(Reply(text="one two", gate=gate))
    queued = await client.responses.create(model=MODEL, input="hi", background=True)
    seen = [queued.status]

    async def poll_until(*last: str) -> Response:
        while True:
            polled = await client.responses.retrieve(queued.id)
            if polled.status != seen[-1]:
                seen.append(polled.status)
            if polled.status in last:
                return polled

    await poll_until("in_progress")
    gate.set()
    done = await poll_until("completed")
    assert seen == ["queued", "in_progress", "completed"]
    assert done.output_text == "one two"


async def test_a_background_response_can_be_cancelled_twice(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    provider.script(Reply(end="stall"))
    running = await client.responses.create(model=MODEL, input="hi", background=True)
    statuses = [(await client.responses.cancel(running.id)).status for _ in range(2)]
    assert statuses == ["cancelled", "cancelled"]
    finished = await client.responses.create(model=MODEL, input="hi")
    with pytest.raises(openai.BadRequestError):
        await client.responses.cancel(finished.id)


async def test_a_background_stream_resumes_with_the_same_numbers(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    gate = threading.Event()
    provider.script(Reply(text="one two", gate=gate))
    first: list[ResponseStreamEvent] = []
    async with await client.responses.create(model=MODEL, input="hi", background=True, stream=True) as stream:
        async for event in stream:
            first.append(event)
            if event.type == "response.output_text.delta":
                break
    assert [event.type for event in first[:3]] == ["response.created", "response.queued", "response.in_progress"]
    gate.set()
    last = first[-1].sequence_number
    async with await client.responses.retrieve(started(first), stream=True, starting_after=last) as resumed:
        rest = [event async for event in resumed]
    numbers = [event.sequence_number for event in (*first, *rest)]
    assert numbers == list(range(len(numbers)))
    assert text_in([*first, *rest]) == "one two"


# Input


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,aGVsbG8="}, "image_url"),
        ({"type": "input_file", "filename": "a.pdf"}, "file_data"),
        ({"type": "input_file", "file_data": "data:application/pdf;base64,aGVsbG8="}, "filename"),
        ({"type": "input_file", "filename": "a.pdf", "file_data": "aGVsbG8="}, "file_data"),
    ],
)
async def test_images_and_files_are_judged_by_what_they_hold(
    client: openai.AsyncOpenAI, part: dict[str, Any], param: str
) -> None:
    message: Any = {"role": "user", "content": [part]}
    with pytest.raises(openai.BadRequestError) as refusal:
        await client.responses.create(model=MODEL, input=[message])
    assert refusal.value.param == f"input[0].content[0].{param}"


async def test_the_input_count_is_what_the_same_call_is_billed_for(client: openai.AsyncOpenAI) -> None:
    conversation = await client.conversations.create(items=[{"role": "user", "content": "earlier"}])
    parts = [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "detail": "auto", "image_url": f"data:image/jpg;base64,{PNG}"},
        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGVsbG8="},
    ]
    request: Any = {
        "model": MODEL,
        "instructions": "Be terse.",
        "conversation": conversation.id,
        "input": [{"role": "user", "content": parts}],
    }
    count = await client.responses.input_tokens.count(**request)
    response = await client.responses.create(**request)
    assert response.usage is not None
    assert count.input_tokens == response.usage.input_tokens == (4 + 3) + (4 + 2) + (4 + 4 + 85 + 2)


# Chat Completions


async def test_a_chat_completion_counts_and_bills_like_a_response(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    response = await client.responses.create(model=MODEL, instructions="Be terse.", input="hi", store=False)
    completion = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "system", "content": "Be terse."}, {"role": "user", "content": "hi"}]
    )
    assert completion.choices[0].message.content == "[1] You said: hi"
    assert completion.choices[0].finish_reason == "stop"
    assert response.usage is not None
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == response.usage.input_tokens
    assert provider.bills[1].usage == provider.bills[0].usage


async def test_a_chat_stream_ends_with_usage_and_done(provider: OpenAIStandIn, client: openai.AsyncOpenAI) -> None:
    provider.script(*[Reply(text="one two")] * 2)
    body: Any = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hi"}],
        "stream_options": {"include_usage": True},
    }
    async with await client.chat.completions.create(**body, stream=True) as stream:
        chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two"
    assert (chunks[-1].choices, chunks[-1].usage.completion_tokens) == ([], 2)
    assert chunks[-2].choices[0].finish_reason == "stop"
    answer = await asyncio.to_thread(post, provider, "/chat/completions", {**body, "stream": True})
    assert chunks_in(answer)[-1] == b"data: [DONE]\n\n"


async def test_a_chat_stream_can_stop_short_fail_or_lose_its_client(
    provider: OpenAIStandIn, client: openai.AsyncOpenAI
) -> None:
    provider.script(Reply(text="w " * 99), Reply(end="failed:server_error"), Reply(end="stall"))
    body: Any = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with await client.chat.completions.create(**body, max_completion_tokens=2) as stream:
        chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices[0].finish_reason == "length"
    with pytest.raises(openai.APIError):
        async with await client.chat.completions.create(**body) as stream:
            chunks = [chunk async for chunk in stream]
    async with await client.chat.completions.create(**body) as stream:
        first = await anext(aiter(stream))
    await until(lambda: provider.disconnects == [first.id])
    assert [bill.usage.output_tokens for bill in provider.bills] == [2]
