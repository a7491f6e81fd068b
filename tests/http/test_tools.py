"""`/chat` with functions: how they are asked for, what a reply tells of calls, and how results come back."""

import json
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.conftest import Server

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core.records.thoughts import Reasoning
from textllm_core.records.tools import FunctionTool, JsonSchemaFormat, NamedFunction, ToolCall

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
OSLO = ToolCall(call_id="call_1", name="weather", arguments='{"city": "Oslo"}')
TOLD = [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]
RAIN = [{"tool_call_id": "call_1", "content": "rain"}]


async def test_a_reply_tells_the_calls_and_the_next_turn_brings_their_results(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(tool_calls=(OSLO,)))
    asked = await server.post("/chat", {"message": "Is it raining?", "user_id": "ada", "tools": [WEATHER]})
    reply = asked.json()
    assert (reply["text"], reply["finish_reason"], reply["tool_calls"]) == ("", "tool_calls", TOLD)
    assert [*server.bench.llm.requests[0].tools] == [FunctionTool(name="weather", parameters=PARAMETERS)]
    conversation = {"conversation_id": reply["conversation_id"]}
    answered = await server.post("/chat", conversation | {"tool_results": RAIN, "tools": [WEATHER]})
    assert answered.status == 200
    assert "tool_calls" not in answered.json()
    assert answered.json()["text"].endswith("Results: call_1=rain")
    listed = (await server.get(f"/conversations/{reply['conversation_id']}/messages")).json()["data"]
    assert [message["content"] for message in listed][1:3] == [
        [{"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Oslo"}'}],
        [{"type": "function_call_output", "call_id": "call_1", "output": "rain"}],
    ]
    assert [message.get("finish_reason") for message in listed] == [None, "tool_calls", None, "stop"]
    await server.bench.check_books()


async def test_what_was_thought_before_a_call_is_shown_to_nobody(server: Server) -> None:
    thought = replace(OSLO, reasoning=Reasoning(made_by="here/", content='{"reasoning_content": "secret"}'))
    server.bench.llm.script(ScriptedReply(tool_calls=(thought,)))
    asked = await server.post("/chat", {"message": "Is it raining?", "user_id": "ada", "tools": [WEATHER]})
    conversation = asked.json()["conversation_id"]
    shown = [
        await server.get(f"/conversations/{conversation}/messages"),
        await server.get(f"/v1/conversations/{conversation}/items"),
    ]
    assert all(b"call_1" in each.body for each in [asked, *shown])
    assert all(b"secret" not in each.body for each in [asked, *shown])


async def test_a_stream_of_events_ends_with_the_calls(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(tool_calls=(OSLO,), text="Let me see."))
    asked = {"message": "Is it raining?", "tools": [WEATHER], "stream_format": "events"}
    stream = (await server.post("/chat/stream", asked)).body.decode()
    last = next(line for line in stream.split("\n\n")[::-1] if "reply.completed" in line)
    assert json.loads(last.partition("data: ")[2])["tool_calls"] == TOLD


async def test_choice_format_and_effort_reach_the_model(server: Server) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "city", "schema": PARAMETERS, "strict": True}}
    asked = {
        "message": "Hello",
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": schema,
        "reasoning_effort": "low",
    }
    assert (await server.post("/chat", asked)).status == 200
    sent = server.bench.llm.requests[0]
    assert (sent.tool_choice, sent.parallel_tool_calls, sent.reasoning_effort) == (
        NamedFunction("weather"),
        False,
        "low",
    )
    assert sent.response_format == JsonSchemaFormat(name="city", schema=PARAMETERS, strict=True)
    plain = {"message": "Hello", "response_format": {"type": "text"}, "tools": None, "tool_choice": None}
    assert (await server.post("/chat", plain)).status == 200
    assert (server.bench.llm.requests[1].response_format, [*server.bench.llm.requests[1].tools]) == (None, [])


DEEP: dict[str, Any] = {}
for _ in range(70):
    DEEP = {"properties": DEEP}


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({}, "message", "is required"),
        ({"tool_results": []}, "message", "is required"),
        ({"tool_results": RAIN}, "tool_results", "no call at all"),
        ({"tool_results": RAIN * 2}, "tool_results", "two results of the call call_1; send one result for each call"),
        ({"tool_results": [{"tool_call_id": "a"}]}, "tool_results[0].content", "is required"),
        ({"message": "x", "tools": 5}, "tools", "must be a list of objects"),
        ({"message": "x", "tools": [{"type": "web_search"}]}, "tools[0].type", 'must be "function"'),
        ({"message": "x", "tools": [{"type": "function"}]}, "tools[0].function", "is required"),
        (
            {"message": "x", "tools": [{"type": "function", "function": {"name": 5}}]},
            "tools[0].function.name",
            "must be a string",
        ),
        (
            {"message": "x", "tools": [{"type": "function", "function": {"name": "a", "code": "x"}}]},
            "tools[0].function.code",
            "is no field of this object",
        ),
        (
            {"message": "x", "tools": [{"type": "function", "function": {"name": "a", "parameters": DEEP}}]},
            "tools",
            "must not be nested deeper than 64 levels",
        ),
        ({"message": "x", "tool_choice": "maybe"}, "tool_choice", 'must be "auto" or "none" or "required" or an obj'),
        ({"message": "x", "tool_choice": "auto"}, "tool_choice", "needs tools beside it"),
        ({"message": "x", "response_format": "json"}, "response_format", "must be an object"),
        ({"message": "x", "response_format": {"type": "xml"}}, "response_format.type", 'must be "text" or "json_obj'),
        ({"message": "x", "reasoning_effort": "huge"}, "reasoning_effort", 'must be "high" or "low"'),
    ],
)
async def test_what_is_wrong_is_told_with_its_place(
    server: Server, fields: dict[str, Any], field: str, says: str
) -> None:
    answer = await server.post("/chat", fields)
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
    (error,) = answer.json()["errors"]
    assert error["field"] == field
    assert says in error["message"]
    assert server.bench.llm.requests == []


async def test_json_of_any_depth_is_no_failure_of_ours(server: Server) -> None:
    head = b'{"message":"x","tools":[{"type":"function","function":{"name":"a","parameters":'
    for depth in (900, 100_000):
        body = head + b'{"a":' * depth + b"1" + b"}" * depth + b"}}]}"
        answer = await server.call("POST", "/chat", [body[:60_000]], headers={"content-type": "application/json"})
        assert answer.status in (400, 413)


async def test_a_number_that_no_program_can_hold_is_refused_in_words(server: Server) -> None:
    tool = b'{"type":"function","function":{"name":"a","parameters":{"maximum":1e400}}}'
    json = {"content-type": "application/json"}
    answer = await server.call("POST", "/chat", [b'{"message":"x","tools":[' + tool + b"]}"], headers=json)
    (error,) = answer.json()["errors"]
    assert error["message"] == "must be JSON, without numbers that are out of range"
