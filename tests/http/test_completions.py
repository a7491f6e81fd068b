"""`/v1/chat/completions`: what is asked and answered; that it has OpenAI's shape, `conftest` checks of each answer."""

import asyncio
import base64
import json
import time
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.conftest import JSON, Answer, Server, chunks_of, serving
from tests.image_files import png
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.application import memory_administration
from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import (
    Caller,
    FunctionTool,
    JsonSchemaFormat,
    NamedFunction,
    ProviderError,
    ProviderUnavailableError,
    Sampling,
    ToolCall,
    ToolResult,
)

PATH = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
OSLO = ToolCall(call_id="call_1", name="weather", arguments='{"city": "Oslo"}')
ROME = ToolCall(call_id="call_2", name="weather", arguments="{}")
CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}},
    {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": "{}"}},
]


def nested(levels: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(levels):
        inner = {"a": inner}
    return inner


async def ask(server: Server, messages: list[dict[str, Any]] = HELLO, **more: Any) -> Answer:
    return await server.post(PATH, {"model": "gpt-4o", "messages": messages, "user": "ada"} | more)


async def stream(server: Server, messages: list[dict[str, Any]] = HELLO, **more: Any) -> list[dict[str, Any]]:
    answer = await ask(server, messages, stream=True, **more)
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    return chunks_of(answer)


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def ends_of(chunks: list[dict[str, Any]]) -> list[str]:
    return [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"] if choice["finish_reason"]]


REPLIES = {
    "text": (ScriptedReply(text="Good day."), ("Good day.", None, "stop", None)),
    "nothing": (ScriptedReply(text=""), ("", None, "stop", None)),
    "length": (ScriptedReply(text="Good", status="incomplete", finish_reason="length"), ("Good", None, "length", None)),
    "refusal": (ScriptedReply(refusal="I will not."), (None, "I will not.", "stop", None)),
    "text and refusal": (ScriptedReply(text="Hm. ", refusal="I will not."), ("Hm. ", "I will not.", "stop", None)),
    "late refusal": (ScriptedReply(text="I will not.", finish_reason="refusal"), (None, "I will not.", "stop", None)),
    "calls": (ScriptedReply(tool_calls=(OSLO, ROME)), (None, None, "tool_calls", CALLS)),
    "text and calls": (ScriptedReply(text="Wait.", tool_calls=(OSLO,)), ("Wait.", None, "tool_calls", CALLS[:1])),
}


@pytest.mark.parametrize("kind", REPLIES)
async def test_every_kind_of_reply_is_told_whole_and_in_chunks(server: Server, kind: str) -> None:
    scripted, told = REPLIES[kind]
    server.bench.llm.script(scripted, scripted)
    answer = await ask(server, tools=[WEATHER])
    assert answer.status == 200
    (choice,) = answer.json()["choices"]
    message = choice["message"]
    said = message["content"], message["refusal"], choice["finish_reason"], message.get("tool_calls")
    assert said == told
    chunks = await stream(server, tools=[WEATHER], stream_options={"include_usage": True})
    assert text_of(chunks) == (told[0] or (told[1] if kind == "late refusal" else None) or "")
    assert ends_of(chunks) == [told[2]]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert [delta["refusal"] for delta in deltas if delta.get("refusal")] == ([told[1]] if told[1] else [])
    calls = [call for delta in deltas for call in delta.get("tool_calls", [])]
    assert calls == [{"index": n} | call for n, call in enumerate(told[3] or [])]
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[-1]["usage"] == answer.json()["usage"]
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    await server.bench.check_books()


async def test_what_it_cost_is_what_the_books_say_and_nothing_is_kept(server: Server) -> None:
    answer = (await ask(server)).json()
    (entry,) = await server.bench.entries()
    assert entry.response_id == answer["id"].replace("chatcmpl-", "resp_")
    assert Decimal(str(answer["usage"]["cost"])) == entry.cost
    assert (await server.get("/conversations?user_id=ada")).json()["total"] == 0
    assert "Hello" not in repr(server.bench.store)


async def test_chunks_have_no_usage_unless_it_is_wanted(server: Server) -> None:
    for options in ({}, {"stream_options": None}, {"stream_options": {"include_obfuscation": False}}):
        assert all("usage" not in chunk for chunk in await stream(server, **options))


async def test_all_that_was_said_reaches_the_model_in_its_place(server: Server) -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be kind.", "name": "boss"},
        {"role": "user", "content": [{"type": "text", "text": "Rain "}, {"type": "text", "text": "where?"}]},
        {"role": "assistant", "content": None, "tool_calls": CALLS, "refusal": None, "function_call": None},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "sun"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Oslo."}]},
        {"role": "developer", "content": "Answer in verse."},
        {"role": "user", "content": "And tomorrow?"},
    ]
    assert (await ask(server, messages)).status == 200
    (request,) = server.bench.llm.requests
    assert [message.role for message in request.messages] == [
        *("system", "user", "assistant", "user", "assistant", "developer", "user")
    ]
    assert [message.text for message in request.messages] == [
        *("Be kind.", "Rain where?", "", "", "Oslo.", "Answer in verse.", "And tomorrow?")
    ]
    assert request.messages[2].tool_calls == (OSLO, ROME)
    results = ToolResult(call_id="call_1", output="rain"), ToolResult(call_id="call_2", output="sun")
    assert request.messages[3].tool_results == results
    assert request.instructions is None


async def test_of_the_tools_those_alone_reach_the_model_that_are_allowed(server: Server) -> None:
    clock = {"type": "function", "function": {"name": "clock"}}
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "clock"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    assert (await ask(server, tools=[WEATHER, clock], tool_choice=choice)).status == 200
    (request,) = server.bench.llm.requests
    assert ([tool.name for tool in request.tools], request.tool_choice) == (["clock"], "required")
    refused = await ask(server, tools=[WEATHER], tool_choice={"type": "allowed_tools"})
    assert (refused.status, refused.json()["error"]["param"]) == (400, "tool_choice")


async def test_what_is_asked_of_the_model_reaches_it(server: Server) -> None:
    schema = {"type": "object", "properties": {}}
    asked: dict[str, Any] = {
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "response_format": {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}},
        "reasoning_effort": "low",
        "temperature": 0.5,
        "top_p": 0.5,
        "frequency_penalty": 1,
        "presence_penalty": -1,
        "seed": 7,
        "stop": "END",
        "verbosity": "low",
        "max_completion_tokens": 50,
        "max_tokens": 70,
        "metadata": {"a": "b"},
        "prompt_cache_key": "chat",
    }
    assert (await ask(server, **asked)).status == 200
    (request,) = server.bench.llm.requests
    assert [*request.tools] == [FunctionTool(name="weather", parameters=schema)]
    assert request.tool_choice == NamedFunction("weather")
    assert request.parallel_tool_calls is False
    assert request.response_format == JsonSchemaFormat(name="it", schema=schema, strict=True)
    assert (request.reasoning_effort, request.temperature, request.max_output_tokens) == ("low", 0.5, 50)
    chosen = Sampling(top_p=0.5, frequency_penalty=1, presence_penalty=-1, seed=7, stop=["END"], verbosity="low")
    assert (request.sampling, request.metadata) == (chosen, {"a": "b"})


