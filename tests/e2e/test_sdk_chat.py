"""OpenAI's own SDK for Python asks `/v1/chat/completions` over a socket, and finds what it knows."""

import asyncio
import base64
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam, ChatCompletionToolParam
from pydantic import BaseModel
from tests.e2e.conftest import Books, Service, price_of, serving
from tests.image_files import png
from tests.servers.openai import Fault, OpenAIStandIn, Reply

from textllm_core.ids import new_id

PAGE = (Path(__file__).parents[2] / "docs" / "openai.md").read_text()
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


class River(BaseModel):
    name: str
    length_km: int


@pytest.fixture
def client(service: Service) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{service.url}/v1", api_key="tllm_none_is_asked_for") as client:
        yield client


@pytest.fixture
def user() -> str:
    return new_id("user")


async def test_a_reply_is_whole_or_a_stream_and_charged_as_the_provider_bills(
    client: OpenAI, service: Service, provider: OpenAIStandIn, books: Books, user: str
) -> None:
    before = len(provider.bills)
    answer = client.chat.completions.create(model="gpt-4o", messages=HELLO, user=user)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("[0] You said: Hello", "stop")
    assert answer.usage is not None
    messages: list[ChatCompletionMessageParam] = [
        {"role": "developer", "content": "Be brief."},
        *HELLO,
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "And now?"},
    ]
    async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none") as asynchronous:
        stream = await asynchronous.chat.completions.create(
            model="gpt-4o", messages=messages, user=user, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == "[3] You said: And now?"
    assert chunks[-1].usage is not None
    entries = await books.entries(user)
    assert [entry.cost for entry in entries] == [price_of(bill) for bill in provider.bills[before:]]
    told = [answer.usage.prompt_tokens, chunks[-1].usage.prompt_tokens]
    assert [entry.usage.input_tokens for entry in entries] == told


def test_what_the_page_prints_runs_as_printed(provider: OpenAIStandIn, database: str, tmp_path: Path) -> None:
    printed = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    call = {"id": "mcp_1", "type": "mcp_call", "server_label": "wiki", "name": "ask", "arguments": "{}"}
    provider.script(Reply(text="The Nile, the Amazon and the Rhine."), *[Reply()] * 3, Reply(hosted=(call,)))
    code = "".join(printed).replace("tllm_…", "tllm_none")
    allowed = '{"web_search": {"price": 0.01}, "mcp": {"price": 0}}'
    with serving(tmp_path, provider, database, TEXTLLM_HOSTED_TOOLS=allowed) as service:
        code = code.replace("http://localhost:8000", service.url)
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    replies = [
        "The Nile, the Amazon and the Rhine.",
        "[2] You said: Which is longest?",
        "[0] You said: Does it rain in Oslo? ['message']",
        "message",
        "message",
        "message",
    ]
    assert (ran.returncode, ran.stdout.splitlines()) == (0, replies), ran.stderr


def test_the_helper_of_streams_sees_each_event_and_the_whole(client: OpenAI, user: str) -> None:
    with client.chat.completions.stream(model="gpt-4o", messages=HELLO, user=user) as stream:
        kinds = {event.type for event in stream}
        whole = stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert whole.choices[0].message.content == "[0] You said: Hello"


def test_structured_output_is_parsed(client: OpenAI, provider: OpenAIStandIn, user: str) -> None:
    said = River(name="Nile", length_km=6650)
    provider.script(Reply(text=said.model_dump_json()), Reply(text=said.model_dump_json()))
    answer = client.chat.completions.parse(model="gpt-4o", messages=HELLO, user=user, response_format=River)
    assert answer.choices[0].message.parsed == said
    assert provider.requests[-1].body["text"]["format"]["type"] == "json_schema"
    with client.chat.completions.stream(model="gpt-4o", messages=HELLO, user=user, response_format=River) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == said
    provider.script(Reply(refusal="I will not."), Reply(refusal="I will not."))
    refused = client.chat.completions.parse(model="gpt-4o", messages=HELLO, user=user, response_format=River)
    assert (refused.choices[0].message.parsed, refused.choices[0].message.refusal) == (None, "I will not.")
    with client.chat.completions.stream(model="gpt-4o", messages=HELLO, user=user, response_format=River) as stream:
        done = [event for event in stream if event.type == "refusal.done"]
        refused = stream.get_final_completion()
    assert [event.refusal for event in done] == ["I will not."]
    assert (refused.choices[0].message.parsed, refused.choices[0].message.refusal) == (None, "I will not.")


@pytest.mark.parametrize("streamed", [False, True])
def test_a_loop_with_tools_comes_to_its_end(client: OpenAI, provider: OpenAIStandIn, user: str, streamed: bool) -> None:
    asked = '{"city": "Oslo"}', '{"city": "Rome"}'
    provider.script(Reply(calls=(("weather", asked[0]), ("weather", asked[1]))), Reply())
    messages: list[Any] = [*HELLO]
    for _ in range(2):
        call: dict[str, Any] = {"model": "gpt-4o", "messages": messages, "user": user, "tools": [WEATHER]}
        if streamed:
            with client.chat.completions.stream(**call) as stream:
                message = stream.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(**call).choices[0].message
        if not message.tool_calls:
            break
        messages.append(message.model_dump(exclude_none=True, exclude={"parsed"}))
        for asking in message.tool_calls:
            assert asking.type == "function"
            city = json.loads(asking.function.arguments)["city"]
            messages.append({"role": "tool", "tool_call_id": asking.id, "content": f"rain in {city}"})
    sent = provider.requests[-1].body["input"]
    assert [item["output"] for item in sent if item["type"] == "function_call_output"] == [
        *("rain in Oslo", "rain in Rome")
    ]
    assert message.content is not None


def test_an_image_goes_to_the_model(client: OpenAI, provider: OpenAIStandIn, user: str) -> None:
    url = f"data:image/png;base64,{base64.b64encode(png(16, 16)).decode()}"
    messages: list[ChatCompletionMessageParam] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}],
        }
    ]
    answer = client.chat.completions.create(model="gpt-4o", messages=messages, user=user)
    assert "Seen: " in (answer.choices[0].message.content or "")
    assert len(provider.requests[-1].files) == 1


