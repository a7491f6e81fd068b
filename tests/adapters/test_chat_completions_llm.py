"""What only the Chat Completions API does: its body, its chunks, its failures."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from msgspec.structs import replace
from tests.contracts.model_fixtures import QUICK
from tests.servers.answering import answering
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Fault, Reply

from textllm_adapters.openai import chat_completions
from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
from textllm_adapters.openai.client import open_client
from textllm_adapters.testing.models import assistant, hear, request
from textllm_adapters.testing.stored_files import STORED, asked, image, reading
from textllm_core.errors import (
    ContentRefusedError,
    ContextTooLongError,
    InvalidRequestError,
    ModelError,
    ProviderError,
    ProviderUnavailableError,
    TextLLMError,
)
from textllm_core.records.model import ModelEnded
from textllm_core.records.parts import InputText
from textllm_core.records.sampling import Sampling
from textllm_core.usage import Usage


@pytest.fixture
async def llm(provider: OpenAIStandIn) -> AsyncIterator[ChatCompletionsLLM]:
    async with open_client("sk-test", provider.base_url) as client:
        yield ChatCompletionsLLM(client, QUICK)


def chunks(*given: dict[str, Any] | bytes) -> Fault:
    """An answer of exactly these chunks, without more."""
    body = b"".join(
        chunk if isinstance(chunk, bytes) else b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in given
    )
    return Fault("answer", 200, body, "text/event-stream")


def text(content: str | None, finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish_reason}]} | more


DONE = b"data: [DONE]\n\n"


async def test_a_call_says_no_more_than_every_server_understands(
    provider: OpenAIStandIn, llm: ChatCompletionsLLM
) -> None:
    turn = request("Hello", assistant("Hi."), "And now?", instructions="Be brief.", metadata={"a": "b"}, temperature=0)
    await hear(llm.stream(turn))
    assert provider.requests[0].path == "/v1/chat/completions"
    assert provider.requests[0].body == {
        "model": "gpt-4o",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": "And now?"},
        ],
        "max_tokens": 200,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_what_one_role_says_twice_in_a_row_is_sent_as_one_message(
    provider: OpenAIStandIn, llm: ChatCompletionsLLM
) -> None:
    await hear(llm.stream(request("One", "Two", assistant("Hi."), assistant("There."), "Three")))
    await hear(llm.stream(request(asked("One", image("LLM/one.png")), "Two", read=reading(STORED))))
    sent = [[(m["role"], m["content"]) for m in request.body["messages"]] for request in provider.requests]
    assert sent[0] == [("user", "One\n\nTwo"), ("assistant", "Hi.\n\nThere."), ("user", "Three")]
    [(_, parts)] = sent[1]
    assert [part.get("text", part["type"]) for part in parts] == ["One", "image_url", "Two"]


@pytest.mark.parametrize("host", ["api.openai.com", "eu.api.openai.com", "us.openai.azure.com"])
async def test_openai_itself_is_also_told_who_asks(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with answering(chunks(text("Tea.", "stop"), DONE).body) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
        async with open_client("sk-test", f"http://{host}/v1") as client:
            assert (await hear(ChatCompletionsLLM(client).stream(request("Well?")))).ended.text == "Tea."
    assert [json.loads(asked.body) for asked in proxy.asked] == [
        {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "Well?"}],
            "max_completion_tokens": 200,
            "safety_identifier": "5afe",
            "prompt_cache_key": "conv_1",
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


async def test_usage_model_and_tier_are_the_providers(provider: OpenAIStandIn, llm: ChatCompletionsLLM) -> None:
    usage = {"input_tokens": 2000, "cached_tokens": 1024, "output_tokens": 70, "reasoning_tokens": 64}
    provider.script(Reply(text="Tea.", usage=usage, service_tier="flex", split="bytes"))
    heard = await hear(llm.stream(request("Well?")))
    assert (heard.started.provider_response_id, heard.started.model) == (None, provider.bills[0].model)
    assert heard.ended.usage == Usage(2000, 70, 1024, 0, 64)
    assert heard.ended.service_tier == "flex"


async def test_usage_may_come_with_the_last_chunk_and_the_end_without_a_mark(
    provider: OpenAIStandIn, llm: ChatCompletionsLLM
) -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    provider.script(chunks(text("one"), text(None, "stop", usage=usage)))
    heard = await hear(llm.stream(request("Well?")))
    assert (heard.started.provider_response_id, heard.started.model) == (None, "gpt-4o")
    assert (heard.ended.text, heard.ended.usage) == ("one", Usage(5, 1))


async def test_a_reply_has_ended_with_its_usage_whatever_becomes_of_the_connection_then() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    body = chunks(text("one"), text(None, "stop"), {"choices": [], "usage": usage}).body
    async with (
        answering(body, length=len(body + DONE)) as server,
        open_client("sk-test", f"http://{server.address}/v1") as client,
        aclosing(ChatCompletionsLLM(client).stream(request("Well?"))) as events,
    ):
        async for event in events:
            if isinstance(event, ModelEnded):
                break
    assert isinstance(event, ModelEnded)
    assert (event.status, event.text, event.usage) == ("completed", "one", Usage(5, 1))


@pytest.mark.parametrize("usage", [None, "many", {}, {"prompt_tokens": 0, "completion_tokens": 0}])
async def test_a_usage_that_says_nothing_is_none(
    provider: OpenAIStandIn, llm: ChatCompletionsLLM, usage: object
) -> None:
    provider.script(chunks(text("one", "stop"), {"choices": [], "usage": usage}, DONE))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.text, ended.usage) == ("one", None)


async def test_reasoning_and_what_else_a_server_adds_is_passed_over(
    provider: OpenAIStandIn, llm: ChatCompletionsLLM
) -> None:
    thinking = {"choices": [{"delta": {"role": "assistant", "reasoning_content": "hm", "tool_calls": []}, "x": 1}]}
    provider.script(chunks(b": ping\n\n", thinking, {"choices": None}, text("one"), text("", "stop"), DONE))
    heard = await hear(llm.stream(request("Well?")))
    assert (heard.deltas, heard.ended.status) == (["one"], "completed")


BROKEN: dict[str, tuple[Reply | Fault, type[TextLLMError]]] = {
    "error": (Reply(text="a b c", end="failed:server_error", end_after=2), ProviderUnavailableError),
    "silent end": (Reply(text="a b c", end="silent", end_after=2), ProviderError),
    "cut": (Reply(text="a b c", end="cut", end_after=2), ProviderError),
    "an end without a reason": (chunks(text("a "), text("b "), DONE), ProviderError),
    "error with a number for a code": (
        chunks(text("a "), text("b "), {"error": {"code": 500, "type": "server_error", "message": "canary"}}),
        ProviderUnavailableError,
    ),
    "broken JSON": (chunks(text("a "), text("b "), b'data: {"choices": [\n\n'), ProviderError),
    "choices of another shape": (chunks(text("a "), text("b "), {"choices": 7}), ProviderError),
}


@pytest.mark.parametrize("fault", sorted(BROKEN))
async def test_a_stream_that_breaks_is_never_sent_again_and_keeps_its_deltas(
    provider: OpenAIStandIn, llm: ChatCompletionsLLM, fault: str
) -> None:
    step, kind = BROKEN[fault]
    provider.script(step)
    heard = await hear(llm.stream(request("Well?")))
    assert heard.deltas == ["a ", "b "]
    assert type(heard.error) is kind
    assert isinstance(heard.error, ModelError)
    assert heard.error.may_have_run
    assert "canary" not in str(heard.error)
    assert len(provider.requests) == 1


REFUSALS: dict[str, tuple[Fault, type[TextLLMError], int]] = {
    "too long": (Fault.http(400, "context_length_exceeded", param="messages"), ContextTooLongError, 1),
    "too long, by type": (Fault.http(400, kind="exceed_context_size_error"), ContextTooLongError, 1),
    "filtered": (Fault.http(400, "content_filter"), ContentRefusedError, 1),
    "option": (Fault.http(400, "unsupported_parameter", param="max_tokens"), InvalidRequestError, 2),
    "key": (Fault.http(401), ProviderError, 1),
    "model": (Fault.http(404), ProviderError, 1),
    "rate": (Fault.http(429), ProviderUnavailableError, 3),
    "quota": (Fault.insufficient_quota(), ProviderError, 1),
    "overload": (Fault.http(503), ProviderUnavailableError, 3),
    "error": (Fault.http(500), ProviderUnavailableError, 1),
    "page": (Fault.html(200), ProviderError, 1),
    "JSON": (Fault.broken_json(), ProviderError, 1),
    "reset": (Fault.cut(), ProviderError, 1),
}


@pytest.mark.parametrize("fault", sorted(REFUSALS))
async def test_failures_mean_what_they_mean_with_the_responses_api(
    provider: OpenAIStandIn, llm: ChatCompletionsLLM, fault: str
) -> None:
    step, kind, sent = REFUSALS[fault]
    provider.default = step
    heard = await hear(llm.stream(request("Well?")))
    assert heard.events == []
    assert type(heard.error) is kind
    assert len(provider.requests) == sent


@pytest.mark.parametrize("finish_reason", ["stop", "length", None])
@pytest.mark.parametrize("is_silent", [True, False])
async def test_a_reply_whose_end_was_stated_is_whole_whatever_becomes_of_its_connection(
    monkeypatch: pytest.MonkeyPatch, is_silent: bool, finish_reason: str | None
) -> None:
    monkeypatch.setattr(chat_completions, "_COST_WITHIN_S", 0.05)
    body = chunks(text("one"), text("", finish_reason)).body

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n" + body)
        if is_silent:
            await reader.read()
        writer.close()

    async with asyncio.timeout(30), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_client("sk-test", f"http://127.0.0.1:{port}/v1", silence_timeout_s=0.5) as client:
            heard = await hear(ChatCompletionsLLM(client, QUICK).stream(request("Well?")))
    assert heard.deltas == ["one"]
    if finish_reason is None:
        assert isinstance(heard.error, ModelError)
    else:
        assert (heard.ended.text, heard.ended.finish_reason, heard.ended.usage) == ("one", finish_reason, None)


@pytest.mark.parametrize(("is_openai", "role"), [(False, "system"), (True, "developer")])
async def test_who_instructs_the_model_in_between_does_so_in_its_place(
    provider: OpenAIStandIn, is_openai: bool, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_openai:
        monkeypatch.setattr("textllm_adapters.openai.dialect._OPENAI_HOSTS", ("127.0.0.1",))
    turn = request("Hello", "And now?")
    instructing = replace(turn.messages[0], role="developer", content=(InputText("Be kind."),))
    sampling = Sampling(top_p=0.5, frequency_penalty=-1, presence_penalty=1, seed=7, stop=["END"], verbosity="low")
    async with open_client("sk-test", provider.base_url) as client:
        asked = replace(turn, messages=(turn.messages[0], instructing, turn.messages[1]), sampling=sampling)
        await hear(ChatCompletionsLLM(client, QUICK).stream(asked))
    body = provider.requests[0].body
    assert [message["role"] for message in body["messages"]] == ["user", role, "user"]
    assert {name: body[name] for name in sampling.chosen} == sampling.chosen