# What clients send without being asked to: LangChain, LibreChat, Open WebUI, the AI SDK and OpenAI's own.
HABITS: list[dict[str, Any]] = [
    {"n": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0, "temperature": 0.7, "stop": None},
    {
        "stream": False,
        "store": False,
        "logprobs": False,
        "logit_bias": {},
        "service_tier": "auto",
        "verbosity": "medium",
    },
    {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "functions": None, "modalities": ["text"]},
    {"max_tokens": 1, "response_format": {"type": "text"}, "chat_id": "c", "session_id": "s", "background_tasks": {}},
    {"metadata": None, "reasoning_effort": None, "seed": None, "top_logprobs": None, "max_completion_tokens": None},
    {"verbosity": "medium", "stream_options": None},
]


@pytest.mark.parametrize("habit", HABITS)
async def test_what_clients_send_by_habit_is_no_reason_to_refuse(server: Server, habit: dict[str, Any]) -> None:
    assert (await ask(server, **habit)).status == 200
    (request,) = server.bench.llm.requests
    assert (request.sampling, request.tool_choice, request.parallel_tool_calls) == (None, None, None)


WRONG: dict[str, dict[str, Any]] = {
    "n": {"n": 2},
    "store": {"store": True},
    "logprobs": {"logprobs": True},
    "logit_bias": {"logit_bias": {"50256": -100}},
    "modalities": {"modalities": ["text", "audio"]},
    "audio": {"audio": {"voice": "alloy"}},
    "prediction": {"prediction": {"type": "content", "content": "x"}},
    "web_search_options": {"web_search_options": {}},
    "functions": {"functions": [{"name": "weather"}]},
    "service_tier": {"service_tier": "flex"},
    "verbosity": {"verbosity": "much"},
    "temperature": {"temperature": "warm"},
    "top_p": {"top_p": 2},
    "stop": {"stop": ["a"] * 5},
    "max_tokens": {"max_tokens": 0},
    "max_completion_tokens": {"max_completion_tokens": -1},
    "tools": {"tools": [WEATHER] * 2},
    "tools[0]": {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
    "tool_choice": {"tools": [WEATHER], "tool_choice": "maybe"},
    "response_format.type": {"response_format": {"type": "xml"}},
    "response_format.json_schema": {"response_format": {"type": "json_schema"}},
    "reasoning_effort": {"reasoning_effort": "hard"},
    "messages": {"messages": []},
    "messages[0].role": {"messages": [{"role": "function", "content": "x", "name": "y"}]},
    "messages[0].content[0].type": {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
    "messages[0].tool_call_id": {"messages": [{"role": "tool", "content": "x"}]},
    "messages[0]": {"messages": [{"role": "tool", "content": "x", "tool_call_id": "call_9"}]},
    "messages[0].tool_calls[0]": {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "type": "custom"}]}]},
    "messages[1].audio": {"messages": [*HELLO, {"role": "assistant", "audio": {"id": "x"}}]},
    "metadata": {"metadata": {"x" * 65: "y"}},
}
MANY: dict[str, dict[str, Any]] = {
    "messages": {"messages": HELLO * 100_000},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * 130_000}]},
    "calls": {"messages": [{"role": "assistant", "tool_calls": CALLS[1:] * 40_000}]},
    "results": {"messages": [{"role": "tool", "content": "", "tool_call_id": ""}] * 60_000},
    "tools": {"tools": [WEATHER] * 30_000},
    "levels of parameters": {"tools": [{"function": {"name": "f", "parameters": nested(65)}}]},
    "levels of a schema": {
        "response_format": {"type": "json_schema", "json_schema": {"name": "f", "schema": nested(900)}}
    },
}


