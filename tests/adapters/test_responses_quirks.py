"""How servers other than OpenAI's end a response, and what is made of it."""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.adapters.test_responses_llm import completed, created, delta, event_stream
from tests.contracts.model_fixtures import QUICK
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Fault, Reply

from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.testing.models import hear, request
from textllm_adapters.wiring import load_settings, open_textllm
from textllm_core import Caller, TextTurn
from textllm_core.errors import (
    ContentRefusedError,
    ContextTooLongError,
    ProviderError,
    ProviderUnavailableError,
    TextLLMError,
    UnsupportedMediaTypeError,
)
from textllm_core.records.model import ModelThinking
from textllm_core.texts import well_formed
from textllm_core.usage import Usage

ENDS = ("failed", "beside", "without", "completed")
OUTPUT = [{"type": "message", "content": "one"}]
TOO_LONG = "This model's maximum context length is 8192 tokens."


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "context_length_exceeded", "message": ""}, ContextTooLongError),
        ({"code": "server_error", "message": f"Error code: 400 - {TOO_LONG}"}, ContextTooLongError),
        ({"code": 400, "message": TOO_LONG}, ContextTooLongError),
        ({"code": "rate_limit_exceeded", "message": "Try again in 7s."}, ProviderUnavailableError),
        ({"code": "insufficient_quota"}, ProviderError),
        ({"code": "content_filter", "message": "by our content policy"}, ContentRefusedError),
        (TOO_LONG, ContextTooLongError),
        ([TOO_LONG], ContextTooLongError),
        ({"code": ["x"], "type": {}}, ProviderError),
    ],
)
@pytest.mark.parametrize(
    "shape",
    [
        "failed",
        "beside",
        "without",
        "completed",
        "nested",
        "its own",
        "flat",
        "unnamed",
        "in a list",
        "in words",
        "alone",
    ],
)
async def test_why_a_response_failed_is_told(
    provider: OpenAIStandIn, llm: ResponsesLLM, error: Any, kind: type[TextLLMError], shape: str
) -> None:
    flat = error if isinstance(error, dict) else {"message": error}
    event = {
        "failed": {"type": "response.failed", "response": {"status": "failed", "error": error}},
        "beside": {"type": "response.failed", "response": {"status": "failed"}, "error": error},
        "without": {"type": "response.failed", "error": error},
        "completed": completed(status="failed", error=error),
        "its own": {"type": "response.error", "error": error},
        "nested": {"type": "error", "error": error},
        "flat": flat | {"type": "error"},
        "unnamed": b"data: " + json.dumps({"error": error}).encode() + b"\n\n",
        "in a list": b"data: " + json.dumps([{"error": error}]).encode() + b"\n\n",
        "in words": f"event: error\ndata: Error: {error}\n\n".encode(),
        "alone": json.dumps({"error": error}).encode(),
    }[shape]
    if shape == "alone":
        assert isinstance(event, bytes)
        provider.script(Fault("answer", 200, event))
    else:
        provider.script(event_stream(created(), event))
    heard = await hear(llm.stream(request("Well?")))
    told = heard.ended.error if shape in ENDS else heard.error
    assert type(told) is kind
    if isinstance(told, ProviderUnavailableError):
        assert told.retry_after_s == 7
    if "quota" in str(error):
        assert "no quota left" in str(told)


@pytest.mark.parametrize(
    ("stated", "status", "finish_reason"),
    [
        ({"status": "completed"}, "completed", "stop"),
        ({"status": None}, "completed", "stop"),
        ({"status": "in_progress"}, "completed", "stop"),
        ({"status": "incomplete"}, "incomplete", "length"),
        ({"incomplete_details": {"reason": "max_output_tokens"}}, "incomplete", "length"),
        ({"status": "tea_time"}, "incomplete", "length"),
        ({"status": "failed"}, "failed", "stop"),
        ({"status": "cancelled"}, "cancelled", "stop"),
        ({"error": {"code": "server_error"}}, "failed", "stop"),
        ({"status": 200}, "completed", "stop"),
        ({"incomplete_details": "max_output_tokens"}, "incomplete", "length"),
        ({"output": [{"type": "message", "status": "incomplete", "content": "one"}]}, "incomplete", "length"),
        ({"output": [{"type": "message", "status": "failed", "content": "one"}]}, "incomplete", "length"),
        ({"type": "response.done"}, "completed", "stop"),
        ({"type": "response.done", "status": "incomplete"}, "incomplete", "length"),
        ({"type": "response.cancelled", "status": "cancelled"}, "cancelled", "stop"),
        ({"incomplete_details": [], "output": "one", "usage": float("nan")}, "completed", "stop"),
    ],
)
async def test_an_end_that_says_it_is_none_is_believed(
    provider: OpenAIStandIn, llm: ResponsesLLM, stated: dict[str, Any], status: str, finish_reason: str
) -> None:
    end = completed(**{name: value for name, value in stated.items() if name != "type"})
    provider.script(event_stream(created(), delta("one"), end | {"type": stated.get("type", end["type"])}))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.text, ended.status, ended.finish_reason) == ("one", status, finish_reason)


