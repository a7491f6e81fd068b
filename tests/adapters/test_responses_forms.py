"""Where servers other than OpenAI's put the text of a response, and what it used."""

import json
from typing import Any

import pytest
from tests.adapters.test_responses_llm import completed, created, delta, event_stream
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Fault

from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.testing.models import hear, request
from textllm_core.errors import ProviderUnavailableError
from textllm_core.records.model import ModelCounted
from textllm_core.usage import Usage

OUTPUT = [{"type": "message", "content": "one"}]


@pytest.mark.parametrize("kind", ["response.created", "response.in_progress"])
@pytest.mark.parametrize("end", [completed(), None, {"type": "response.failed", "response": {}}, {"type": "error"}])
async def test_usage_that_only_the_beginning_states_is_charged(
    provider: OpenAIStandIn, llm: ResponsesLLM, kind: str, end: dict[str, Any] | None
) -> None:
    begun = {"type": kind, "response": {"usage": {"input_tokens": 5, "output_tokens": 0}}}
    provider.script(event_stream(begun, delta("one"), *([] if end is None else [end])))
    heard = await hear(llm.stream(request("Well?")))
    assert ModelCounted(Usage(5, 0)) in heard.events
    if end is not None:
        assert (heard.ended.usage, heard.ended.is_estimate) == (Usage(5, 1), True)


async def test_usage_beside_a_piece_of_the_text_is_charged(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    stated = {"usage": {"input_tokens": 5, "output_tokens": 1}}
    provider.script(event_stream(created(), delta("one") | stated, {"type": "response.completed", **stated}))
    heard = await hear(llm.stream(request("Well?")))
    assert (heard.ended.usage, heard.ended.text) == (Usage(5, 1), "one")


async def test_usage_of_a_message_alone_is_charged(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    message = OUTPUT[0] | {"usage": {"input_tokens": 5, "output_tokens": 1}}
    provider.script(event_stream(created(), delta("one"), completed(output=[message])))
    assert (await hear(llm.stream(request("Well?")))).ended.usage == Usage(5, 1)


async def test_usage_beside_the_response_is_charged(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    end = completed() | {"usage": {"input_tokens": 5, "output_tokens": 1}}
    end["response"] = end["response"] | {"usage": None}
    provider.script(event_stream(created(), delta("one"), end))
    assert (await hear(llm.stream(request("Well?")))).ended.usage == Usage(5, 1)


@pytest.mark.parametrize(
    "whole",
    [
        [{"type": "response.output_text.done", "text": "one two"}],
        [{"type": "response.content_part.done", "part": {"type": "output_text", "text": "one two"}}],
        [{"type": "response.output_item.done", "item": {"type": "message", "content": "one two"}}],
        [
            {"type": "response.output_text.done", "text": "one"},
            {"type": "response.output_text.done", "text": " two"},
            {"type": "response.output_item.done", "item": {"type": "reasoning", "content": "hm"}},
        ],
    ],
)
@pytest.mark.parametrize("deltas", [[], [delta("one")]])
async def test_what_only_the_ends_of_items_and_texts_say_is_the_reply(
    provider: OpenAIStandIn, llm: ResponsesLLM, whole: list[dict[str, Any]], deltas: list[dict[str, Any]]
) -> None:
    provider.script(event_stream(created(), *deltas, *whole, completed(output=[])))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.text, ended.status, ended.finish_reason) == ("one two", "completed", "stop")


@pytest.mark.parametrize("before", [[], [created(), delta("one")]])
async def test_what_a_failure_cost_is_charged_where_it_is_said_behind_it(
    provider: OpenAIStandIn, llm: ResponsesLLM, before: list[dict[str, Any]]
) -> None:
    failure = {"code": "rate_limit_exceeded", "message": "Try again in 7s."}
    end = {
        "type": "response.failed",
        "response": {"status": "failed", "usage": {"input_tokens": 5, "output_tokens": 9}},
    }
    provider.script(event_stream(*before, {"type": "error", **failure}, end))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.status, ended.usage, ended.is_estimate) == ("failed", Usage(5, 9), False)
    assert isinstance(ended.error, ProviderUnavailableError)
    assert ended.error.retry_after_s == 7


async def test_a_refusal_that_only_its_end_says_is_one(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    provider.script(event_stream(created(), {"type": "response.refusal.done", "refusal": "no"}, completed(output=[])))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.text, ended.finish_reason) == ("no", "refusal")


async def test_what_the_deltas_left_out_comes_with_the_end(provider: OpenAIStandIn, llm: ResponsesLLM) -> None:
    message = {"type": "message", "content": [{"type": "output_text", "text": "one two"}]}
    provider.script(event_stream(created(), delta("one"), completed(output=[message])))
    heard = await hear(llm.stream(request("Well?")))
    assert heard.deltas == ["one", " two"]
    assert heard.ended.text == "one two"


@pytest.mark.parametrize("form", ["a list", "lines", "one blank line", "in spaces"])
async def test_events_in_forms_of_their_own_are_read(provider: OpenAIStandIn, llm: ResponsesLLM, form: str) -> None:
    events = [created(), delta("one"), completed(usage={"input_tokens": 5, "output_tokens": 1})]
    body = {
        "a list": json.dumps(events, indent=1),
        "lines": "\n".join(map(json.dumps, events)),
        "one blank line": "".join(f"data: {json.dumps(event)}\n" for event in events) + "\n",
        "in spaces": json.dumps({"object": "response", **events[-1]["response"], "output": OUTPUT}, indent=1),
    }[form]
    provider.script(Fault("answer", 200, body.encode()))
    ended = (await hear(llm.stream(request("Well?")))).ended
    assert (ended.text, ended.status, ended.usage) == ("one", "completed", Usage(5, 1))
