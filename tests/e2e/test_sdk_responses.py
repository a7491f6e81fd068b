"""OpenAI's own SDK for Python asks `/v1/responses` and `/v1/conversations` over a socket, and finds what it knows."""

import asyncio
import base64
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import FunctionToolParam, Response, ResponseInputItemParam, ResponseOutputMessage
from pydantic import BaseModel
from tests.e2e.conftest import Books, Service, check, price_of, serving
from tests.image_files import png
from tests.openai import described
from tests.servers.openai import OpenAIStandIn, Reply

from textllm_core.ids import new_id

WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city now.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class River(BaseModel):
    name: str
    length_km: int


async def check_later(response: httpx2.Response) -> None:
    """The same of the asynchronous client."""
    if response.headers.get("content-type") == "application/json":
        await response.aread()
        described.check(response.request.method, response.request.url.path, response.status_code, response.json())


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    http = openai.DefaultHttpx2Client(event_hooks={"response": [check]})
    with OpenAI(base_url=f"{service.url}/v1", api_key="tllm_none_is_asked_for", http_client=http) as client:
        yield client


@pytest.fixture
async def later(service: Service) -> AsyncIterator[AsyncOpenAI]:
    http = openai.DefaultAsyncHttpx2Client(event_hooks={"response": [check_later]})
    async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none", http_client=http) as client:
        yield client


@pytest.fixture
def user() -> str:
    return new_id("user")


def kinds(events: list[Any]) -> list[str]:
    for event in events:
        described.check_event(event.to_dict())
    return [event.type for event in events]


async def test_a_chain_of_responses_is_charged_as_the_provider_bills(
    client: OpenAI, later: AsyncOpenAI, provider: OpenAIStandIn, books: Books, user: str
) -> None:
    before = len(provider.bills)
    first = client.responses.create(model="gpt-4o", input="one", user=user)
    second = await later.responses.create(model="gpt-4o", input="two", previous_response_id=first.id, user=user)
    fork = client.responses.create(model="gpt-4o", input="three", previous_response_id=first.id, user=user)
    assert [each.output_text for each in (first, second, fork)] == [
        "[0] You said: one",
        "[2] You said: two",
        "[2] You said: three",
    ]
    again = await later.responses.retrieve(second.id)
    assert (again.output, again.usage, again.previous_response_id) == (second.output, second.usage, first.id)
    assert [item.type for item in client.responses.input_items.list(second.id)] == ["message"]
    entries = await books.entries(user)
    assert [entry.cost for entry in entries] == [price_of(bill) for bill in provider.bills[before:]]
    assert [entry.response_id for entry in entries] == [first.id, second.id, fork.id]
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


async def test_the_helper_of_streams_follows_each_event(
    client: OpenAI, later: AsyncOpenAI, provider: OpenAIStandIn, user: str
) -> None:
    provider.script(Reply(deltas=("Hel", "lo", "!")))
    with client.responses.stream(model="gpt-4o", input="Hello", user=user) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == "Hello!"
    assert [event.delta for event in events if event.type == "response.output_text.delta"] == ["Hel", "lo", "!"]
    plain = [event async for event in await later.responses.retrieve(final.id, stream=True)]
    rest = [event async for event in await later.responses.retrieve(final.id, stream=True, starting_after=4)]
    assert kinds(plain)[0] == "response.created"
    assert [event.to_dict() for event in plain][5:] == [event.to_dict() for event in rest]
    assert [event.sequence_number for event in rest] == list(range(5, len(plain)))


def test_a_reply_is_parsed(client: OpenAI, provider: OpenAIStandIn, user: str) -> None:
    provider.script(Reply(text='{"name": "Nile", "length_km": 6650}'))
    parsed = client.responses.parse(model="gpt-4o", input="Name a river.", text_format=River, user=user)
    assert parsed.output_parsed == River(name="Nile", length_km=6650)


def test_a_refusal_is_seen_where_a_reply_is_parsed(client: OpenAI, provider: OpenAIStandIn, user: str) -> None:
    provider.script(Reply(refusal="I will not."), Reply(refusal="I will not."))
    parsed = client.responses.parse(model="gpt-4o", input="Name a river.", text_format=River, user=user)
    with client.responses.stream(model="gpt-4o", input="Name a river.", text_format=River, user=user) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert "".join(event.delta for event in events if event.type == "response.refusal.delta") == "I will not."
    assert [event.refusal for event in events if event.type == "response.refusal.done"] == ["I will not."]
    for response in (parsed, final, client.responses.retrieve(final.id)):
        (message,) = response.output
        assert isinstance(message, ResponseOutputMessage)
        assert [part.to_dict() for part in message.content] == [{"type": "refusal", "refusal": "I will not."}]
    assert (parsed.output_parsed, final.output_parsed) == (None, None)