@pytest.mark.parametrize(
    ("output", "text", "finish_reason"),
    [
        ([{"type": "message", "content": "one"}], "one", "stop"),
        ([{"type": "message", "content": ["one", " two"]}], "one two", "stop"),
        ([{"type": "reasoning", "content": "hm"}, {"type": "message", "content": "one"}], "one", "stop"),
        ([{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}], "no", "refusal"),
        ([{"type": "message", "content": [{"type": "text", "text": "one"}]}], "one", "stop"),
        ([{"role": "assistant", "content": [{"text": "one"}]}], "one", "stop"),
        ([{"type": "message", "content": [{"type": "reasoning_text", "text": "hm"}]}], "", "stop"),
        ([{"type": "message", "content": [{"type": "output_text", "text": {}}, None]}, None, 7], "", "stop"),
        ("one", "", "stop"),
    ],
)
async def test_an_output_of_any_shape_is_read(
    provider: OpenAIStandIn, llm: ResponsesLLM, output: object, text: str, finish_reason: str
) -> None:
    nothing: list[Any] = [
        {"type": "response.created", "response": None},
        {"type": "response.output_text.delta", "delta": None},
    ]
    provider.script(event_stream(*nothing, completed(output=output)))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.text, ended.finish_reason) == (text, finish_reason)
    body = json.dumps({"status": "completed", "output": output}).encode()
    provider.script_route("GET /responses/{response_id}", Fault("answer", 200, body))
    outcome = await llm.outcome("resp_1")
    assert outcome is not None
    assert (outcome.text, outcome.finish_reason) == (text, finish_reason)


async def test_unnamed_events_of_a_kind_of_their_own_say_nothing(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    nothing: list[dict[str, Any]] = [{"type": None}, {"type": 7, "object": ["x"]}, {"object": None}]
    said = [event | {"object": None} for event in (created(), delta("one"), completed())]
    provider.script(event_stream(*nothing, *said, named=False))
    heard = await hear(llm.stream(request("Well?")))
    assert (heard.ended.text, heard.ended.status) == ("one", "completed")


@pytest.mark.parametrize("response", ["", "resp_1", [], None, 7])
async def test_an_event_whose_response_is_none_ends_the_reply_that_came(
    provider: OpenAIStandIn, llm: ResponsesLLM, response: object
) -> None:
    begun, end = ({"type": f"response.{kind}", "response": response} for kind in ("created", "completed"))
    provider.script(event_stream(begun, delta("one"), b"data: null\n\n", end))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.text, ended.status, ended.finish_reason) == ("one", "completed", "stop")


@pytest.mark.parametrize("error", [{"code": None, "message": None}, {"code": "", "message": ""}, {"code": 0}, "none"])
async def test_an_error_in_which_nothing_stands_is_none(
    provider: OpenAIStandIn, llm: ResponsesLLM, error: object
) -> None:
    beside = json.dumps({"error": error, "status": "going on"}).encode()
    said = b"data: ping\n\ndata: [HEARTBEAT]\n\ndata:\n\ndata: " + beside + b"\n\n"
    provider.script(event_stream(created(), said, delta("one"), completed(error=error)))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.text, ended.status, ended.error) == ("one", "completed", None)


async def test_a_call_of_a_tool_is_no_reply(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    call = {"type": "function_call", "name": "brew", "arguments": "{}", "call_id": "call_1"}
    stated = {"usage": {"input_tokens": 5, "output_tokens": 1}}
    provider.script(
        event_stream(created(), completed(output=[call], **stated)),
        event_stream(created(), delta("one"), completed(output=[call], **stated)),
    )
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.status, ended.usage, type(ended.error)) == ("failed", Usage(5, 1), ProviderError)
    assert "wants to use a tool" in str(ended.error)
    assert (await hear(llm.stream(request("Well?")))).ended.status == "completed"


