"""What only the Responses API does: its body, its ends, its failures."""

import asyncio
import json
from typing import Any

import pytest
from msgspec.structs import replace
from tests.contracts.model_fixtures import QUICK
from tests.servers.answering import answering
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Fault, Reply

from textllm_adapters.openai.client import open_client
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.testing.models import Heard, assistant, first_delta, hear, request
from textllm_core.errors import (
    ContentRefusedError,
    ContextTooLongError,
    ConversationBusyError,
    ConversationLostError,
    InvalidRequestError,
    ModelError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    TextLLMError,
)
from textllm_core.records.hosted import HostedTool, HostedTools
from textllm_core.records.messages import TextDelta
from textllm_core.records.model import ModelStarted
from textllm_core.records.sampling import Sampling
from textllm_core.records.tools import FunctionTool, JsonSchemaFormat
from textllm_core.usage import Usage

SECRET = "canary-of-the-input"
WEATHER, SEARCH = FunctionTool(name="weather"), HostedTool({"type": "web_search"})


def may_have_run(error: Exception | None) -> bool:
    return isinstance(error, ModelError) and error.may_have_run


def event_stream(*events: dict[str, Any] | bytes, newline: bytes = b"\n", named: bool = True) -> Fault:
    """An answer of exactly these events."""
    body = b""
    for event in events:
        if isinstance(event, bytes):
            body += event
            continue
        name = b"event: " + event["type"].encode() + newline if named else b""
        body += name + b"data: " + json.dumps(event).encode() + newline + newline
    return Fault("answer", 200, body, "text/event-stream")


def created(**more: Any) -> dict[str, Any]:
    return {
        "type": "response.created",
        "response": {"id": "resp_1", "model": "gpt-4o-x", "status": "in_progress"} | more,
    }


def delta(text: str) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "delta": text}


def completed(**more: Any) -> dict[str, Any]:
    return {
        "type": "response.completed",
        "response": {"id": "resp_1", "model": "gpt-4o-x", "status": "completed"} | more,
    }