@pytest.mark.parametrize("what", MANY)
async def test_what_is_very_much_is_refused_before_it_is_looked_at(server: Server, what: str) -> None:
    began = time.process_time()
    answer = await ask(server, **MANY[what])
    assert answer.status == 400
    assert time.process_time() - began < 5  # most of it is the test's own; what grows with its square takes minutes


@pytest.mark.parametrize("param", WRONG)
async def test_what_is_not_served_is_refused_by_its_name(server: Server, param: str) -> None:
    answer = await ask(server, **WRONG[param])
    error = answer.json()["error"]
    assert (answer.status, error["param"]) == (400, param)
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(("calls", "results"), [(2, 1), (1, 2)])
async def test_two_calls_or_results_with_one_id_are_refused(server: Server, calls: int, results: int) -> None:
    asked = {"role": "assistant", "tool_calls": CALLS[:1] * calls}
    given = [{"role": "tool", "content": "rain", "tool_call_id": "call_1"}] * results
    error = (await ask(server, [*HELLO, asked, *given])).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", "messages")
    assert "call_1; " in error["message"]
    assert server.bench.llm.requests == []


async def test_a_body_that_is_none_is_refused() -> None:
    async with serving(Bench()) as server:
        for body, status in ((b"{", 400), (b"[]", 400), (b"{}", 400), (b'{"messages": [{"role": "user"', 400)):
            assert (await server.post(PATH, body)).status == status
        assert (await server.post(PATH, b"{}", {"content-type": "text/plain"})).status == 415
        long = [{"role": "user", "content": "x" * 5 * 1024 * 1024}]
        assert (await ask(server, long)).status == 413
        many = [{"role": "user", "content": "x" * 9_000}] * 120
        assert (await ask(server, many)).json()["error"]["code"] == "input_too_long"
        assert not server.bench.llm.requests


async def test_an_error_in_the_midst_of_a_stream_is_one_as_the_sdks_read_it(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(text="One two", error=ProviderError("It broke off."), after=1))
    *chunks, last = await stream(server)
    assert text_of(chunks) == "One "
    assert (last["error"]["code"], last["error"]["type"]) == ("provider_error", "server_error")
    assert (last["error"]["cost"] > 0, last["error"]["estimated"]) == (True, True)
    await server.bench.check_books()


async def test_a_reply_that_the_filter_ends_says_so(server: Server) -> None:
    filtered = ScriptedReply(text="One", status="incomplete", content_filtered=True)
    server.bench.llm.script(filtered, filtered)
    *chunks, last = await stream(server, stream_options={"include_usage": True})
    assert (text_of(chunks), ends_of(chunks)) == ("One", ["content_filter"])
    error = (answer := await ask(server)).json()["error"]
    assert (answer.status, error["code"]) == (422, "content_refused")
    charged = [float(entry.cost) for entry in server.bench.store.entries.values()]
    assert [last["usage"]["cost"], error["cost"]] == charged
    assert all(charged)
    await server.bench.check_books()