@pytest.mark.parametrize(
    ("status", "told", "finish_reason"),
    [("completed", "completed", "stop"), ("incomplete", "incomplete", "length"), ("failed", "failed", "stop")],
)
async def test_the_answer_of_a_server_that_does_not_stream_is_read(
    provider: OpenAIStandIn, llm: ResponsesLLM, status: str, told: str, finish_reason: str
) -> None:
    whole = completed(output=[{"type": "message", "content": "one"}], usage={"input_tokens": 5, "output_tokens": 1})
    body = whole["response"] | {"object": "response", "status": status}
    provider.script(Fault("answer", 200, json.dumps(body).encode()))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.text, ended.status, ended.finish_reason) == ("one", told, finish_reason)
    assert ended.usage == Usage(5, 1)


async def test_what_each_part_of_the_output_has_used_is_charged_where_the_whole_says_nothing(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    parts = [{"type": "message", "content": "one", "usage": {"input_tokens": n, "output_tokens": 1}} for n in (5, 7)]
    zeros = {"input_tokens": 0, "output_tokens": 0}
    provider.script(event_stream(created(), completed(output=parts, usage=zeros)))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.usage, ended.is_estimate) == (Usage(12, 2), True)


async def test_a_failure_in_no_shape_of_one_is_told_where_the_reply_has_no_end(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    provider.script(event_stream(created(), b"data: " + json.dumps({"detail": TOO_LONG}).encode() + b"\n\n"))
    assert isinstance((await hear(llm.stream(request("Well?")))).error, ContextTooLongError)
    said_aside = b"data: " + json.dumps({"detail": "Half done."}).encode() + b"\n\n"
    provider.script(event_stream(created(), said_aside, delta("one"), completed()))
    assert (await hear(llm.stream(request("Well?")))).ended.text == "one"


PAGE = b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>"


@pytest.mark.parametrize("api", [ResponsesLLM, ChatCompletionsLLM])
@pytest.mark.parametrize(
    ("body", "content_type", "kind", "words"),
    [
        (PAGE, "text/html", ProviderError, r"has nothing at /.* \(a page in the place of an answer\); "),
        (PAGE, "text/event-stream", ProviderError, "a page in the place of an answer"),
        (
            b'{"error": "Unexpected endpoint or method. (POST /responses)"}',
            *("application/json", ProviderError, r"has nothing at /.*; the operator must"),
        ),
        (b"Service temporarily unavailable", "text/plain", ProviderUnavailableError, "cannot answer now"),
        (b": busy\n\nOut of credits", "text/event-stream", ProviderError, "our account has no quota left"),
    ],
)
async def test_what_an_answer_says_that_is_no_stream_is_told_and_costs_nothing(
    provider: OpenAIStandIn,
    llm: ResponsesLLM,
    api: type[ResponsesLLM | ChatCompletionsLLM],
    body: bytes,
    content_type: str,
    kind: type[ProviderError],
    words: str,
) -> None:
    provider.script(Fault("answer", 200, body, content_type))
    error = (await hear(api(llm.client, QUICK).stream(request("Well?")))).error
    assert type(error) is kind
    assert re.search(words, str(error))
    assert error.report is not None
    assert error.report.is_answer  # so that nothing is charged, and a fallback asked


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirection_is_followed_with_all_that_is_asked_or_told_as_a_wrong_address(
    provider: OpenAIStandIn, llm: ResponsesLLM, status: int
) -> None:
    provider.script(Fault("answer", status, headers={"Location": "/v1/responses"}), Reply(text="one"))
    heard = await hear(llm.stream(request("Well?")))
    if status in (307, 308):
        assert heard.ended.text == "one"
    else:
        assert isinstance(heard.error, ProviderError)
        assert not heard.error.may_have_run
        assert f"has nothing at /responses ({status})" in str(heard.error)
        assert [sent.method for sent in provider.requests] == ["POST"]


async def test_reasoning_is_a_sign_of_life_before_the_text(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    thought = {"type": "response.reasoning_summary_text.delta", "delta": "hm"}
    provider.script(
        event_stream(thought, {"type": "response.reasoning_text.done", "text": "hm"}, delta("one"), completed())
    )
    heard = await hear(llm.stream(request("Well?")))
    assert heard.started.model == "gpt-4o"
    assert heard.events[1:3] == [ModelThinking(2, "hm"), ModelThinking(0)]
    assert heard.deltas == ["one"]


THOUGHT = {"type": "response.output_item.done", "item": {"type": "reasoning", "content": [{"text": "hm"}]}}


@pytest.mark.parametrize(
    "told",
    [
        [{"type": "response.reasoning_text.done", "text": "hm"}, THOUGHT],
        [THOUGHT],
        [{"type": "response.output_item.done", "item": {"type": "reasoning", "summary": [{"text": "hm"}]}}],
        [{"type": "response.reasoning_text.delta", "delta": "hm"}, THOUGHT],
    ],
)
async def test_what_is_thought_is_told_once_also_where_it_comes_whole(
    provider: OpenAIStandIn, llm: ResponsesLLM, told: list[dict[str, Any]]
) -> None:
    provider.script(event_stream(created(), *told, delta("one"), completed()))
    heard = await hear(llm.stream(request("Well?")))
    assert [event.words for event in heard.events if isinstance(event, ModelThinking) and event.words] == ["hm"]
    assert heard.deltas == ["one"]


async def test_openais_own_sign_of_life_while_a_model_thinks_in_silence_is_one(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    alive = {"type": "keepalive", "sequence_number": 3}
    provider.script(event_stream(created(), alive, alive, delta("one"), alive, completed()))
    heard = await hear(llm.stream(request("Well?")))
    assert heard.events[1:3] == [ModelThinking(0), ModelThinking(0)]
    assert (heard.deltas, heard.ended.text) == (["one"], "one")


@pytest.mark.usefixtures("one_day")
async def test_a_context_that_the_provider_finds_too_long_while_it_answers_costs_nothing(
    provider: OpenAIStandIn, tmp_path: Path
) -> None:
    environment = {"TEXTLLM_DATA_DIR": str(tmp_path), "OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": provider.base_url}
    provider.script(Reply(deltas=(), end="failed:context_length_exceeded"))
    async with open_textllm(load_settings(environ=environment, cwd=tmp_path)) as textllm:
        with pytest.raises(ContextTooLongError, match="What was sent is too long"):
            await textllm.send_message(Caller(), TextTurn("Well?", user_id="ada"))
        assert (await textllm.send_message(Caller(), TextTurn("Well?", user_id="ada"))).message_number == 1
        session = await textllm.administration.todays_session(Caller(), "ada")
    assert session.total_tokens == sum(bill.usage.input_tokens + bill.usage.output_tokens for bill in provider.bills)
    assert len(provider.bills) == 1


async def test_an_image_that_the_provider_keeps_and_the_model_cannot_see_is_told_for_what_it_is(
    provider: OpenAIStandIn, llm: ResponsesLLM
) -> None:
    transcript_id = await OpenAITranscript(llm.client).create([])
    provider.script(Fault.http(400, message="Invalid content type. image_url is only supported by certain models."))
    heard = await hear(llm.stream(request("And now?", transcript_id=transcript_id)))
    assert isinstance(heard.error, UnsupportedMediaTypeError)


async def test_half_a_character_is_no_reason_to_lose_a_reply(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    said = ["a", "\ud83d", "\ude00", "\ud83d", "b"]
    message = {"type": "message", "content": [{"type": "output_text", "text": "".join(said)}]}
    end = completed(output=[message], model="\ud83d", usage={"input_tokens": 5, "output_tokens": 5})
    provider.script(event_stream(created(), *map(delta, said), end), event_stream(end))
    for _ in range(2):
        heard = await hear(llm.stream(request("Well?")))
        assert well_formed(heard.ended.text) == "a\U0001f600\ufffdb"
        assert heard.ended.usage == Usage(5, 5)


async def test_an_outcome_is_of_whole_characters(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "a\ud83d"}]}
    body = json.dumps({"status": "completed", "output": [message]}).encode()
    provider.script_route("GET /responses/{response_id}", Fault("answer", 200, body))
    outcome = await llm.outcome("resp_1")
    assert outcome is not None
    assert outcome.text == "a\ufffd"


@pytest.mark.parametrize("body", ['"\\ud83d"', '{"\\ud83d": 1}', '{"output": [{"\\ud83d": 1}], "status": "completed"}'])
async def test_half_a_character_in_a_name_is_a_bad_answer_at_most(
    provider: OpenAIStandIn, llm: ResponsesLLM, body: str
) -> None:
    provider.script_route("GET /responses/{response_id}", Fault("answer", 200, body.encode()))
    with suppress(ProviderError):
        await llm.outcome("resp_1")
    data = f'event: response.completed\ndata: {{"response": {body}}}\n\n'.encode()
    provider.script(event_stream(created(), data))
    heard = await hear(llm.stream(request("Well?")))
    assert heard.error is None or type(heard.error) is ProviderError


@pytest.mark.parametrize("llm_type", [ResponsesLLM, ChatCompletionsLLM])
async def test_json_without_an_end_of_its_depth_is_a_bad_answer(
    provider: OpenAIStandIn, llm: ResponsesLLM, llm_type: type[ResponsesLLM | ChatCompletionsLLM]
) -> None:
    provider.script(event_stream(b'event: response.completed\ndata: {"usage": ' + b"[" * 100_000 + b"\n\n"))
    assert type((await hear(llm_type(llm.client, QUICK).stream(request("Well?")))).error) is ProviderError
