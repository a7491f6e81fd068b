"""Servers that refuse what others take: they are not sent it again, and the turn is answered all the same."""

from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec.structs import replace
from tests.contracts.model_fixtures import QUICK
from tests.servers.picky import Json, Picky, picky

from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
from textllm_adapters.openai.client import open_client
from textllm_adapters.openai.deployments import Deployments
from textllm_adapters.openai.dialect import Dialect
from textllm_adapters.testing.models import Heard, hear, request
from textllm_core.errors import ContextTooLongError, InvalidRequestError, ProviderError
from textllm_core.records.messages import Message
from textllm_core.records.tools import FunctionTool, ToolCall, ToolResult

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ALL = Dialect(max_completion_tokens=False)


def without(name: str, said: object, status: int = 422) -> Any:
    return lambda body: (status, said) if name in body else None


def of_small_context(body: Json) -> tuple[int, object] | None:
    """As vLLM has it; eight tokens are asked."""
    if body["max_tokens"] + 8 <= 2048:
        return None
    said = (
        "This model's maximum context length is 2048 tokens. However, you requested "
        f"{body['max_tokens'] + 8} tokens (8 in the messages, {body['max_tokens']} in the completion)."
    )
    return 400, {"error": {"message": said, "type": "BadRequestError", "code": 400}}


def of_newer_vllm(body: Json) -> tuple[int, object] | None:
    if body["max_tokens"] + 8 <= 2048:
        return None
    said = (
        f"'max_tokens' or 'max_completion_tokens' is too large: {body['max_tokens']}. This model's maximum context "
        "length is 2048 tokens and your request has 8 input tokens."
    )
    return 400, {"error": {"message": said, "type": "BadRequestError", "param": None, "code": 400}}


def of_short_replies(body: Json) -> tuple[int, object] | None:
    if body["max_tokens"] <= 1024:
        return None
    said = "max_tokens is too large: 4096. This model supports at most 1024 completion tokens."
    return 400, {"error": {"message": said, "type": "invalid_request_error", "param": "max_tokens", "code": None}}


MISTRAL = {
    "detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]
}
GPT_5 = {
    "error": {
        "message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
        "instead.",
        "type": "invalid_request_error",
        "param": "max_tokens",
        "code": "unsupported_parameter",
    }
}
GROQ = {"error": {"message": "property 'prompt_cache_key' is unsupported", "type": "invalid_request_error"}}
OLDER = {"error": {"message": "Unrecognized request argument supplied: safety_identifier", "type": "invalid"}}
RULES = {
    "stream_options": (without("stream_options", MISTRAL), "stream_options"),
    "max_tokens": (without("max_tokens", GPT_5, 400), "max_tokens"),
    "prompt_cache_key": (without("prompt_cache_key", GROQ, 400), "prompt_cache_key"),
    "safety_identifier": (without("safety_identifier", OLDER, 400), "safety_identifier"),
}


async def ask(server: Picky, times: int = 1, dialect: Dialect | None = ALL, **more: Any) -> list[Heard]:
    async with open_client("k", server.base_url) as client:
        llm = ChatCompletionsLLM(client, QUICK, dialect)
        return [await hear(llm.stream(replace(request("Well?", max_output_tokens=4096), **more))) for _ in range(times)]


@pytest.mark.parametrize("name", RULES)
async def test_a_field_that_a_server_refuses_is_not_sent_again(name: str) -> None:
    rule, field = RULES[name]
    async with picky(rule) as server:
        heard = await ask(server, 2)
    assert [each.error for each in heard] == [None, None]
    assert [field in body for body in server.bodies] == [True, False, False]
    assert server.bodies[-1].get("max_tokens", server.bodies[-1].get("max_completion_tokens")) == 4096


@pytest.mark.parametrize("rule", [of_small_context, of_newer_vllm])
async def test_a_reply_is_fitted_to_a_context_that_the_server_tells(rule: Any) -> None:
    async with picky(rule) as server:
        first, second = await ask(server, 2)
        assert (first.error, second.error) == (None, None)
        first_asked, *further = (body["max_tokens"] for body in server.bodies)
        assert (first_asked, len(further)) == (4096, 2)
        assert all(1900 < length <= 2040 for length in further)