async def test_a_refusal_says_when_to_try_again() -> None:
    async with serving(Bench(policy=replace(POLICY, rate_per_minute=1))) as server:
        assert (await ask(server)).headers["x-ratelimit-remaining-requests"] == "0"
        refused = await ask(server)
        assert (refused.status, refused.json()["error"]["code"]) == (429, "rate_limited")
        assert refused.headers["x-should-retry"] == "true"
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["x-ratelimit-limit-requests"] == "1"
    async with serving(Bench()) as server:
        server.bench.llm.script(ScriptedReply(error=ProviderUnavailableError("busy", retry_after_s=7)))
        refused = await ask(server)
        assert (refused.status, refused.headers["retry-after"]) == (503, "7")


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_repeat_is_told_the_same_reply_and_asks_the_model_once(server: Server, streamed: bool) -> None:
    headers = JSON | {"idempotency-key": "stainless-1"}
    body = {"messages": HELLO, "user": "ada", "stream": streamed}
    first, second = [await server.post(PATH, body, headers) for _ in range(2)]
    assert second.headers["idempotent-replayed"] == "true"
    if streamed:
        assert text_of(chunks_of(first)) == text_of(chunks_of(second)) == "[0] You said: Hello"
    else:
        told = [{name: it for name, it in answer.json().items() if name != "created"} for answer in (first, second)]
        assert told[0] == told[1]
    assert len(server.bench.llm.requests) == 1
    other = await server.post(PATH, body | {"seed": 1}, headers)
    assert (other.status, other.json()["error"]["code"]) == (422, "idempotency_mismatch")


async def test_a_client_that_hangs_up_is_charged_for_all_of_it(server: Server) -> None:
    gate = asyncio.Event()
    server.bench.llm.script(ScriptedReply(deltas=("One", " two"), gate=gate))
    body = json.dumps({"messages": HELLO, "user": "ada", "stream": True}).encode()
    await server.call("POST", PATH, [body], headers=JSON, leave_when=lambda answer: b"One" in answer.body)
    gate.set()
    (entry,) = await server.bench.entries()
    assert (entry.status, entry.estimated) == ("completed", False)
    await server.bench.check_books()


async def test_one_cap_holds_for_both_doors() -> None:
    limit = Decimal("0.02")  # each turn holds 16 tokens of a reply, and settles for less
    async with serving(Bench(policy=replace(POLICY, daily_limit=limit, max_output_tokens=200))) as server:

        async def one(number: int) -> int:
            if number % 2:
                asked = {"message": "Hello", "user_id": "ada", "stream": bool(number % 4 == 1)}
                return (await server.post("/chat", asked)).status
            return (await ask(server, stream=bool(number % 4))).status

        statuses = [*await asyncio.gather(*map(one, range(40))), *[await one(number) for number in range(400)]]
        assert set(statuses) == {200, 402}
        entries = await server.bench.entries()
        assert sum((entry.cost for entry in entries), Decimal(0)) <= limit
        assert len(entries) == statuses.count(200)
        refused = await ask(server)
        assert (refused.status, refused.json()["error"]["type"]) == (402, "insufficient_quota")
        assert refused.headers["x-should-retry"] == "false"
        await server.bench.check_books()


async def test_one_rate_limit_holds_for_both_doors() -> None:
    async with serving(Bench(policy=replace(POLICY, rate_per_minute=4))) as server:
        statuses = []
        for _ in range(4):
            statuses.append((await server.post("/chat", {"message": "Hello", "user_id": "ada"})).status)
            statuses.append((await ask(server)).status)
        assert statuses == [200] * 4 + [429] * 4


async def test_who_is_charged_is_the_keys_user_else_who_is_named_else_the_key(bench: Bench) -> None:
    administration, admin = memory_administration(bench.store, bench.clock), Caller("acme", "admin")
    of_ada = await administration.issue_api_key(admin, role="user", user_id="ada")
    service = await administration.issue_api_key(admin, role="service")
    async with serving(bench, requires_keys=True) as server:
        for key, named in (
            (of_ada, {"user": "bob"}),
            (service, {"user": "bob"}),
            (service, {"safety_identifier": "carol", "user": "bob"}),
            (service, {"user": "bob at home"}),
            (service, {}),
        ):
            headers = JSON | {"authorization": f"Bearer {key.secret}"}
            assert (await server.post(PATH, {"messages": HELLO} | named, headers)).status == 200
        assert (await server.post(PATH, {"messages": HELLO})).status == 401
    payers = [entry.payer for entry in bench.store.entries.values()]
    assert payers[:3] == ["ada", "bob", "carol"]
    assert payers[3].startswith("id_")
    assert payers[4] == service.id


async def test_an_image_is_seen_and_stored_nowhere(server: Server) -> None:
    url = f"data:image/png;base64,{base64.b64encode(png(8, 8)).decode()}"
    seen = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    answer = await ask(server, [{"role": "user", "content": seen}])
    assert answer.status == 200
    assert "Seen: " in answer.json()["choices"][0]["message"]["content"]
    assert server.bench.store.files == {}
    (entry,) = await server.bench.entries()
    assert entry.kind == "image"
    await server.bench.check_books()
