"""Functions that a model asks for, over both of OpenAI's APIs and the forms that compatible servers give them."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec.structs import replace
from tests.contracts.model_fixtures import QUICK
from tests.servers.openai import OpenAIStandIn
from tests.servers.openai_script import Fault, Reply

from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
from textllm_adapters.openai.client import Client, open_client
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_adapters.testing.models import NOON, hear, request, user
from textllm_core.errors import ConversationLostError
from textllm_core.ports.llm import LLM
from textllm_core.records.messages import Message
from textllm_core.records.model import ModelRequest, ModelThinking
from textllm_core.records.parts import OutputText
from textllm_core.records.tools import (
    FunctionTool,
    JsonObjectFormat,
    JsonSchemaFormat,
    NamedFunction,
    ToolCall,
    ToolResult,
)
from textllm_core.wire import to_json

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = FunctionTool(name="weather", description="The weather.", parameters=SCHEMA, strict=False)
OSLO = ToolCall(call_id="call_1", name="weather", arguments='{"city": "Oslo"}')
ASKED = Message(id="msg_2", role="assistant", content=(OutputText("Let me see."), OSLO), created_at=NOON)
RESULT = Message(
    id="msg_3", role="user", content=(ToolResult(call_id="call_1", output="rain"),), created_at=NOON
)  # fmt: skip


@pytest.fixture
async def client(provider: OpenAIStandIn) -> AsyncIterator[Client]:
    async with open_client("sk-test", provider.base_url) as client:
        yield client


BOTH = pytest.mark.parametrize("model", [ResponsesLLM, ChatCompletionsLLM])


@BOTH
async def test_calls_come_with_the_end_and_their_pieces_are_signs_of_life(
    provider: OpenAIStandIn, client: Client, model: Callable[..., LLM]
) -> None:
    provider.script(Reply(text="Let me see.", calls=(("weather", '{"city": "Oslo"}'), ("clock", "{}"))))
    heard = await hear(model(client, QUICK).stream(request("Is it raining?", tools=[WEATHER])))
    end = heard.ended
    assert (end.text, end.status, end.finish_reason) == ("Let me see.", "completed", "tool_calls")
    assert [(call.name, call.arguments) for call in end.tool_calls] == [
        ("weather", '{"city": "Oslo"}'),
        ("clock", "{}"),
    ]
    assert len({call.call_id for call in end.tool_calls}) == 2
    assert sum(event.characters for event in heard.events if isinstance(event, ModelThinking)) == 18
    assert provider.malformed == []


@BOTH
async def test_a_call_and_its_result_are_sent_as_the_api_has_them(
    provider: OpenAIStandIn, client: Client, model: Callable[..., LLM]
) -> None:
    heard = await hear(model(client, QUICK).stream(request("Is it raining?", ASKED, RESULT)))
    assert heard.ended.text.endswith("Results: rain")
    body = provider.requests[-1].body
    if model is ResponsesLLM:
        assert body["input"] == [
            {"type": "message", "role": "user", "content": "Is it raining?"},
            {"type": "message", "role": "assistant", "content": "Let me see."},
            {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Oslo"}'},
            {"type": "function_call_output", "call_id": "call_1", "output": "rain"},
        ]
    else:
        function = {"name": "weather", "arguments": '{"city": "Oslo"}'}
        assert body["messages"] == [
            {"role": "user", "content": "Is it raining?"},
            {
                "role": "assistant",
                "content": "Let me see.",
                "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ]


# No object; or one to lenient parsers alone: a number that is none, half a character.
WRONG_ARGUMENTS = ['{"city": Oslo}', '["Oslo"]', '{"a": NaN}', r'{"a": "\ud83d"}', r'{"\ud83d": 1}']


@BOTH
@pytest.mark.parametrize("arguments", WRONG_ARGUMENTS)
async def test_a_call_that_the_model_wrote_wrongly_is_sent_as_apis_take_it(
    provider: OpenAIStandIn, client: Client, model: Callable[..., LLM], arguments: str
) -> None:
    wrong = ToolCall(call_id="c" * 100, name="functions.weather" * 9, arguments=arguments)
    asked = Message(id="msg_2", role="assistant", content=(wrong,), created_at=NOON)
    told = Message(
        id="msg_3", role="user", content=(ToolResult(call_id=wrong.call_id, output="rain"),), created_at=NOON
    )
    heard = await hear(model(client, QUICK).stream(request("Is it raining?", asked, told)))
    assert heard.ended.text.endswith("Results: rain")
    assert provider.malformed == []
    body = provider.requests[-1].body
    if model is ResponsesLLM:
        _, sent, result = body["input"]
        assert len(sent["call_id"]) <= 64
        assert sent["call_id"] == result["call_id"]
    else:
        [call] = body["messages"][1]["tool_calls"]
        assert (
            call["id"] == body["messages"][2]["tool_call_id"] == wrong.call_id
        )  # servers write into it what they like
        sent = call["function"]
    assert (sent["name"], json.loads(sent["arguments"])) == (
        ("functions_weather" * 9)[:64],
        {"input": arguments},
    )


OPTIONS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (
        {"tools": [WEATHER]},
        {
            "tools": [
                {
                    "type": "function",
                    "name": "weather",
                    "description": "The weather.",
                    "parameters": SCHEMA,
                    "strict": False,
                }
            ]
        },
        {
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "weather",
                        "description": "The weather.",
                        "parameters": SCHEMA,
                        "strict": False,
                    },
                }
            ]
        },
    ),
    (
        {"tool_choice": NamedFunction("weather")},
        {"tool_choice": {"type": "function", "name": "weather"}},
        {"tool_choice": {"type": "function", "function": {"name": "weather"}}},
    ),
    (
        {"tool_choice": "required", "parallel_tool_calls": False},
        {"tool_choice": "required", "parallel_tool_calls": False},
        {"tool_choice": "required", "parallel_tool_calls": False},
    ),
    (
        {"response_format": JsonSchemaFormat(name="city", schema=SCHEMA, strict=True)},
        {"text": {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "city", "schema": SCHEMA, "strict": True},
            }
        },
    ),
    (
        {"response_format": JsonObjectFormat()},
        {"text": {"format": {"type": "json_object"}}},
        {"response_format": {"type": "json_object"}},
    ),
    ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
]


@pytest.mark.parametrize(("asked", "responses", "chat"), OPTIONS)
async def test_options_are_sent_as_each_api_has_them(
    provider: OpenAIStandIn, client: Client, asked: dict[str, Any], responses: dict[str, Any], chat: dict[str, Any]
) -> None:
    turn: ModelRequest = request("Hello", **asked)
    for model, expected in ((ResponsesLLM(client, QUICK), responses), (ChatCompletionsLLM(client, QUICK), chat)):
        assert (await hear(model.stream(turn))).error is None
        assert {name: provider.requests[-1].body.get(name) for name in expected} == expected
    assert provider.malformed == []


async def test_a_conversation_of_the_provider_keeps_calls_and_results(provider: OpenAIStandIn, client: Client) -> None:
    llm = ResponsesLLM(client, QUICK)
    transcript_id = await OpenAITranscript(client, QUICK).create([user("Is it raining?"), ASKED])
    heard = await hear(llm.stream(request(RESULT, transcript_id=transcript_id)))
    assert heard.ended.text.endswith("Results: rain")
    provider.script(Reply(calls=(("weather", "{}"),)))
    heard = await hear(llm.stream(request("And now?", transcript_id=transcript_id, tools=[WEATHER])))
    told = await llm.outcome(heard.started.provider_response_id or "")
    assert told is not None
    assert [*told.tool_calls] == [*heard.ended.tool_calls]
    (called,) = told.tool_calls
    told_call = {"type": "function_call", "call_id": called.call_id, "name": called.name, "arguments": called.arguments}
    silent = {"id": "resp_1", "object": "response", "status": "completed", "output": [told_call]}  # of the tools
    provider.script_route("GET /responses/{response_id}", Fault("answer", 200, json.dumps(silent).encode()))
    again = await llm.outcome("resp_1")
    assert again is not None
    assert (again.status, [*again.tool_calls]) == ("completed", [*heard.ended.tool_calls])
    lost = await hear(llm.stream(request("Well?", transcript_id=transcript_id)))  # it waits for what nobody sends
    assert isinstance(lost.error, ConversationLostError)


async def test_spaces_beside_a_call_are_no_text(provider: OpenAIStandIn, client: Client) -> None:
    asked = replace(ASKED, content=(OutputText(" \n"), OSLO))
    heard = await hear(ChatCompletionsLLM(client, QUICK).stream(request("Is it raining?", asked, RESULT)))
    assert heard.error is None
    (said,) = [each for each in provider.requests[-1].body["messages"] if each["role"] == "assistant"]
    assert said["content"] is None


def chunk(calls: object = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"tool_calls": calls} | more, "finish_reason": finish}]}


def piece(arguments: object, **more: Any) -> dict[str, Any]:
    return {"function": {"arguments": arguments} | ({"name": more.pop("name")} if "name" in more else {})} | more


WHOLE = {"id": "a", "name": "weather"}
QUIRKS: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str, str]]]] = {
    "numbered pieces": (
        [chunk([piece('{"a"', index=0, **WHOLE)]), chunk([piece(":1}", index=0)]), chunk(finish="tool_calls")],
        [("a", "weather", '{"a":1}')],
    ),
    "no numbers, each whole": (
        [chunk([piece("{}", **WHOLE)]), chunk([piece("{}", id="b", name="clock")]), chunk(finish="tool_calls")],
        [("a", "weather", "{}"), ("b", "clock", "{}")],
    ),
    "all numbered nought": (
        [chunk([piece("{}", index=0, **WHOLE)]), chunk([piece("{}", index=0, id="b", name="clock")], "stop")],
        [("a", "weather", "{}"), ("b", "clock", "{}")],
    ),
    "pieces without numbers": (
        [chunk([piece('{"a"', **WHOLE)]), chunk([piece(":1}")]), chunk(finish="tool_calls")],
        [("a", "weather", '{"a":1}')],
    ),
    "ids alike": (
        [chunk([piece("{}", index=0, **WHOLE), piece("{}", index=1, **WHOLE)], "tool_calls")],
        [("a", "weather", "{}"), ("a_2", "weather", "{}")],
    ),
    "whole ones numbered alike without ids": (
        [chunk([piece(f'{{"city":"{city}"}}', index=0, id="", name="weather")]) for city in ("Oslo", "Rome", "Bern")]
        + [chunk(finish="tool_calls")],
        [(f"call_{n}", "weather", f'{{"city":"{city}"}}') for n, city in enumerate(("Oslo", "Rome", "Bern"))],
    ),
    "no id": ([chunk([piece("{}", name="weather")]), chunk(finish="tool_calls")], [("call_0", "weather", "{}")]),
    "arguments as an object": (
        [chunk([piece({"city": "Oslo"}, **WHOLE)], "tool_calls")],
        [("a", "weather", '{"city":"Oslo"}')],
    ),
    "no arguments": ([chunk([piece(None, **WHOLE)], "tool_calls")], [("a", "weather", "{}")]),
    "the name said again": (
        [chunk([piece("{", index=0, **WHOLE)]), chunk([piece("}", index=0, **WHOLE)], "tool_calls")],
        [("a", "weather", "{}")],
    ),
    "a whole message": (
        [{"choices": [{"message": {"content": None, "tool_calls": [piece("{}", **WHOLE)]}, "finish_reason": "stop"}]}],
        [("a", "weather", "{}")],
    ),
    "all of them again at the end": (
        [
            chunk([piece("{}", index=0, **WHOLE), piece("{}", index=1, id="b", name="clock")]),
            {"choices": [{"delta": {}, "message": {"tool_calls": [piece("{}", **WHOLE)]}, "finish_reason": "stop"}]},
        ],
        [("a", "weather", "{}"), ("b", "clock", "{}")],
    ),
    "an end as of old": ([chunk([piece("{}", **WHOLE)], "function_call")], [("a", "weather", "{}")]),
    "no name": ([chunk([piece("{}", id="a")], content="Hi."), chunk(finish="stop")], []),
    "no calls at all": ([chunk(content="Hi.", finish="tool_calls")], []),
    "cut short": ([chunk([piece('{"a', **WHOLE)], content="Hi."), chunk(finish="length")], []),
}


@pytest.mark.parametrize(("size", "kept"), [(300, True), (99_999, False)])
async def test_what_gemini_puts_beside_a_call_goes_back_with_it(
    provider: OpenAIStandIn, client: Client, size: int, kept: bool
) -> None:
    signed = piece("{}", **WHOLE) | {"extra_content": {"google": {"thought_signature": "\0\ud83d" + "s" * size}}}
    body = b"data: " + json.dumps(chunk([signed], "tool_calls")).encode() + b"\n\ndata: [DONE]\n\n"
    provider.script(Fault("answer", 200, body, "text/event-stream"))
    llm = ChatCompletionsLLM(client, QUICK)
    end = (await hear(llm.stream(request("Hello", tools=[WEATHER])))).ended
    asked = Message(id="msg_2", role="assistant", content=tuple(end.tool_calls), created_at=NOON)
    told = Message(id="msg_3", role="user", content=(ToolResult(call_id="a", output="rain"),), created_at=NOON)
    await hear(llm.stream(request("Hello", asked, told)))
    [sent] = provider.requests[-1].body["messages"][1]["tool_calls"]
    expected = {"google": {"thought_signature": "\0\ufffd" + "s" * size}}
    assert sent.get("extra_content") == (expected if kept else None)
    assert "\0" not in str(to_json(asked))
    spoiled = replace(asked, content=(replace(end.tool_calls[0], beside="[" * 9999, arguments="[" * 9999),))
    assert (await hear(llm.stream(request("Hello", spoiled, told)))).ended.status == "completed"


@pytest.mark.parametrize("quirk", QUIRKS)
async def test_calls_are_read_in_whatever_pieces_they_come(provider: OpenAIStandIn, client: Client, quirk: str) -> None:
    chunks, expected = QUIRKS[quirk]
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in [*chunks, {"choices": []}])
    provider.script(Fault("answer", 200, body + b"data: [DONE]\n\n", "text/event-stream"))
    end = (await hear(ChatCompletionsLLM(client, QUICK).stream(request("Hello", tools=[WEATHER])))).ended
    assert [(call.call_id, call.name, call.arguments) for call in end.tool_calls] == expected
    assert end.finish_reason == ("tool_calls" if expected else "length" if quirk == "cut short" else "stop")


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"call_id": "a", "name": "weather", "arguments": "{}"}, [("a", "weather", "{}")]),
        ({"id": "fc_1", "name": "weather", "arguments": {"a": 1}}, [("fc_1", "weather", '{"a":1}')]),
        ({"call_id": "a", "arguments": "{}"}, []),
        ({"call_id": "a", "name": "weather", "arguments": '{"a', "status": "incomplete"}, []),
    ],
)
@pytest.mark.parametrize("told", ["with the end", "item by item"])
async def test_calls_are_read_out_of_whatever_tells_them(
    provider: OpenAIStandIn, client: Client, item: dict[str, Any], expected: list[tuple[str, str, str]], told: str
) -> None:
    item = {"type": "function_call"} | item
    said: list[dict[str, Any]] = [{"type": "response.created", "response": {"id": "r", "model": "m"}}]
    if told == "item by item":
        said.append({"type": "response.output_item.done", "item": item})
    output = [item] if told == "with the end" else []
    said.append({"type": "response.completed", "response": {"id": "r", "status": "completed", "output": output}})
    body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in said)
    provider.script(Fault("answer", 200, body, "text/event-stream"))
    end = (await hear(ResponsesLLM(client, QUICK).stream(request("Hello", tools=[WEATHER])))).ended
    assert [(call.call_id, call.name, call.arguments) for call in end.tool_calls] == expected