async def test_a_stateless_call_sends_the_whole_history_and_stores_nothing(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    await hear(llm.stream(request("Hello", assistant("Hi."), "And now?", instructions="Be brief.")))
    assert provider.requests[0].body == {
        "model": "gpt-4o",
        "input": [
            {"type": "message", "role": "user", "content": "Hello"},
            {"type": "message", "role": "assistant", "content": "Hi."},
            {"type": "message", "role": "user", "content": "And now?"},
        ],
        "instructions": "Be brief.",
        "max_output_tokens": 200,
        "safety_identifier": "5afe",
        "prompt_cache_key": "conv_1",
        "store": False,
        "stream": True,
        "stream_options": {"include_obfuscation": False},
    }


async def test_a_call_in_a_conversation_sends_the_turn_alone_and_is_stored(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    transcript_id = await OpenAITranscript(llm.client).create([])
    turn = request("Hello", transcript_id=transcript_id, temperature=0.5, metadata={"a": "b"})
    await hear(llm.stream(turn))
    assert provider.requests[-1].body == {
        "model": "gpt-4o",
        "input": [{"type": "message", "role": "user", "content": "Hello"}],
        "conversation": transcript_id,
        "max_output_tokens": 200,
        "safety_identifier": "5afe",
        "prompt_cache_key": "conv_1",
        "temperature": 0.5,
        "metadata": {"a": "b"},
        "store": True,
        "stream": True,
        "stream_options": {"include_obfuscation": False},
    }


async def test_usage_model_and_tier_are_the_providers_and_nothing_is_stored(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    usage = {
        "input_tokens": 2000,
        "cached_tokens": 1024,
        "cache_write_tokens": 512,
        "output_tokens": 70,
        "reasoning_tokens": 64,
    }
    provider.script(Reply(text="Tea.", reasoning="Tea or coffee?", usage=usage, service_tier="flex"))
    heard = await hear(llm.stream(request("Well?")))
    assert (heard.started.provider_response_id, heard.started.model) == (None, provider.bills[0].model)
    assert heard.ended.usage == Usage(2000, 70, 1024, 512, 64)
    assert (heard.ended.text, heard.ended.service_tier) == ("Tea.", "flex")


async def test_text_that_is_cut_inside_characters_and_lines_arrives_whole(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    deltas = ("T\u00e9\u00e9 \U0001f375", "\n\u2028", "\u4e2d\u6587 ") * 20
    provider.script(Reply(deltas=deltas, split="bytes"))
    assert (await hear(llm.stream(request("Well?")))).deltas == list(deltas)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("named", [True, False])
async def test_other_framings_of_compatible_servers_are_understood(
    provider: OpenAIStandIn, llm: ResponsesLLM, newline: bytes, named: bool
) -> None:
    comment = b": ping" + newline + newline
    in_two_lines = (
        b'data: {"type":"response.output_text.delta",' + newline + b'data:"delta":"one "}' + newline + newline
    )
    done = b"data: [DONE]" + newline + newline
    unknown: dict[str, Any] = {"type": "response.reasoning_part.added", "part": 7}
    provider.script(
        event_stream(
            comment, created(), unknown, in_two_lines, delta("two"), completed(), done, newline=newline, named=named
        )
    )
    heard = await hear(llm.stream(request("Well?")))
    assert (heard.started.provider_response_id, heard.started.model) == (None, "gpt-4o-x")
    assert (heard.deltas, heard.ended.text) == (["one ", "two"], "one two")


async def test_a_stream_of_deltas_and_an_end_alone_is_enough(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(event_stream(delta("one"), delta(""), completed()))
    heard = await hear(llm.stream(request("Well?")))
    assert (heard.started.provider_response_id, heard.started.model) == (None, "gpt-4o")
    assert (heard.deltas, heard.ended.usage, heard.ended.service_tier) == (["one"], None, None)


async def test_text_that_only_the_end_tells_is_one_delta(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    reasoning = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}], "summary": []}
    message = {
        "type": "message",
        "content": [{"type": "output_text", "text": "one "}, {"type": "refusal", "refusal": "two"}],
    }
    provider.script(event_stream(completed(output=[reasoning, message])))
    heard = await hear(llm.stream(request("Well?")))
    assert (heard.deltas, heard.ended.text, heard.ended.finish_reason) == (["one ", "two"], "one two", "refusal")
    assert ([event.is_refusal for event in heard.events if isinstance(event, TextDelta)]) == [False, True]
    assert heard.ended.refusal == "two"
    assert (heard.started.provider_response_id, heard.started.model) == (None, "gpt-4o-x")


@pytest.mark.parametrize("usage", [None, {}, "many", {"input_tokens": 0, "output_tokens": 0}])
async def test_a_usage_that_says_nothing_is_none(provider: OpenAIStandIn, llm: ResponsesLLM, usage: object) -> None:
    provider.script(event_stream(created(), delta("one"), completed(usage=usage)))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.text, ended.status, ended.usage) == ("one", "completed", None)


async def test_a_usage_that_is_too_small_for_what_came_is_an_estimate(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    usage = {"input_tokens": 5, "output_tokens": 1}
    thoughts = {"type": "response.reasoning_text.delta", "delta": "hm, " * 100}
    provider.script(event_stream(created(), thoughts, delta("one"), completed(usage=usage)))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.usage, ended.is_estimate) == (Usage(5, 101), True)


@pytest.mark.parametrize("details", [None, {}, {"cached_tokens": None}])
async def test_counts_may_lack_their_details(provider: OpenAIStandIn, llm: ResponsesLLM, details: object) -> None:
    usage = {"input_tokens": 5, "output_tokens": 1, "input_tokens_details": details}
    provider.script(event_stream(created(), completed(usage=usage)))
    assert (await hear(llm.stream(request("Well?")))).ended.usage == Usage(5, 1)


async def test_a_failed_response_ends_as_failed_with_its_usage_and_code(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    provider.script(Reply(text="a b c", end="failed:server_error", end_after=2, usage={"output_tokens": 2}))
    heard = await hear(llm.stream(request("Well?")))
    assert heard.deltas == ["a ", "b "]
    assert (heard.ended.status, heard.ended.error_code) == ("failed", "server_error")
    assert heard.ended.usage is not None
    assert heard.ended.usage.output_tokens == 2


async def test_a_code_that_could_hold_anything_is_not_repeated(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(Reply(text="a", end=f"failed:Failed on {SECRET}!"))
    assert (await hear(llm.stream(request("Well?")))).ended.error_code is None


BROKEN_STREAMS: dict[str, tuple[Reply, type[TextLLMError]]] = {
    "flat error": (Reply(text="a b c", end="error_flat:server_error", end_after=2), ProviderUnavailableError),
    "nested error": (Reply(text="a b c", end="error_nested:server_error", end_after=2), ProviderUnavailableError),
    "rate limit": (Reply(text="a b c", end="error_nested:rate_limit_exceeded", end_after=2), ProviderUnavailableError),
    "quota": (Reply(text="a b c", end="error_nested:insufficient_quota", end_after=2), ProviderError),
    "unknown error": (Reply(text="a b c", end=f"error_flat:{SECRET}", end_after=2), ProviderError),
    "silent end": (Reply(text="a b c", end="silent", end_after=2), ProviderError),
    "cut": (Reply(text="a b c", end="cut", end_after=2), ProviderError),
}


@pytest.mark.parametrize("fault", sorted(BROKEN_STREAMS))
async def test_a_stream_that_breaks_is_never_sent_again_and_keeps_its_deltas(
    provider: OpenAIStandIn, llm: ResponsesLLM, fault: str
) -> None:
    reply, kind = BROKEN_STREAMS[fault]
    provider.script(reply)
    heard = await hear(llm.stream(request("Well?")))
    assert heard.deltas == ["a ", "b "]
    assert type(heard.error) is kind
    assert may_have_run(heard.error)
    assert SECRET not in str(heard.error)
    assert len(provider.requests) == 1


@pytest.mark.parametrize("shape", ["error_flat", "error_nested"])
async def test_too_long_a_context_may_also_be_told_in_the_stream(
    provider: OpenAIStandIn, llm: ResponsesLLM, shape: str
) -> None:
    provider.script(Reply(deltas=(), end=f"{shape}:context_length_exceeded"))
    heard = await hear(llm.stream(request("Well?")))
    assert heard.deltas == []
    assert isinstance(heard.error, ContextTooLongError)


async def test_silence_within_a_stream_is_a_timeout_after_its_deltas(provider: OpenAIStandIn) -> None:
    provider.script(Reply(text="a b c", end="stall", end_after=2))
    async with open_client("sk-test", provider.base_url, silence_timeout_s=0.3) as client:
        heard = await hear(ResponsesLLM(client, QUICK).stream(request("Well?")))
    assert heard.deltas == ["a ", "b "]
    assert isinstance(heard.error, ProviderTimeoutError)
    assert may_have_run(heard.error)
    assert len(provider.requests) == 1


async def test_silence_before_the_first_byte_is_a_timeout_that_may_have_run(provider: OpenAIStandIn) -> None:
    provider.script(Fault.stall())
    async with open_client("sk-test", provider.base_url, silence_timeout_s=0.3) as client:
        heard = await hear(ResponsesLLM(client, QUICK).stream(request("Well?")))
    assert isinstance(heard.error, ProviderTimeoutError)
    assert may_have_run(heard.error)
    assert len(provider.requests) == 1


GARBLED: dict[str, Fault] = {
    "broken JSON in a delta": event_stream(b'event: response.output_text.delta\ndata: {"delta": "on\n\n'),
    "a delta that is no text": event_stream({"type": "response.output_text.delta", "delta": 7}),
    "bytes that are no UTF-8": event_stream(b'event: response.output_text.delta\ndata: {"delta": "\xff\xfe"}\n\n'),
    "a response that is none": event_stream({"type": "response.completed", "response": None}),
    "an unnamed event that is no JSON": event_stream(b"data: hello\n\n"),
    "a list": event_stream(b"event: response.created\ndata: []\n\n"),
    "an overlong line": Fault("answer", 200, b"data: " + b"x" * (17 * 1024 * 1024), "text/event-stream"),
    "an answer in JSON": Fault("answer", 200, json.dumps(completed()["response"]).encode()),
    "half an answer in JSON": Fault.broken_json(),
    "a page": Fault.html(200),
    "nothing": Fault("answer", 200, b""),
    "no content": Fault("answer", 204, b""),
}


@pytest.mark.parametrize("fault", sorted(GARBLED))
async def test_what_is_no_proper_stream_is_a_bad_answer_that_may_have_run(
    provider: OpenAIStandIn, llm: ResponsesLLM, fault: str
) -> None:
    provider.script(GARBLED[fault])
    heard = await hear(llm.stream(request("Well?")))
    assert type(heard.error) is ProviderError
    assert may_have_run(heard.error)
    assert len(provider.requests) == 1


async def test_what_breaks_after_a_delta_keeps_the_delta(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(event_stream(created(), delta("one"), b'event: response.completed\ndata: {"resp\n\n'))
    heard = await hear(llm.stream(request("Well?")))
    assert heard.deltas == ["one"]
    assert type(heard.error) is ProviderError


Refusal = tuple[Fault, type[TextLLMError], bool, int]  # the class, whether it may have run, how often it was sent

REFUSALS: dict[str, Refusal] = {
    "too long": (Fault.http(400, "context_length_exceeded", param="input"), ContextTooLongError, False, 1),
    "too long, elsewhere": (Fault.http(400, message="maximum context length is 8"), ContextTooLongError, False, 1),
    "prompt refused": (Fault.http(400, "invalid_prompt"), ContentRefusedError, False, 1),
    "prompt filtered": (Fault.http(400, "content_filter"), ContentRefusedError, False, 1),
    "unknown parameter": (Fault.http(400, "unknown_parameter", param="store"), ProviderError, False, 2),
    "key": (Fault.http(401), ProviderError, False, 1),
    "permission": (Fault.http(403), ProviderError, False, 1),
    "model": (Fault.http(404), ProviderError, False, 1),
    "model, as 400": (Fault.http(400, "model_not_found"), ProviderError, False, 1),
    "no such route": (Fault.http(404, "no_such_route", message="Invalid URL"), ProviderError, False, 1),
    "request timeout": (Fault.http(408), ProviderUnavailableError, False, 3),
    "conflict": (Fault.http(409), ProviderUnavailableError, False, 3),
    "too large": (Fault.http(413), ContextTooLongError, False, 1),
    "unprocessable": (Fault.http(422), ProviderError, False, 1),
    "rate": (Fault.http(429), ProviderUnavailableError, False, 3),
    "rate, soon": (Fault.http(429, retry_after_s=0.01), ProviderUnavailableError, False, 3),
    "rate, late": (Fault.http(429, retry_after_s=11), ProviderUnavailableError, False, 1),
    "rate, forbidden to retry": (Fault.http(429, should_retry=False), ProviderUnavailableError, False, 1),
    "quota": (Fault.insufficient_quota(), ProviderError, False, 1),
    "error": (Fault.http(500), ProviderUnavailableError, True, 1),
    "error, told to retry": (Fault.http(500, should_retry=True), ProviderUnavailableError, True, 3),
    "bad gateway": (Fault.http(502), ProviderUnavailableError, True, 1),
    "a proxy's page": (Fault.html(502), ProviderUnavailableError, True, 1),
    "overload": (Fault.http(503), ProviderUnavailableError, False, 3),
    "a proxy's overload": (Fault.html(503), ProviderUnavailableError, False, 3),
    "overload, forbidden to retry": (Fault.http(503, should_retry=False), ProviderUnavailableError, False, 1),
    "gateway timeout": (Fault.http(504), ProviderUnavailableError, True, 1),
    "busy": (Fault.http(400, "conversation_locked", param="conversation"), ConversationBusyError, False, 3),
    "reset": (Fault.cut(), ProviderError, True, 1),
}


@pytest.mark.parametrize("fault", sorted(REFUSALS))
async def test_a_refused_call_is_sent_again_only_if_it_surely_did_not_run(
    provider: OpenAIStandIn, llm: ResponsesLLM, fault: str
) -> None:
    step, kind, ran, sent = REFUSALS[fault]
    provider.default = step
    heard = await hear(llm.stream(request(SECRET)))
    assert heard.events == []
    assert type(heard.error) is kind
    assert may_have_run(heard.error) == ran
    assert len(provider.requests) == sent
    assert provider.bills == []


@pytest.mark.parametrize("step", [Fault.http(429), Fault.http(503), Fault.http(400, "conversation_locked")])
async def test_a_call_that_passes_at_the_third_try_is_billed_once(
    provider: OpenAIStandIn, llm: ResponsesLLM, step: Fault
) -> None:
    provider.script(step, step, Reply(text="Tea."))
    assert (await hear(llm.stream(request("Well?")))).ended.text == "Tea."
    assert len(provider.requests) == 3
    assert len(provider.bills) == 1


async def test_once_a_try_may_have_run_no_later_refusal_denies_it(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(Fault.http(500, should_retry=True), Fault.http(400, "conversation_locked"), Fault.http(401))
    heard = await hear(llm.stream(request("Well?")))
    assert type(heard.error) is ProviderUnavailableError
    assert may_have_run(heard.error)


async def test_what_the_provider_asks_to_wait_is_handed_on(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(Fault.http(429, retry_after_s=42))
    error = (await hear(llm.stream(request("Well?")))).error
    assert isinstance(error, ProviderUnavailableError)
    assert error.retry_after_s == 42


@pytest.mark.parametrize("stated", ["Fri, 31 Dec 2100 23:59:59 GMT", "soon", "-3", "1e9999", "\u0663"])
async def test_any_retry_after_is_understood_or_passed_over(
    provider: OpenAIStandIn, llm: ResponsesLLM, stated: str
) -> None:
    provider.default = Fault("answer", 503, b"", headers={"retry-after": stated})
    assert isinstance((await hear(llm.stream(request("Well?")))).error, ProviderUnavailableError)


async def test_a_provider_that_cannot_be_reached_surely_did_not_run() -> None:
    async with open_client("sk-test", "http://127.0.0.1:9/v1") as client:
        error = (await hear(ResponsesLLM(client, QUICK).stream(request("Well?")))).error
    assert isinstance(error, ProviderUnavailableError)
    assert not error.may_have_run


async def test_a_wrong_key_is_named_as_the_operators_matter(provider: OpenAIStandIn) -> None:
    async with open_client("sk-wrong", provider.base_url) as client:
        error = (await hear(ResponsesLLM(client, QUICK).stream(request("Well?")))).error
    assert type(error) is ProviderError
    assert "operator" in str(error)
    assert "wrong" not in str(error)


async def test_the_unknown_model_is_named(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(Fault.http(404, "model_not_found"))
    assert "gpt-4o" in str((await hear(llm.stream(request("Well?")))).error)


@pytest.mark.parametrize(
    ("param", "given", "field"),
    [
        ("temperature", {"temperature": 0.5}, "temperature"),
        ("metadata", {"metadata": {"a": "b"}}, "metadata"),
        ("metadata.a", {"metadata": {"a": "b"}}, "metadata"),
        ("max_output_tokens", {}, "max_output_tokens"),
    ],
)
async def test_an_option_that_the_model_refuses_is_the_callers_to_change(
    provider: OpenAIStandIn, llm: ResponsesLLM, param: str, given: dict[str, Any], field: str
) -> None:
    provider.script(Fault.http(400, "unsupported_value", param=param))
    error = (await hear(llm.stream(request("Well?", **given)))).error
    assert isinstance(error, InvalidRequestError)
    assert [name for name, _ in error.errors] == [field]


@pytest.mark.parametrize(
    ("param", "given", "field"),
    [
        ("tools[0].parameters", {"tools": [WEATHER]}, "tools"),
        ("tools[0].function.parameters", {"tools": [WEATHER]}, "tools"),
        ("tools[0].filters.allowed_domains", {"hosted": HostedTools(tools=[SEARCH])}, "tools"),
        ("text.format.schema", {"response_format": JsonSchemaFormat(name="a", schema={})}, "response_format"),
        ("tools[0].type", {"hosted": HostedTools(tools=[SEARCH])}, None),
        ("tools[0].filters.allowed_domains", {}, None),
        ("text.format.schema", {}, None),
        ("response_format", {"response_format": JsonSchemaFormat(name="a", schema={})}, None),
    ],
)
async def test_what_a_tool_or_a_schema_says_is_the_callers_to_change(
    provider: OpenAIStandIn, llm: ResponsesLLM, param: str, given: dict[str, Any], field: str | None
) -> None:
    provider.script(Fault.http(400, "invalid_value", param=param))
    error = (await hear(llm.stream(request("Well?", **given)))).error
    if field is None:
        assert type(error) is ProviderError
        return
    assert isinstance(error, InvalidRequestError)
    assert [name for name, _ in error.errors] == [field]
    assert param in str(error)


async def test_a_schema_may_be_named_in_words_alone(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(Fault.http(400, None, "Invalid schema for response_format 'a': …", param="response_format"))
    error = (await hear(llm.stream(request("Well?", response_format=JsonSchemaFormat(name="a", schema={}))))).error
    assert isinstance(error, InvalidRequestError)
    assert [name for name, _ in error.errors] == ["response_format"]


async def test_an_option_that_nobody_set_is_our_fault(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(Fault.http(400, "unsupported_value", param="temperature"))
    assert type((await hear(llm.stream(request("Well?")))).error) is ProviderError


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 503])
async def test_no_text_of_the_provider_comes_through(provider: OpenAIStandIn, llm: ResponsesLLM, status: int) -> None:
    provider.default = Fault.http(status, f"Code {SECRET}", f"You sent {SECRET}", param=SECRET, kind=SECRET)
    error = (await hear(llm.stream(request(SECRET)))).error
    assert error is not None
    assert SECRET not in f"{error} {error!r} {error.__cause__}"


async def test_a_lost_conversation_is_told_from_a_wrong_address(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    gone = await hear(llm.stream(request("Hello", transcript_id="conv_gone")))
    assert isinstance(gone.error, ConversationLostError)
    provider.script(Fault.html(404))
    transcript_id = await OpenAITranscript(llm.client).create([])
    astray = await hear(llm.stream(request("Hello", transcript_id=transcript_id)))
    assert type(astray.error) is ProviderError


async def test_closing_the_stream_ends_the_call_at_once(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(Reply(text="a b c", end="stall", end_after=1))
    stream = llm.stream(request("Well?"))
    await first_delta(stream)
    await stream.aclose()
    await until(lambda: len(provider.disconnects) == 1)


async def test_cancelling_the_reader_ends_the_call_at_once(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(Reply(text="a b c", end="stall", end_after=1))
    task = asyncio.create_task(hear(llm.stream(request("Well?"))))
    await until(lambda: len(provider.requests) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: len(provider.disconnects) == 1)


async def test_the_outcome_of_a_cut_response_is_what_the_provider_kept(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    heard, transcript_id = await cut_off(provider, llm, cut_completes=True)
    outcome = await llm.outcome(heard.started.provider_response_id or "")
    assert outcome is not None
    assert (outcome.status, outcome.text) == ("completed", "a b c")
    assert outcome.usage is not None
    assert outcome.usage.output_tokens == provider.bills[0].usage.output_tokens
    assert provider.conversations[transcript_id] == ()


async def test_the_outcome_of_a_failed_response_has_no_usage(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    heard, _ = await cut_off(provider, llm, cut_completes=False)
    outcome = await llm.outcome(heard.started.provider_response_id or "")
    assert outcome is not None
    assert (outcome.status, outcome.usage, outcome.error_code) == ("failed", None, "server_error")


async def test_the_outcome_of_a_running_response_is_not_known_yet(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(Reply(text="a b c", end="stall", end_after=1))
    stream = llm.stream(request("Hello", transcript_id=await OpenAITranscript(llm.client).create([])))
    started = await anext(stream)
    assert isinstance(started, ModelStarted)
    assert await llm.outcome(started.provider_response_id or "") is None
    await stream.aclose()


async def test_what_was_not_stored_has_no_outcome(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    heard = await hear(llm.stream(request("Hello")))
    assert await llm.outcome(heard.started.provider_response_id or "") is None


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.http(401), ProviderError),
        (Fault.http(500, should_retry=False), ProviderUnavailableError),
        (Fault.http(429, should_retry=False), ProviderUnavailableError),
        (Fault.html(200), ProviderError),
        (Fault.broken_json(), ProviderError),
    ],
)
async def test_a_provider_that_will_not_tell_the_outcome_is_an_error(
    provider: OpenAIStandIn, llm: ResponsesLLM, fault: Fault, kind: type[ModelError]
) -> None:
    provider.script_route("GET /responses/{response_id}", fault)
    with pytest.raises(kind):
        await llm.outcome("resp_1")


async def test_a_short_failure_does_not_hide_the_outcome(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    heard, _ = await cut_off(provider, llm, cut_completes=True)
    provider.script_route("GET /responses/{response_id}", Fault.http(503, retry_after_s=0.01), Fault.cut())
    assert await llm.outcome(heard.started.provider_response_id or "") is not None


async def test_calls_one_after_the_other_share_a_connection() -> None:
    body = GOOD_ANSWER
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        try:
            while (head := await reader.readuntil(b"\r\n\r\n")) and (length := content_length(head)):
                await reader.readexactly(length)
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                writer.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0.01)  # the end of the body comes a little after the last event
                writer.write(b"0\r\n\r\n")
        except asyncio.IncompleteReadError:
            pass
        finally:  # also where the test is over before it hears that the client is gone
            writer.close()

    async with asyncio.timeout(30), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_client("sk-test", f"http://127.0.0.1:{port}/v1") as client:
            for _ in range(3):
                assert (await hear(ResponsesLLM(client).stream(request("Well?")))).ended.text == "one"
    assert connections == 1


OK = b"HTTP/1.1 200 OK\r\n"

NO_HTTP: dict[str, bytes] = {
    "nothing": b"",
    "another protocol": b"hello\r\n\r\n",
    "half a head": OK + b"content-",
    "an endless header": OK + b"x: " + b"a" * 100_000 + b"\r\n\r\n",
    "a broken chunk": OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n",
    "a broken compression": OK + b"content-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
    "less than was promised": OK + b"content-length: 100\r\n\r\nabc",
    "half a refusal": b"HTTP/1.1 400 Bad Request\r\ncontent-length: 100\r\n\r\nabc",
    "a redirection without end": b"HTTP/1.1 307 Moved\r\nlocation: /v1/responses\r\ncontent-length: 0\r\n\r\n",
}
GARBLED_HTTP = ("another protocol", "an endless header", "a broken chunk", "a broken compression")


@pytest.mark.parametrize("fault", sorted(NO_HTTP))
async def test_an_answer_that_is_no_proper_http_is_a_bad_answer_and_shows_no_key(fault: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(NO_HTTP[fault])
        writer.close()

    async with asyncio.timeout(30), await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with open_client("sk-canary", f"http://127.0.0.1:{port}/v1") as client:
            error = (await hear(ResponsesLLM(client, QUICK).stream(request("Well?")))).error
    assert type(error) is ProviderError
    assert error.may_have_run
    assert ("no answer in HTTP/1.1" in str(error)) is (fault in GARBLED_HTTP)
    assert "canary" not in f"{error!r} {error.__cause__!r} {error.__context__!r}"


GOOD_ANSWER = event_stream(created(), delta("one"), completed()).body


async def test_whether_a_reply_has_come_as_a_whole_is_known_when_it_begins(provider: OpenAIStandIn) -> None:
    async with answering(GOOD_ANSWER, "content-type: text/event-stream") as at_once:
        starts = []
        for base_url in (f"http://{at_once.address}/v1", provider.base_url):
            provider.script(Reply(text="a b c", end="stall", end_after=1))
            async with open_client("sk-test", base_url, silence_timeout_s=0.3) as client:
                events = ResponsesLLM(client, QUICK).stream(request("Well?"))
                starts.append(await anext(events))
                await events.aclose()
    assert [start.is_whole for start in starts if isinstance(start, ModelStarted)] == [True, False]


def content_length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next(int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:"))


async def cut_off(provider: OpenAIStandIn, llm: ResponsesLLM, *, cut_completes: bool) -> tuple[Heard, str]:
    transcript_id = await OpenAITranscript(llm.client).create([])
    provider.script(Reply(text="a b c", end="cut", end_after=1, cut_completes=cut_completes))
    heard = await hear(llm.stream(request("Hello", transcript_id=transcript_id)))
    assert heard.deltas == ["a "]
    return heard, transcript_id


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the stand-in lives in another thread
            await asyncio.sleep(0.005)


async def test_it_samples_by_what_this_api_knows(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    turn = request("Hello")
    await hear(llm.stream(replace(turn, sampling=Sampling(top_p=0.5, verbosity="low"))))
    body = provider.requests[0].body
    assert (body["top_p"], body["text"]) == (0.5, {"verbosity": "low"})
    refused = await hear(llm.stream(replace(turn, sampling=Sampling(top_p=0.5, seed=1))))
    assert isinstance(refused.error, InvalidRequestError)
    assert refused.error.errors[0][0] == "seed"
    assert len(provider.requests) == 1


@pytest.mark.parametrize(
    ("deltas", "stop", "told"),
    [
        (("One", " two", " three"), ["END"], "One two three"),
        (("One", " tw", "o END th", "ree"), ["END"], "One two "),
        (("One E", "N", "D two"), ["END", "two"], "One "),
        (("One EN", "o"), ["END"], "One ENo"),
        (("One EN",), ["END"], "One EN"),
        (
            (
                "EN",
                "END",
            ),
            ["END"],
            "EN",
        ),
        (("aab", "aabc"), ["aabc"], "aab"),
        (("a two b one",), ["one", "two"], "a "),
        (("END",), ["END"], ""),
    ],
)
async def test_a_text_that_ends_the_reply_ends_it_here_and_what_came_beyond_is_charged(
    provider: OpenAIStandIn, llm: ResponsesLLM, deltas: tuple[str, ...], stop: list[str], told: str
) -> None:
    provider.script(Reply(deltas=deltas, end="incomplete:max_output_tokens"), Reply(deltas=deltas))
    plain = await hear(llm.stream(request("Hello")))
    heard = await hear(llm.stream(replace(request("Hello"), sampling=Sampling(stop=stop))))
    assert "stop" not in provider.requests[-1].body
    assert heard.error is None
    assert ("".join(heard.deltas), heard.ended.text) == (told, told)
    assert (heard.ended.status, heard.ended.finish_reason) == ("completed", "stop")
    assert heard.ended.usage == plain.ended.usage


@pytest.mark.parametrize(
    ("deltas", "end", "told"),
    [
        (("One", " two", " three"), "incomplete:max_output_tokens", "One two"),
        (("One", " two", " three"), "completed", "One two"),
        (("One", " two"), "incomplete:max_output_tokens", "One two"),
    ],
)
async def test_a_reply_of_fewer_tokens_than_the_api_takes_is_cut_here_and_charged_as_it_was_written(
    provider: OpenAIStandIn, llm: ResponsesLLM, deltas: tuple[str, ...], end: str, told: str
) -> None:
    provider.script(Reply(deltas=deltas, end=end), Reply(deltas=deltas, end=end))
    plain = await hear(llm.stream(request("Hello")))
    heard = await hear(llm.stream(request("Hello", max_output_tokens=2)))
    assert provider.requests[-1].body["max_output_tokens"] == 16
    assert heard.error is None
    assert ("".join(heard.deltas), heard.ended.text) == (told, told)
    assert (heard.ended.status, heard.ended.finish_reason) == ("incomplete", "length")
    assert heard.ended.usage == plain.ended.usage


async def test_a_reply_as_short_as_it_should_be_is_whole(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(Reply(deltas=("One", " two")))
    heard = await hear(llm.stream(request("Hello", max_output_tokens=2)))
    assert (heard.ended.text, heard.ended.status, heard.ended.finish_reason) == ("One two", "completed", "stop")


async def test_a_reply_that_fails_beyond_the_text_that_ends_it_has_failed(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    provider.script(Reply(deltas=("One END", " two"), end="failed:server_error"))
    heard = await hear(llm.stream(replace(request("Hello"), sampling=Sampling(stop=["END"]))))
    assert "".join(heard.deltas) == "One "
    assert heard.error is not None or heard.ended.status == "failed"