def called(response: Response) -> list[Any]:
    return [item for item in response.output if item.type == "function_call"]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_loop_of_tools_ends_in_words(client: OpenAI, provider: OpenAIStandIn, user: str, keeps: bool) -> None:
    provider.script(Reply(text="", calls=(("weather", '{"city": "Oslo"}'),)), Reply(text="It rains."))
    said: list[ResponseInputItemParam] = [{"role": "user", "content": "Is it raining in Oslo?"}]
    response = client.responses.create(model="gpt-4o", input=said, tools=[WEATHER], user=user, store=keeps)
    (call,) = called(response)
    output: ResponseInputItemParam = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    if keeps:
        ended = client.responses.create(
            model="gpt-4o", input=[output], previous_response_id=response.id, tools=[WEATHER], user=user
        )
    else:
        said += [item.to_dict() for item in response.output]  # type: ignore[misc]  # as OpenAI's guides do
        ended = client.responses.create(model="gpt-4o", input=[*said, output], tools=[WEATHER], store=False, user=user)
    assert ended.output_text == "It rains."


@pytest.mark.parametrize("keeps", [True, False])
def test_a_reasoning_model_goes_on_thinking_where_it_asked(
    client: OpenAI, provider: OpenAIStandIn, user: str, keeps: bool
) -> None:
    provider.script(Reply(reasoning="Look outside.", calls=(("weather", '{"city": "Oslo"}'),)), Reply(text="It rains."))
    asks: dict[str, Any] = {"model": "gpt-5", "tools": [WEATHER], "user": user, "store": keeps}
    said: list[Any] = [{"role": "user", "content": "Is it raining in Oslo?"}]
    response = client.responses.create(**asks, input=said, include=["reasoning.encrypted_content"])
    assert [item.type for item in response.output] == ["reasoning", "function_call"]
    output = {"type": "function_call_output", "call_id": called(response)[0].call_id, "output": "rain"}
    if keeps:
        asks |= {"previous_response_id": response.id, "input": [output]}
    else:
        asks["input"] = [*said, *(item.to_dict() for item in response.output), output]
    assert client.responses.create(**asks).output_text == "It rains."
    body = provider.requests[-1].body
    if body.get("conversation") is None:  # else the provider has it
        assert [item["type"] for item in body["input"]][1:3] == ["reasoning", "function_call"]


