"""Tools on the provider's own servers through `/v1/responses`; the client checks each body and each event."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.conftest import JSON, Server, events_of, serving
from tests.http.test_openai_responses import asked, kept, over, streamed, text_of
from tests.unit.conftest import Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.telemetry.logs import JsonLines
from textllm_core import Route, Routes
from textllm_core.records.hosted import HostedItem, HostedOutput, HostedTerms
from textllm_core.records.tools import ToolCall
from textllm_core.usage import Usage

TERMS = HostedTerms(price=Decimal("0.01"), tokens=500)
TOOLS = ("web_search", "file_search", "code_interpreter", "mcp")
SEARCH = {
    "id": "ws_1",
    "type": "web_search_call",
    "status": "completed",
    "action": {"type": "search", "query": "rain", "sources": [{"type": "url", "url": "https://rain.example/oslo"}]},
}
FOUND = {
    "id": "fs_1",
    "type": "file_search_call",
    "status": "completed",
    "queries": ["rain"],
    "results": [{"file_id": "file-1", "filename": "a.pdf", "score": 0.9, "text": "It rains."}],
}
RAN = {
    "id": "ci_1",
    "type": "code_interpreter_call",
    "status": "completed",
    "container_id": "cntr_1",
    "code": "print(1)",
    "outputs": [{"type": "logs", "logs": "1"}],
}
LISTED = {
    "id": "mcpl_1",
    "type": "mcp_list_tools",
    "server_label": "deepwiki",
    "tools": [{"name": "ask", "input_schema": {"type": "object"}, "description": "Ask.", "annotations": None}],
}
ASKED = {
    "id": "mcp_1",
    "type": "mcp_call",
    "status": "completed",
    "server_label": "deepwiki",
    "name": "ask",
    "arguments": '{"q":"rain"}',
    "output": "It rains.",
}
ALL = (SEARCH, FOUND, RAN, LISTED, ASKED)
NOTES = (
    {"type": "url_citation", "url": "https://rain.example/oslo", "title": "Rain", "start_index": 0, "end_index": 2},
    {"type": "file_citation", "file_id": "file-1", "filename": "a.pdf", "index": 3},
)
WIKI = {
    "type": "mcp",
    "server_label": "deepwiki",
    "server_url": "https://mcp.example/s3cr3t",
    "require_approval": "never",
}
CONTAINER = {"type": "code_interpreter", "container": "cntr_1"}
FILES = {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1", "file-2"]}}
SECRET = "tok-canary-7"
OFFERED = [
    {"type": "web_search", "search_context_size": "low", "user_location": {"type": "approximate", "city": "Oslo"}},
    {"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 3},
    {"type": "code_interpreter", "container": {"type": "auto"}},
    {**WIKI, "headers": {"X-Key": SECRET}, "authorization": SECRET},
]


@pytest.fixture
def bench(bench: Bench) -> Bench:
    hosted = dict.fromkeys(TOOLS, TERMS) | {"file_search": replace(TERMS, allowed=["vs_1"])}
    route = Route(llm=bench.llm, transcript=bench.transcript, hosted=hosted)
    bench.textllm = bench.over(routes=Routes(named={}, providers={}, otherwise=route))
    return bench


@pytest.fixture
async def server(bench: Bench, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(bench, spool_dir=tmp_path / "spool") as running:
        yield running


def used(*items: dict[str, Any], after: tuple[dict[str, Any], ...] = (), **more: Any) -> ScriptedReply:
    hosted = HostedOutput(before=tuple(map(HostedItem, items)), after=tuple(map(HostedItem, after)), annotations=NOTES)
    return ScriptedReply(text="It rains.", hosted=hosted, usage=Usage(input_tokens=1000, output_tokens=100), **more)


def refusal(answer: Any) -> Any:
    return answer.json()["error"]


def kinds(response: Any) -> list[str]:
    return [item["type"] for item in response["output"]]


async def test_tools_go_to_the_provider_as_they_were_sent_and_come_back_as_items(server: Server, bench: Bench) -> None:
    bench.llm.script(used(*ALL))
    include = ["file_search_call.results", "code_interpreter_call.outputs", "reasoning.encrypted_content"]
    response = await asked(server, input="Rain?", tools=OFFERED, include=include, max_tool_calls=4)
    hosted = bench.llm.requests[-1].hosted
    assert hosted is not None
    assert [tool.definition for tool in hosted.tools] == OFFERED
    assert (hosted.include, hosted.most_calls) == (include[:2], 4)
    assert kinds(response) == [*(item["type"] for item in ALL), "message"]
    told = response["output"][1]
    assert {**told, "id": ""} == {**FOUND, "id": ""}
    assert response["output"][-1]["content"][0]["annotations"] == list(NOTES)
    assert response["max_tool_calls"] == 4
    again = await kept(server, response["id"])
    assert {**again, "completed_at": 0} == {**response, "completed_at": 0}
    (entry,) = bench.store.entries.values()
    assert entry.usage.tool_calls == {"web_search": 1, "file_search": 1, "code_interpreter": 1, "mcp": 1}
    assert entry.cost == Decimal("0.0035") + 4 * TERMS.price


async def test_keys_of_servers_are_neither_told_nor_kept_nor_logged(
    server: Server, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    bench.llm.script(used(LISTED, ASKED))
    response = await asked(server, input="Rain?", tools=OFFERED, background=True)
    await over(server, response["id"])
    whole = await kept(server, response["id"])
    (tool,) = [tool for tool in whole["tools"] if tool["type"] == "mcp"]
    assert tool == {**WIKI, "server_url": "https://mcp.example/..."}
    for secret in (SECRET, "s3cr3t"):
        assert secret not in str(whole)
        assert secret not in repr([getattr(bench.store, name) for name in bench.store.__slots__])
        assert secret not in repr(bench.llm.requests[-1])
        assert secret not in "".join(JsonLines().format(record) for record in caplog.records)


async def test_the_events_of_tools_come_while_they_work_and_in_openais_order(server: Server, bench: Bench) -> None:
    gate = asyncio.Event()
    bench.llm.script(used(*ALL, gate=gate, deltas=("It ", "rains.")))
    body = {"model": "gpt-4o", "stream": True, "input": "Rain?", "tools": OFFERED}
    seen = asyncio.Event()

    def heard(answer: Any) -> bool:
        if b"response.output_text.delta" in answer.body:
            assert b"response.mcp_call.completed" in answer.body
            seen.set()
            gate.set()
        return False

    answer = await server.call("POST", "/v1/responses", [json.dumps(body).encode()], headers=JSON, leave_when=heard)
    events = events_of(answer)
    assert seen.is_set()
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    of_search = [event["type"] for event in events if event.get("output_index") == 0]
    assert of_search == [
        "response.output_item.added",
        "response.web_search_call.in_progress",
        "response.web_search_call.searching",
        "response.web_search_call.completed",
        "response.output_item.done",
    ]
    of_code = [event["type"] for event in events if event.get("output_index") == 2]
    assert of_code[1:-1] == [
        "response.code_interpreter_call.in_progress",
        "response.code_interpreter_call_code.delta",
        "response.code_interpreter_call_code.done",
        "response.code_interpreter_call.interpreting",
        "response.code_interpreter_call.completed",
    ]
    of_text = [event["type"].removeprefix("response.") for event in events if event.get("output_index") == 5]
    assert of_text == [
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 2,
        *["output_text.annotation.added"] * 2,
        "output_text.done",
        "content_part.done",
        "output_item.done",
    ]
    last = events[-1]["response"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == last["output"]
    whole = await kept(server, last["id"])
    assert whole["output"] == last["output"]


async def test_a_stream_that_is_read_again_tells_of_tools_the_same(server: Server, bench: Bench) -> None:
    bench.llm.script(used(SEARCH, RAN, after=(FOUND,)))
    events = await streamed(server, input="Rain?", tools=OFFERED)
    response_id = events[-1]["response"]["id"]
    answer = await server.get(f"/v1/responses/{response_id}?stream=true&starting_after=4")
    assert events_of(answer) == events[5:]
    assert kinds(events[-1]["response"]) == [
        "web_search_call",
        "code_interpreter_call",
        "message",
        "file_search_call",
    ]


async def test_a_repeat_tells_of_tools_what_the_first_one_did(server: Server, bench: Bench) -> None:
    headers = JSON | {"Idempotency-Key": "k1"}
    body = {"model": "gpt-4o", "input": "Rain?", "tools": OFFERED}
    bench.llm.script(used(SEARCH, LISTED), used(SEARCH))
    first = await asked(server, headers, **body)
    assert {**await asked(server, headers, **body), "completed_at": 0} == {**first, "completed_at": 0}
    headers = JSON | {"Idempotency-Key": "k2"}
    answers = [await server.post("/v1/responses", {**body, "stream": True}, headers) for _ in range(2)]
    told, again = (events_of(answer) for answer in answers)
    assert again[-1] | {"sequence_number": 0} == told[-1] | {"sequence_number": 0}
    assert len(bench.llm.requests) == 2


async def test_a_conversation_goes_on_behind_tools_also_as_its_client_keeps_it(server: Server, bench: Bench) -> None:
    bench.llm.script(used(SEARCH))
    first = await asked(server, input="Rain?", tools=OFFERED)
    second = await asked(server, input="More?", previous_response_id=first["id"])
    assert text_of(second) == "[2] You said: More?"
    brought = [{"role": "user", "content": "Rain?"}, *first["output"], {"role": "user", "content": "More?"}]
    third = await asked(server, input=brought, store=False, tools=OFFERED)
    assert text_of(third) == "[2] You said: More?"
    named = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
    fourth = await asked(server, input=[*named, {"role": "user", "content": "More?"}], store=False)
    assert text_of(fourth) == "[1] You said: More?"


async def test_items_of_tools_are_items_of_their_conversation(server: Server, bench: Bench) -> None:
    made = (await server.post("/v1/conversations", {})).json()
    bench.llm.script(used(SEARCH))
    response = await asked(server, input="Rain?", conversation=made["id"], tools=OFFERED)
    items = (await server.get(f"/v1/conversations/{made['id']}/items?order=asc")).json()["data"]
    assert [item["type"] for item in items] == ["message", "web_search_call", "message"]
    assert items[1:] == response["output"]
    path = f"/v1/conversations/{made['id']}/items/{items[1]['id']}"
    assert (await server.get(path)).json() == items[1]
    assert (await server.call("DELETE", path)).status == 200
    left = (await server.get(f"/v1/conversations/{made['id']}/items?order=asc")).json()["data"]
    assert [item["type"] for item in left] == ["message", "message"]


async def test_a_conversation_in_which_tools_were_used_is_exported_and_imported(server: Server, bench: Bench) -> None:
    made = (await server.post("/v1/conversations", {})).json()
    bench.llm.script(used(SEARCH))
    await asked(server, input="Rain?", conversation=made["id"], tools=OFFERED)
    at = f"/conversations/{made['id']}"
    line = (await server.get(at)).json() | {"messages": (await server.get(f"{at}/messages")).json()["data"]}
    assert [part["type"] for part in line["messages"][1]["content"]] == ["hosted_tool", "output_text"]
    new = line | {"id": "conv_" + "1" * 24}
    assert (await server.post("/conversations/import", new)).status == 201
    paths = [f"/v1/conversations/{each}/items?order=asc" for each in (made["id"], new["id"])]
    before, after = [(await server.get(path)).json()["data"] for path in paths]
    assert after == before
    new["messages"][1]["content"][0]["item"]["type"] = "canary"
    answer = await server.post("/conversations/import", new | {"id": "conv_" + "2" * 24})
    assert (answer.status, answer.json()["errors"][0]["field"]) == (400, "messages[1].content")


async def test_functions_and_tools_of_the_provider_are_offered_together(server: Server, bench: Bench) -> None:
    call = ToolCall(call_id="call_1", name="weather", arguments="{}")
    weather = {"type": "function", "name": "weather", "parameters": None, "strict": None, "description": None}
    bench.llm.script(ScriptedReply(text="", tool_calls=(call,), hosted=HostedOutput(before=(HostedItem(SEARCH),))))
    response = await asked(server, input="Rain?", tools=[OFFERED[0], weather], tool_choice="required")
    assert kinds(response) == ["web_search_call", "function_call"]
    request = bench.llm.requests[-1]
    assert (request.tool_choice, [tool.name for tool in request.tools]) == ("required", ["weather"])
    result = {"type": "function_call_output", "call_id": "call_1", "output": "Rain."}
    after = await asked(server, input=[result], previous_response_id=response["id"])
    assert after["status"] == "completed"


@pytest.mark.parametrize(
    ("choice", "offered", "sent"),
    [
        ({"type": "file_search"}, 4, {"type": "file_search"}),
        ({"type": "web_search_preview"}, 4, {"type": "web_search_preview"}),
        ({"type": "mcp", "server_label": "deepwiki", "name": "ask"}, 4, None),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "code_interpreter"}]}, 1, "required"),
        ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp", "server_label": "deepwiki"}]}, 1, "auto"),
    ],
)
async def test_one_of_the_tools_can_be_chosen(
    server: Server, bench: Bench, choice: dict[str, Any], offered: int, sent: object
) -> None:
    response = await asked(server, input="Rain?", tools=OFFERED, tool_choice=choice)
    request = bench.llm.requests[-1]
    assert request.hosted is not None
    assert len(request.hosted.tools) == offered
    assert (request.tool_choice or request.hosted.choice) == (sent or choice)
    assert response["tool_choice"] == choice


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"tools": [{"type": "image_generation"}]}, "tools[0].type", "not served here"),
        ({"tools": [{"type": "file_search"}]}, "tools[0].vector_store_ids", "is required"),
        (
            {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"], "max_num_results": 51}]},
            "tools[0].max_num_results",
            "must be",
        ),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].container", "is required"),
        (
            {"tools": [{"type": "code_interpreter", "container": {"file_ids": []}}]},
            "tools[0].container.type",
            "is required",
        ),
        (
            {"tools": [{**FILES, "container": {"type": "auto", "file_ids": [{}]}}]},
            "tools[0].container.file_ids[0]",
            "a str",
        ),
        ({"tools": [{**FILES, "container": {"type": "auto", "skills": []}}]}, "tools[0].container.skills", "no field"),
        ({"tools": [{"type": ["mcp"]}]}, "tools[0].type", "a string"),
        ({"tools": [{"type": "web_search", "search_context_size": "huge"}]}, "tools[0].search_context_size", "must be"),
        ({"tools": [{"type": "mcp"}]}, "tools[0].server_label", "is required"),
        ({"tools": [{"type": "mcp", "server_label": "a"}]}, "tools[0].server_url", "is required"),
        ({"tools": [{**WIKI, "require_approval": "canary"}]}, "tools[0].require_approval", "must be"),
        ({"tools": [{**WIKI, "require_approval": {"allways": {}}}]}, "tools[0].require_approval.allways", "no field"),
        ({"tools": [{**WIKI, "server_url": "file:///etc"}]}, "tools[0].server_url", "begins with"),
        ({"tools": [{**WIKI, "server_url": "https://[x"}]}, "tools[0].server_url", "begins with"),
        ({"tools": [{**WIKI, "server_url": "https://a.example\\@b.example"}]}, "tools[0].server_url", "begins with"),
        ({"tools": OFFERED, "max_tool_calls": 0}, "max_tool_calls", "at least 1"),
        ({"tools": OFFERED[:1], "tool_choice": {"type": "file_search"}}, "tool_choice", "not among the tools"),
        ({"tools": OFFERED[:1], "tool_choice": {"type": "image_generation"}}, "tool_choice", "must be"),
    ],
)
async def test_what_no_provider_takes_is_refused_by_its_name(
    server: Server, bench: Bench, body: dict[str, Any], param: str, says: str
) -> None:
    answer = await server.post("/v1/responses", {"model": "gpt-4o", "input": "Rain?", **body})
    assert answer.status == 400
    assert (refusal(answer)["param"], refusal(answer)["code"]) == (param, "invalid_request")
    assert says in refusal(answer)["message"]
    assert SECRET not in answer.body.decode()
    assert bench.llm.requests == []


async def test_a_tool_that_is_not_allowed_is_refused_and_the_text_says_who_can_allow_it(
    bench: Bench, tmp_path: Path
) -> None:
    only = Route(llm=bench.llm, transcript=bench.transcript, hosted={"web_search": TERMS})
    bench.textllm = bench.over(routes=Routes(named={}, providers={}, otherwise=only))
    async with serving(bench, spool_dir=tmp_path) as server:
        answer = await server.post("/v1/responses", {"model": "gpt-4o", "input": "Rain?", "tools": OFFERED})
        assert (answer.status, refusal(answer)["param"]) == (400, "tools[1].type")
        assert "hosted_tools.file_search" in refusal(answer)["message"]
        chat = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Rain?"}]}
        answer = await server.post("/v1/chat/completions", {**chat, "web_search_options": {}})
        assert (answer.status, refusal(answer)["param"]) == (400, "web_search_options")
        answer = await server.post("/chat", {"message": "Rain?", "tools": [{"type": "web_search"}]})
        assert answer.status == 400
    assert bench.llm.requests == []


AT_SERVER = "tools[0].server_url"
STORES = {"type": "file_search", "vector_store_ids": ["vs_1", "vs_2"]}
TUNNEL_ID = "tunnel_" + "a1" * 16
TUNNEL = {"type": "mcp", "server_label": "a", "tunnel_id": TUNNEL_ID}
GMAIL = {"type": "mcp", "server_label": "a", "connector_id": "connector_gmail"}
NO_ADDRESSES = ("a://[", "a://b")  # ids, whatever they look like


@pytest.mark.parametrize(
    ("tool", "limits", "param", "says"),
    [
        (STORES, {}, "tools[0].vector_store_ids", "vs_1 is not among"),
        (STORES, {"allowed": ["vs_1"]}, "tools[0].vector_store_ids", "vs_2 is not among"),
        (STORES, {"allowed": ["vs_1", "vs_2"]}, None, ""),
        (STORES, {"allowed": ["vs_1"], "tenants": {"default": ["vs_2"]}}, None, ""),
        (STORES, {"allowed": ["vs_1"], "tenants": {"acme": ["vs_2"]}}, "tools[0].vector_store_ids", "vs_2"),
        (STORES, {"allowed": ["*"]}, None, ""),
        (CONTAINER, {}, "tools[0].container", '{"type": "auto"}'),
        (CONTAINER, {"allowed": ["cntr_1"]}, None, ""),
        (FILES, {"allowed": ["file-1"]}, "tools[0].container.file_ids", "file-2"),
        ({"type": "code_interpreter", "container": {"type": "auto"}}, {"allowed": []}, None, ""),
        (WIKI, {}, None, ""),
        (WIKI, {"allowed": ["mcp.example"]}, None, ""),
        (WIKI, {"allowed": ["https://mcp.example/s3cr3t"]}, None, ""),
        (WIKI, {"allowed": ["https://mcp.example/other"]}, "tools[0].server_url", "mcp.example is not among"),
        (WIKI, {"allowed": ["example"]}, "tools[0].server_url", "hosted_tools.mcp.allowed"),
        (WIKI, {"tenants": {"acme": ["mcp.example"]}}, "tools[0].server_url", "name another server"),
        ({**WIKI, "server_url": "https://mcp.example@b.example"}, {"allowed": ["mcp.example"]}, AT_SERVER, ""),
        ({**WIKI, "server_url": "https://MCP.example:8443/a"}, {"allowed": ["mcp.example"]}, None, ""),
        (TUNNEL, {}, "tools[0].tunnel_id", TUNNEL_ID),
        (TUNNEL, {"allowed": [TUNNEL_ID]}, None, ""),
        (GMAIL, {}, None, ""),
        (GMAIL, {"allowed": ["mcp.example"]}, "tools[0].connector_id", "connector_gmail"),
        *(({**STORES, "vector_store_ids": [id_]}, {}, "tools[0].vector_store_ids", id_) for id_ in NO_ADDRESSES),
        *(({**CONTAINER, "container": id_}, {}, "tools[0].container", id_) for id_ in NO_ADDRESSES),
        *(({**GMAIL, "connector_id": id_}, {"allowed": ["b"]}, "tools[0].connector_id", id_) for id_ in NO_ADDRESSES),
    ],
)
async def test_requests_name_only_what_their_operator_allows(
    bench: Bench, tmp_path: Path, tool: dict[str, Any], limits: dict[str, Any], param: str | None, says: str
) -> None:
    terms = {tool["type"]: replace(TERMS, **limits)}
    only = Route(llm=bench.llm, transcript=bench.transcript, hosted=terms)
    bench.textllm = bench.over(routes=Routes(named={}, providers={}, otherwise=only))
    async with serving(bench, spool_dir=tmp_path) as server:
        answer = await server.post("/v1/responses", {"model": "gpt-4o", "input": "Rain?", "tools": [tool]})
    if param is None:
        assert answer.status == 200, answer.body
        return
    assert (answer.status, refusal(answer)["param"], refusal(answer)["code"]) == (400, param, "invalid_request")
    assert says in refusal(answer)["message"]
    assert "s3cr3t" not in answer.body.decode()
    assert (bench.llm.requests, bench.store.entries) == ([], {})


async def resumed_to(server: Server, response_id: str, event: bytes) -> None:
    """Read the stream of a response until it tells of an event."""
    await server.call("GET", f"/v1/responses/{response_id}?stream=true", leave_when=lambda answer: event in answer.body)


async def test_a_cancelled_response_keeps_and_charges_the_calls_that_it_made(server: Server, bench: Bench) -> None:
    bench.llm.script(used(SEARCH, RAN, unfinished=1, deltas=("It ", "rains."), gate=asyncio.Event()))
    response = await asked(server, input="Rain?", tools=OFFERED, background=True)
    await resumed_to(server, response["id"], b"code_interpreter_call.in_progress")
    answer = await server.call("POST", f"/v1/responses/{response['id']}/cancel")
    cancelled = answer.json()
    assert cancelled["status"] == "cancelled"
    assert kinds(cancelled) == ["web_search_call", "code_interpreter_call", "message"]
    (entry,) = bench.store.entries.values()
    assert (entry.usage.tool_calls, entry.estimated) == ({"web_search": 1, "code_interpreter": 1}, True)
    assert entry.cost > 2 * TERMS.price
    await bench.check_books()