def test_failures_are_those_that_the_sdk_knows(client: OpenAI, provider: OpenAIStandIn, user: str) -> None:
    once = client.with_options(max_retries=0)
    with pytest.raises(openai.BadRequestError) as refused:
        once.chat.completions.create(model="gpt-4o", messages=HELLO, user=user, n=2)
    assert (refused.value.param, refused.value.code) == ("n", "invalid_request")
    provider.script(Fault.http(400, "context_length_exceeded"))
    with pytest.raises(openai.UnprocessableEntityError) as too_long:
        once.chat.completions.create(model="gpt-4o", messages=HELLO, user=user)
    assert too_long.value.code == "context_too_long"
    provider.script(Reply(deltas=("One", " two"), end="failed:server_error", end_after=1))
    stream = once.chat.completions.create(model="gpt-4o", messages=HELLO, user=user, stream=True)
    with pytest.raises(openai.APIError) as broken:
        list(stream)
    assert broken.value.code == "provider_unavailable"


async def test_the_sdk_sends_again_what_may_pass_and_nothing_else(
    provider: OpenAIStandIn, sqlite_url: str, tmp_path: Path
) -> None:
    limits = {"TEXTLLM_RATE_LIMIT_PER_MINUTE": "60", "TEXTLLM_COST_LIMIT_PER_SESSION": "0.0125"}
    with serving(tmp_path, provider, sqlite_url, **limits) as service:
        async with AsyncOpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=4) as client:

            async def ask(user: str) -> ChatCompletion:
                return await client.chat.completions.create(model="gpt-4o", messages=HELLO, user=user, max_tokens=16)

            answers = await asyncio.gather(*[ask("ada") for _ in range(62)])  # two of them after a second
            assert len(answers) == 62
            client.max_retries = 0
            refusals = await asyncio.gather(*[ask("ada") for _ in range(62)], return_exceptions=True)
            limited = [refusal for refusal in refusals if isinstance(refusal, openai.RateLimitError)]
            assert len(limited) > 50
            assert int(limited[0].response.headers["retry-after"]) >= 1
            assert limited[0].response.headers["x-ratelimit-remaining-requests"] == "0"
            asked = len(provider.requests)
            client.max_retries = 4
            long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "x" * 5000}]  # held as 5,000 tokens
            with pytest.raises(openai.APIStatusError) as spent:
                await client.chat.completions.create(model="gpt-4o", messages=long, user="bob")
            assert (spent.value.status_code, spent.value.code) == (402, "budget_exceeded")
            assert spent.value.response.headers["x-should-retry"] == "false"
            assert len(provider.requests) == asked


def test_a_request_that_is_sent_again_is_answered_once(client: OpenAI, provider: OpenAIStandIn, user: str) -> None:
    before = len(provider.requests)
    key = {"Idempotency-Key": new_id("key")}
    first, second = [
        client.chat.completions.create(model="gpt-4o", messages=HELLO, user=user, extra_headers=key) for _ in range(2)
    ]
    assert (first.id, first.choices) == (second.id, second.choices)
    assert len(provider.requests) == before + 1