async def test_a_reply_is_no_longer_than_the_server_writes() -> None:
    async with picky(of_short_replies) as server:
        await ask(server, 2)
    assert [body["max_tokens"] for body in server.bodies] == [4096, 1024, 1024]


async def test_a_turn_that_does_not_fit_is_told_so() -> None:
    said = "This model's maximum context length is 2048 tokens. However, your messages resulted in 5000 tokens."
    async with picky(lambda _: (400, {"error": {"message": said, "code": "context_length_exceeded"}})) as server:
        [heard] = await ask(server)
    assert isinstance(heard.error, ContextTooLongError)
    assert len(server.bodies) == 1


async def test_a_field_that_is_no_choice_of_ours_is_named_to_the_operator() -> None:
    said = {"error": {"message": "Unknown field", "param": "messages[0].content", "code": None}}
    async with picky(lambda _: (400, said)) as server:
        [heard] = await ask(server)
    assert isinstance(heard.error, ProviderError)
    assert "messages[0].content" in str(heard.error)
    assert len(server.bodies) == 1


async def test_newer_models_of_openai_are_asked_by_the_newer_name_wherever_they_are() -> None:
    async with picky() as server:
        for model in ("gpt-5-mini", "openai/gpt-5", "o3", "openai/o4-mini", "gpt-4o", "llama-o3"):
            await ask(server, model=model, dialect=Dialect.of_chat("openrouter.ai"))
    assert ["max_completion_tokens" in body for body in server.bodies] == [True] * 4 + [False] * 2
    assert not any({"safety_identifier", "prompt_cache_key", "store"} & body.keys() for body in server.bodies)


async def test_what_a_provider_has_not_is_refused_by_name() -> None:
    tool = FunctionTool(name="weather")
    async with picky() as server:
        [heard] = await ask(server, dialect=Dialect(tools=False), tools=(tool,))
    assert isinstance(heard.error, InvalidRequestError)
    assert "tools" in str(heard.error)
    assert not server.bodies


@pytest.mark.parametrize("version", [None, "2024-10-21"])
async def test_a_deployment_of_azure_is_asked_where_it_is(version: str | None) -> None:
    async with (
        picky() as server,
        open_client("k", server.base_url, headers={"x-of": "us"}, key_header="api-key") as client,
    ):
        llm = ChatCompletionsLLM(client, QUICK, deployments=Deployments({"gpt-4o": "our gpt"}, version))
        assert (await hear(llm.stream(request("Well?")))).error is None
    path = "/v1/chat/completions"
    if version is not None:
        path = f"/v1/deployments/our%20gpt/chat/completions?api-version={version}"
    assert (server.paths, server.bodies[0]["model"]) == ([path], "our gpt")
    assert (server.headers[0]["api-key"], server.headers[0]["x-of"]) == ("k", "us")
    assert "authorization" not in server.headers[0]


async def test_ids_of_calls_are_as_short_as_a_server_wants_them() -> None:
    said = "Tool call id was call_1 but must be a-z, A-Z, 0-9, with a length of 9."

    def rule(body: Json) -> tuple[int, object] | None:
        ids = [message["tool_call_id"] for message in body["messages"] if message["role"] == "tool"]
        return (400, {"object": "error", "message": said}) if any(len(each) != 9 for each in ids) else None

    calls = Message(
        id="m",
        role="assistant",
        created_at=NOON,
        content=(
            ToolCall(call_id="call_1", name="f", arguments="{}"),
            ToolCall(call_id="abcdef123", name="g", arguments="{}"),
        ),
    )
    results = Message(
        id="n",
        role="user",
        created_at=NOON,
        content=(ToolResult(call_id="call_1", output="1"), ToolResult(call_id="abcdef123", output="2")),
    )
    async with picky(rule) as server:
        heard = await ask(server, 2, messages=(*request("Well?").messages, calls, results))
    assert [each.error for each in heard] == [None, None]
    assert len(server.bodies) == 3
    _, asked, first, second = server.bodies[-1]["messages"]
    ids = [call["id"] for call in asked["tool_calls"]]
    assert ids == [first["tool_call_id"], second["tool_call_id"]]
    assert ids[1] == "abcdef123"
