"""Whatever we can send is what OpenAI's own description of its API allows; the stand-in refuses the rest."""

from collections.abc import AsyncIterator
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.contracts.model_fixtures import QUICK
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_shapes import refusal_of

from textllm_adapters.openai.bodies import input_items
from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
from textllm_adapters.openai.client import Client, open_client
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.testing.models import NOON, hear
from textllm_adapters.testing.stored_files import STORED, image, pdf, reading
from textllm_core.chat.tool_use import paired
from textllm_core.records.messages import Message
from textllm_core.records.model import ModelRequest
from textllm_core.records.parts import InputFile, InputText, OutputText, Refusal
from textllm_core.records.sampling import Sampling
from textllm_core.records.tools import (
    FunctionTool,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedFunction,
    ReasoningEffort,
    ToolCall,
    ToolResult,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NOTES = st.builds(lambda text: InputFile(key="k", media_type="text/plain", size=1, name=text, extracted=text), TEXT)
SAID = st.builds(InputText, TEXT)
CALL = st.builds(ToolCall, call_id=st.just("call_1"), name=st.just("weather"), arguments=TEXT)
RESULT = st.builds(ToolResult, call_id=st.just("call_1"), output=TEXT)
SCHEMA = st.just({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
TOOL = st.builds(
    FunctionTool,
    name=st.just("weather"),
    description=st.none() | TEXT,
    parameters=st.none() | SCHEMA,
    strict=st.none() | st.booleans(),
)
FORMAT = st.one_of(
    st.just(JsonObjectFormat()),
    st.builds(
        JsonSchemaFormat,
        name=st.just("city"),
        schema=SCHEMA,
        description=st.none() | TEXT,
        strict=st.none() | st.booleans(),
    ),
)
FILES = st.one_of(st.just(image("LLM/one.png")), NOTES)
NATIVE = st.one_of(FILES, st.just(pdf()))
REPLY = st.one_of(st.builds(OutputText, TEXT), st.builds(Refusal, TEXT))


def messages(of_user: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    def build(role: str, content: list[Any], status: str) -> Message:
        return Message(id="msg_1", role=role, content=tuple(content), created_at=NOON, status=status)  # type: ignore[arg-type]  # drawn from the literals

    status = st.sampled_from(["completed", "incomplete"])
    return st.one_of(
        st.builds(build, st.just("user"), st.lists(st.one_of(SAID, of_user), min_size=1, max_size=3), status),
        st.builds(build, st.just("user"), st.tuples(RESULT, SAID).map(list), status),
        st.builds(build, st.sampled_from(["system", "developer"]), st.tuples(SAID).map(list), status),
        st.builds(build, st.just("assistant"), st.lists(REPLY, max_size=2), status),
        st.builds(build, st.just("assistant"), st.tuples(REPLY, CALL).map(list) | st.tuples(CALL).map(list), status),
    )


def closed(past: list[Message]) -> tuple[Message, ...]:
    """A history as turns send it, and a turn behind it that answers what is open."""
    turn = Message(id="msg_1", role="user", content=(InputText("now"),), created_at=NOON)
    return paired((*past, turn))


def requests(of_user: st.SearchStrategy[Any], sampling: st.SearchStrategy[Sampling]) -> st.SearchStrategy[ModelRequest]:
    return st.builds(
        ModelRequest,
        model=st.just("gpt-4o"),
        messages=st.lists(messages(of_user), max_size=4).map(closed),
        instructions=st.none() | TEXT,
        max_output_tokens=st.integers(16, 100_000),
        safety_identifier=st.text("0123456789abcdef", max_size=64),
        cache_key=TEXT,
        temperature=st.none() | st.floats(0, 2),
        metadata=st.none() | st.dictionaries(st.text("k", max_size=64), TEXT, max_size=16),
        tools=st.lists(TOOL, min_size=1, max_size=2),
        tool_choice=st.sampled_from([None, "auto", "none", "required", NamedFunction("weather")]),
        parallel_tool_calls=st.none() | st.booleans(),
        response_format=st.none() | FORMAT,
        reasoning_effort=st.sampled_from([None, *get_args(ReasoningEffort)]),
        sampling=st.none() | sampling,
        read=st.just(reading(STORED)),
    )


SHARE = st.none() | st.floats(0, 1)
SAMPLED = st.builds(
    Sampling,
    top_p=SHARE,
    frequency_penalty=SHARE,
    presence_penalty=SHARE,
    seed=st.none() | st.integers(0, 2**63 - 1),
    stop=st.none() | st.lists(st.text("end", min_size=1), max_size=4),
)


EACH = settings(
    max_examples=40,  # each is a call over a socket, of about 5 ms
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # one stand-in hears them all
)


@pytest.fixture
async def client(provider: OpenAIStandIn) -> AsyncIterator[Client]:
    async with open_client("sk-test", provider.base_url) as client:
        yield client


@EACH
@given(asked=requests(NATIVE, st.builds(Sampling, top_p=SHARE)), kept=st.booleans())
async def test_any_turn_is_taken_by_the_responses_api(
    provider: OpenAIStandIn, client: Client, asked: ModelRequest, kept: bool
) -> None:
    transcript = await OpenAITranscript(client, QUICK).create([]) if kept else None
    fields = {name: getattr(asked, name) for name in asked.__struct_fields__} | {"transcript_id": transcript}
    heard = await hear(ResponsesLLM(client, QUICK).stream(ModelRequest(**fields)))
    assert (heard.error, provider.malformed) == (None, [])


@EACH
@given(asked=requests(FILES, SAMPLED))
async def test_any_turn_is_taken_by_chat_completions(
    provider: OpenAIStandIn, client: Client, asked: ModelRequest
) -> None:
    heard = await hear(ChatCompletionsLLM(client, QUICK).stream(asked))
    assert (heard.error, provider.malformed) == (None, [])


@EACH
@given(past=st.lists(messages(NATIVE), max_size=22))
async def test_any_history_is_taken_by_the_conversations_api(
    provider: OpenAIStandIn, client: Client, past: list[Message]
) -> None:
    transcript_id = await OpenAITranscript(client, QUICK).create(past, read=reading(STORED))
    items = sum(len(input_items(message)) for message in past)
    assert (len(provider.conversations[transcript_id]), provider.malformed) == (items, [])


ITEM = {"type": "message", "role": "user", "content": "hi"}
OUTPUT = {"type": "output_text", "text": "hi"}
REPLIED = {"type": "message", "role": "assistant", "content": [OUTPUT]}
WHOLE = {**REPLIED, "id": "msg_1", "status": "completed", "content": [{**OUTPUT, "annotations": [], "logprobs": []}]}
ADD = "POST /conversations/{conversation_id}/items"


@pytest.mark.parametrize(
    ("route", "body", "code", "param"),
    [
        ("POST /conversations", {"items": [REPLIED]}, "invalid_value", "items[0].content[0].type"),
        (ADD, {"items": [ITEM, REPLIED]}, "invalid_value", "items[1].content[0].type"),
        (ADD, {"items": [ITEM] * 21}, "array_above_max_length", "items"),
        (ADD, {}, "missing_required_parameter", "items"),
        (ADD, {"items": [{"type": "reasoning", "summary": []}]}, "missing_required_parameter", "items[0].id"),
        ("POST /conversations", {"items": "hi"}, "invalid_type", "items"),
        ("POST /conversations", {"metadata": {"k": None}}, "invalid_type", "metadata.k"),
        ("POST /responses", {"model": "m", "input": [REPLIED]}, "invalid_value", "input[0].content[0].type"),
        ("POST /responses", {"model": "m", "temperature": 3}, "integer_above_max_value", "temperature"),
        ("POST /responses", {"model": "m", "safety_identifier": "x" * 65}, "string_above_max_length", None),
        ("POST /responses", {"input": "hi"}, "missing_required_parameter", "model"),
        ("POST /chat/completions", {"model": "m"}, "missing_required_parameter", "messages"),
        ("POST /chat/completions", {"model": "m", "messages": [{"role": "user", "content": 7}]}, "invalid_type", None),
    ],
)  # fmt: skip
def test_what_the_description_refuses_is_refused_with_its_place(
    route: str, body: dict[str, Any], code: str, param: str | None
) -> None:
    refusal = refusal_of(route, body)
    assert refusal is not None
    assert refusal.error["code"] == code
    assert param in (None, refusal.error["param"])


@pytest.mark.parametrize("item", [ITEM, WHOLE, {**ITEM, "role": "assistant"}, {"role": "developer", "content": "hi"}])
def test_what_the_description_allows_is_taken(item: dict[str, Any]) -> None:
    assert refusal_of("POST /conversations", {"items": [item]}) is None
    assert refusal_of("POST /responses", {"model": "m", "input": [item]}) is None


def test_a_body_that_openai_would_refuse_fails_the_test_that_sent_it() -> None:
    provider = OpenAIStandIn()
    with pytest.raises(AssertionError, match=r"POST /conversations: .*items\[0\]"), provider:
        provider.malformed.append(f"POST /conversations: {refusal_of('POST /conversations', {'items': [REPLIED]})}")