def test_what_was_thought_before_a_plain_answer_is_followed_and_goes_back(
    client: OpenAI, provider: OpenAIStandIn, user: str
) -> None:
    provider.script(Reply(reasoning="Look outside.", text="It rains."), Reply(text="Still."))
    asks: dict[str, Any] = {"model": "gpt-5", "user": user, "store": False, "include": ["reasoning.encrypted_content"]}
    said: list[Any] = [{"role": "user", "content": "Is it raining in Oslo?"}]
    with client.responses.stream(**asks, input=said) as stream:
        indexes = [event.output_index for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert set(indexes) == {1}
    assert final.usage is not None
    assert final.usage.output_tokens_details.reasoning_tokens > 0
    more = [*said, *(item.to_dict() for item in final.output), {"role": "user", "content": "And now?"}]
    assert client.responses.create(**asks, input=more).output_text == "Still."
    assert [item["type"] for item in provider.requests[-1].body["input"]] == [
        "message",
        "reasoning",
        "message",
        "message",
    ]


async def test_a_conversation_is_the_same_at_both_doors(
    client: OpenAI, later: AsyncOpenAI, service: Service, user: str
) -> None:
    conversation = client.conversations.create(
        items=[{"role": "user", "content": "Call me Ada."}], metadata={"topic": "names"}, extra_body={"user": user}
    )
    response = client.responses.create(model="gpt-4o", input="one", conversation=conversation.id)
    assert service.chat("two", conversation_id=conversation.id).json()["text"] == "[3] You said: two"
    stream = await later.responses.create(model="gpt-4o", input="three", conversation=conversation.id, stream=True)
    assert kinds([event async for event in stream])[-1] == "response.completed"
    items = [item async for item in later.conversations.items.list(conversation.id, order="asc", limit=2)]
    assert len(items) == 7
    assert response.output[0].id in [item.id for item in items]
    item = client.conversations.items.retrieve(items[0].id or "", conversation_id=conversation.id)
    assert item == items[0]
    client.conversations.items.delete(items[0].id or "", conversation_id=conversation.id)
    client.conversations.items.create(conversation.id, items=[{"role": "user", "content": "four"}])
    assert client.conversations.update(conversation.id, metadata={"a": "b"}).metadata == {"a": "b"}
    assert client.conversations.retrieve(conversation.id).metadata == {"a": "b"}
    assert client.conversations.delete(conversation.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(conversation.id)


async def test_in_the_background_it_is_polled_and_cancelled(
    client: OpenAI, later: AsyncOpenAI, provider: OpenAIStandIn, user: str
) -> None:
    provider.script(Reply(deltas=("a", "b"), created_pause_s=0.3), Reply(deltas=("a",) * 300, pause_s=0.1))
    response = await later.responses.create(model="gpt-4o", input="one", background=True, user=user)
    assert response.status in ("queued", "in_progress")
    while response.status in ("queued", "in_progress"):
        await asyncio.sleep(0.1)
        response = await later.responses.retrieve(response.id)
    assert (response.status, response.output_text) == ("completed", "ab")
    stream = client.responses.create(model="gpt-4o", input="two", background=True, stream=True, user=user)
    first = next(iter(stream))
    stream.close()
    assert first.type == "response.created"
    cancelled = client.responses.cancel(first.response.id)
    assert cancelled.status == "cancelled"
    assert client.responses.retrieve(first.response.id).status == "cancelled"


def test_images_and_files_come_as_they_do_at_openai(client: OpenAI, user: str) -> None:
    image = base64.b64encode(png(8, 8)).decode()
    document = base64.b64encode(b"The Nile is long.").decode()
    item: ResponseInputItemParam = {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "What is this?"},
            {"type": "input_image", "image_url": f"data:image/png;base64,{image}", "detail": "auto"},
            {"type": "input_file", "filename": "river.txt", "file_data": f"data:text/plain;base64,{document}"},
        ],
    }
    response = client.responses.create(model="gpt-4o", input=[item], user=user)
    (kept,) = client.responses.input_items.list(response.id, include=["message.input_image.image_url"])
    assert kept.type == "message"
    assert [part.type for part in kept.content][:2] == ["input_text", "input_image"]
    (url,) = [part.image_url for part in kept.content if part.type == "input_image"]
    assert url is not None
    assert httpx2.get(url).content == png(8, 8)
    (bare,) = client.responses.input_items.list(response.id)
    assert "image_url" not in str(bare.to_dict())
    unkept = client.responses.create(model="gpt-4o", input=[item], user=user, store=False)
    assert "Seen" in unkept.output_text or unkept.output_text


def test_what_is_not_served_is_refused_by_its_name(client: OpenAI, user: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(model="gpt-4o", input="x", tools=[{"type": "web_search"}], user=user)
    assert (refused.value.param, refused.value.code) == ("tools[0].type", "invalid_request")
    with pytest.raises(openai.BadRequestError) as unknown:
        client.responses.create(model="gpt-4o", input="x", previous_response_id="resp_x")
    assert unknown.value.param == "previous_response_id"


@pytest.mark.slow
async def test_a_response_in_the_background_of_a_killed_worker_ends(
    provider: OpenAIStandIn, database: str, tmp_path: Path, books: Books, user: str
) -> None:
    provider.script(Reply(deltas=("a",) * 600, pause_s=0.1))
    with serving(tmp_path, provider, database, "--workers", "1") as service:
        client = OpenAI(base_url=f"{service.url}/v1", api_key="none")
        response = client.responses.create(model="gpt-4o", input="one", background=True, user=user)
        while client.responses.retrieve(response.id).status != "in_progress":  # noqa: ASYNC110 - as clients poll
            await asyncio.sleep(0.05)
        (worker,) = service.workers()
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while (response := client.responses.retrieve(response.id)).status == "in_progress":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.5)
    (entry,) = await books.entries(user)
    assert (response.status, entry.status) == ("failed", "incomplete")  # as docs/openai.md has it
    assert response.error is not None
