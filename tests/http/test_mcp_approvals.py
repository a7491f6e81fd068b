"""Calls of MCP servers that somebody approves first; the stand-in for OpenAI asks and runs as that does."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.contracts.model_fixtures import QUICK
from tests.http.conftest import JSON, Server, serving
from tests.http.test_openai_responses import asked, kept, streamed, text_of
from tests.servers.openai import Fault, OpenAIStandIn, Reply
from tests.servers.openai_script import Json
from tests.unit.conftest import Bench

from textllm_adapters.openai.client import open_client
from textllm_adapters.openai.conversations import OpenAITranscript
from textllm_adapters.openai.responses import ResponsesLLM
from textllm_core import Route, Routes
from textllm_core.records.hosted import HostedTerms

PRICE = Decimal("0.01")
WIKI: Json = {"type": "mcp", "server_label": "wiki", "server_url": "https://mcp.example/wiki"}
SEARCH: Json = {"type": "web_search"}
ASKED: dict[str, Any] = {"tools": [WIKI], "user": "ada"}
LISTED: Json = {
    "id": "mcpl_1",
    "type": "mcp_list_tools",
    "server_label": "wiki",
    "tools": [{"name": "ask", "input_schema": {"type": "object"}, "description": "Ask.", "annotations": None}],
}
QUESTION: Json = {"role": "user", "content": "Does it rain?"}


def asking(name: str = "ask", **more: Any) -> Json:
    call = {"id": f"mcp_{name}", "type": "mcp_call", "status": "completed", "server_label": "wiki", "name": name}
    return call | {"arguments": '{"q":"rain"}', "output": "It rains.", "error": None} | more


def approving(response: Any, *, approve: bool = True, **more: Any) -> list[Json]:
    requests = [item for item in response["output"] if item["type"] == "mcp_approval_request"]
    assert requests
    answer = {"type": "mcp_approval_response", "approve": approve, **more}
    return [answer | {"approval_request_id": request["id"]} for request in requests]


def kinds(response: Any) -> list[str]:
    return [item["type"] for item in response["output"]]


@pytest.fixture
def provider() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn() as provider:
        yield provider


@pytest.fixture(params=["conversations", "history"])
async def server(
    bench: Bench, provider: OpenAIStandIn, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Server]:
    """With each of the two ways in which the provider is told what was said before."""
    async with open_client("sk-test", provider.base_url) as client:
        hosted = {kind: HostedTerms(price=PRICE, tokens=500) for kind in ("mcp", "web_search")}
        transcript = OpenAITranscript(client, QUICK) if request.param == "conversations" else None
        route = Route(llm=ResponsesLLM(client, QUICK), transcript=transcript, hosted=hosted)
        bench.textllm = bench.over(routes=Routes(named={}, providers={}, otherwise=route), transcript=transcript)
        async with serving(bench, spool_dir=tmp_path / "spool") as running:
            yield running


async def calls_charged(bench: Bench, provider: OpenAIStandIn) -> list[dict[str, int]]:
    """The calls of each exchange, which are those that the provider bills."""
    await bench.check_books()
    entries = sorted(bench.store.entries.values(), key=lambda entry: entry.created_at)
    calls = [dict(entry.usage.tool_calls) for entry in entries]
    assert sorted(map(str, calls)) == sorted(str(dict(bill.tool_calls)) for bill in provider.bills)
    return [each for each in calls if each]


async def refused(server: Server, **body: Any) -> Any:
    answer = await server.post("/v1/responses", {"model": "gpt-4o", **body})
    assert answer.status == 400, answer.body
    return answer.json()["error"]


async def test_a_call_runs_once_it_is_approved_and_is_charged_once(
    server: Server, bench: Bench, provider: OpenAIStandIn
) -> None:
    provider.script(Reply(hosted=(LISTED, asking())), Reply(text="It rains."))
    first = await asked(server, **ASKED, input="Does it rain?")
    assert kinds(first) == ["mcp_list_tools", "mcp_approval_request"]
    request = first["output"][-1]
    assert (request["server_label"], request["name"], request["arguments"]) == ("wiki", "ask", '{"q":"rain"}')
    assert (await kept(server, first["id"]))["output"] == first["output"]
    second = await asked(server, **ASKED, input=approving(first, reason="Go."), previous_response_id=first["id"])
    assert kinds(second) == ["mcp_call", "message"]
    assert (second["output"][0]["approval_request_id"], second["output"][0]["output"]) == (request["id"], "ask ran.")
    (said,) = (await server.get(f"/v1/responses/{second['id']}/input_items")).json()["data"]
    assert (said["type"], said["approval_request_id"]) == ("mcp_approval_response", request["id"])
    assert (said["approve"], said["reason"]) == (True, "Go.")
    third = await asked(server, **ASKED, input="And now?", previous_response_id=second["id"])
    assert text_of(third) == "[2] You said: And now?"
    assert await calls_charged(bench, provider) == [{"mcp": 1}]


async def test_a_request_is_answered_once_also_by_who_sends_it_again(
    server: Server, bench: Bench, provider: OpenAIStandIn
) -> None:
    provider.script(Reply(hosted=(asking(),)), Reply(text="It rains."))
    first = await asked(server, **ASKED, input="Does it rain?")
    approval = {"input": approving(first), "previous_response_id": first["id"]}
    keyed = JSON | {"Idempotency-Key": "k1"}
    second = await asked(server, keyed, **ASKED, **approval)
    assert (await asked(server, keyed, **ASKED, **approval))["output"] == second["output"]
    refusal = await refused(server, **ASKED, **approval)
    assert (refusal["param"], refusal["code"]) == ("input", "invalid_request")
    assert "answered before" in refusal["message"]
    assert len(bench.store.conversations) == 1
    assert await calls_charged(bench, provider) == [{"mcp": 1}]


async def test_two_who_approve_at_once_have_it_run_once(server: Server, bench: Bench, provider: OpenAIStandIn) -> None:
    gate = threading.Event()
    provider.script(Reply(hosted=(asking(),)), Reply(text="It rains.", hosted_gate=gate))
    first = await asked(server, **ASKED, input="Does it rain?")
    body = {"model": "gpt-4o", **ASKED, "input": approving(first), "previous_response_id": first["id"]}
    one = asyncio.create_task(server.post("/v1/responses", body))
    while sum(each.path == "/v1/responses" for each in provider.requests) < 2:  # noqa: ASYNC110 - of another thread
        await asyncio.sleep(0.01)
    other = await server.post("/v1/responses", body)
    assert (other.status, other.json()["error"]["code"]) == (409, "conversation_busy")
    gate.set()
    assert kinds((await one).json()) == ["mcp_call", "message"]
    assert await calls_charged(bench, provider) == [{"mcp": 1}]


async def test_the_events_of_a_request_are_openais_and_a_repeat_tells_the_same(
    server: Server, provider: OpenAIStandIn
) -> None:
    provider.script(Reply(hosted=(LISTED, asking())), Reply(text="It rains."))
    events = await streamed(server, **ASKED, input="Does it rain?")
    of_request = [event for event in events if event.get("output_index") == 1]
    assert [event["type"] for event in of_request] == ["response.output_item.added", "response.output_item.done"]
    first = events[-1]["response"]
    assert of_request[0]["item"] == of_request[1]["item"] == first["output"][-1]
    answer = await server.get(f"/v1/responses/{first['id']}?stream=true")
    assert answer.body.count(b"mcp_approval_request") > 2
    approval = {"input": approving(first), "previous_response_id": first["id"]}
    second = (await streamed(server, **ASKED, **approval))[-1]["response"]
    assert kinds(second) == ["mcp_call", "message"]


async def test_a_conversation_keeps_what_was_asked_and_decided_and_goes_on(
    server: Server, bench: Bench, provider: OpenAIStandIn
) -> None:
    provider.script(
        Reply(hosted=(LISTED, asking())),
        Reply(hosted=(asking("look"),)),
        Reply(text="It rains."),
    )
    made = (await server.post("/v1/conversations", {"user": "ada"})).json()
    in_it = ASKED | {"conversation": made["id"]}
    first = await asked(server, **in_it, input="Does it rain?")
    second = await asked(server, **in_it, input=approving(first))
    assert kinds(second) == ["mcp_call", "mcp_approval_request"]
    refusal = await refused(server, **in_it, input=approving(first))
    assert f"waits for {second['output'][-1]['id']}" in refusal["message"]
    # Some clients bring along what they answer; and what the first call said must not be lost: the second is due to it.
    third = await asked(server, **in_it, input=[second["output"][-1], *approving(second)])
    sent = [item["type"] for item in provider.requests[-1].body["input"]]
    assert sent[-6:] == [
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_approval_request",
        "mcp_approval_response",
    ]
    assert kinds(third) == ["mcp_call", "message"]
    path = f"/v1/conversations/{made['id']}/items"
    items = (await server.get(f"{path}?order=asc")).json()["data"]
    assert [item["type"] for item in items] == ["message", *sent[-6:], "mcp_call", "message"]
    decided = items[3]
    assert (await server.get(f"{path}/{decided['id']}")).json() == decided
    again = await asked(server, **in_it, input="Thanks.")
    assert text_of(again) == "[2] You said: Thanks."
    await bench.textllm.conversations.erase_at_provider()  # each of the three was left, with what nobody may go on with
    assert len(provider.conversations) <= 1
    assert await calls_charged(bench, provider) == [{"mcp": 1}, {"mcp": 1}]


async def test_what_is_denied_or_never_decided_does_not_run_and_costs_nothing(
    server: Server, bench: Bench, provider: OpenAIStandIn
) -> None:
    provider.script(
        Reply(hosted=(LISTED, asking())), Reply(text="As you like."), Reply(hosted=(asking(), asking("look")))
    )
    first = await asked(server, **ASKED, input="Does it rain?")
    denied = await asked(
        server, **ASKED, input=approving(first, approve=False, reason="No."), previous_response_id=first["id"]
    )
    answer = provider.requests[-1].body["input"][-1]
    assert (answer["type"], answer["approve"], answer["reason"]) == ("mcp_approval_response", False, "No.")
    assert kinds(denied) == ["message"]
    waiting = await asked(server, **ASKED, input="Ask again.", previous_response_id=denied["id"])
    assert kinds(waiting) == ["mcp_approval_request"]
    gone_on = await asked(server, user="ada", input="Never mind.", previous_response_id=waiting["id"])
    assert text_of(gone_on).endswith("You said: Never mind.")
    assert await calls_charged(bench, provider) == []


async def test_a_conversation_with_an_open_request_goes_on_at_chat(server: Server, provider: OpenAIStandIn) -> None:
    provider.script(Reply(hosted=(LISTED, asking())))
    made = (await server.post("/v1/conversations", {"user": "ada"})).json()
    await asked(server, **ASKED, conversation=made["id"], input="Does it rain?")
    said = {"message": "Never mind.", "conversation_id": made["id"], "user_id": "ada"}
    answer = await server.post("/chat", said)
    assert answer.status == 200, answer.body
    assert answer.json()["text"].endswith("You said: Never mind.")
    messages = (await server.get(f"/conversations/{made['id']}/messages")).json()["data"]
    assert [part["type"] for part in messages[1]["content"]] == ["hosted_tool", "hosted_tool"]


async def test_of_several_requests_those_that_nobody_decides_about_are_denied(
    server: Server, bench: Bench, provider: OpenAIStandIn
) -> None:
    requests = tuple(
        {"id": f"mcpr_{n}", "type": "mcp_approval_request", "server_label": "wiki", "name": "ask", "arguments": "{}"}
        for n in range(2)
    )
    provider.script(Reply(hosted=requests), Reply(text="It rains."))
    first = await asked(server, **ASKED, input="Does it rain?")
    second = await asked(server, **ASKED, input=approving(first)[1:], previous_response_id=first["id"])
    assert kinds(second) == ["mcp_call", "message"]
    answers = [it for it in provider.requests[-1].body["input"] if it["type"] == "mcp_approval_response"]
    assert [answer["approve"] for answer in answers] == [False, True]
    assert await calls_charged(bench, provider) == [{"mcp": 1}]


async def test_functions_and_approvals_may_be_asked_for_at_once(
    server: Server, bench: Bench, provider: OpenAIStandIn
) -> None:
    request = {"id": "mcpr_1", "type": "mcp_approval_request", "server_label": "wiki", "name": "ask", "arguments": "{}"}
    provider.choose = lambda _body, items: Reply(
        hosted=(request,) if len(items) == 1 else (), calls=(("weather", "{}"),) if len(items) == 1 else ()
    )
    weather = {"type": "function", "name": "weather", "parameters": None, "strict": None, "description": None}
    both: dict[str, Any] = {"tools": [WIKI, weather], "user": "ada"}
    first = await asked(server, **both, input="Does it rain?")
    assert kinds(first) == ["mcp_approval_request"]
    second = await asked(server, **both, input=approving(first), previous_response_id=first["id"])
    assert kinds(second) == ["mcp_call", "message"]
    assert await calls_charged(bench, provider) == [{"mcp": 1}]


async def test_all_items_can_be_given_back_and_nothing_be_stored(
    server: Server, bench: Bench, provider: OpenAIStandIn
) -> None:
    provider.script(Reply(hosted=(LISTED, asking())), Reply(hosted=(asking("look"),)), Reply(text="It rains."))
    unkept = ASKED | {"store": False}
    said: list[Json] = [QUESTION]
    for calls in (0, 1, 1):
        response = await asked(server, **unkept, input=said)
        assert kinds(response).count("mcp_call") == calls
        said += response["output"]
        if response["output"][-1]["type"] == "mcp_approval_request":
            said += approving(response)
    assert text_of(response) == "It rains."
    assert await calls_charged(bench, provider) == [{"mcp": 1}, {"mcp": 1}]
    assert "mcp_approval_response" in (await refused(server, **unkept, input=[QUESTION, said[-3]]))["message"]


@pytest.mark.parametrize("is_referred", [False, True])
async def test_all_items_can_be_given_back_and_the_response_be_kept(
    server: Server, bench: Bench, provider: OpenAIStandIn, is_referred: bool
) -> None:
    provider.script(Reply(hosted=(LISTED, asking())), Reply(text="It rains."))
    first = await asked(server, **ASKED, input=[QUESTION])
    given = first["output"]
    if is_referred:
        given = [{"type": "item_reference", "id": item["id"]} for item in given]
    second = await asked(server, **ASKED, input=[QUESTION, *given, *approving(first)])
    assert kinds(second) == ["mcp_call", "message"]
    items = (await server.get(f"/v1/responses/{second['id']}/input_items?order=asc")).json()["data"]
    assert [item["type"] for item in items][-2:] == ["mcp_approval_request", "mcp_approval_response"]
    assert items[-1]["approval_request_id"] == items[-2]["id"] == second["output"][0]["approval_request_id"]
    assert await calls_charged(bench, provider) == [{"mcp": 1}]


async def test_an_approval_that_could_not_be_asked_about_can_be_given_again(
    server: Server, bench: Bench, provider: OpenAIStandIn
) -> None:
    provider.script(Reply(hosted=(asking(),)), Fault.http(400, "canary"), Reply(text="It rains."))
    first = await asked(server, **ASKED, input="Does it rain?")
    approval = {"input": approving(first), "previous_response_id": first["id"]}
    answer = await server.post("/v1/responses", {"model": "gpt-4o", **ASKED, **approval})
    assert answer.status >= 400
    assert kinds(await asked(server, **ASKED, **approval)) == ["mcp_call", "message"]
    assert await calls_charged(bench, provider) == [{"mcp": 1}]


@pytest.mark.parametrize(
    ("rule", "asks"),
    [
        (None, True),
        ("always", True),
        ("never", False),
        ({"never": {"tool_names": ["ask"]}}, False),
        ({"never": {"tool_names": ["look"]}}, True),
        ({"always": {"tool_names": ["ask"]}, "never": {"tool_names": ["look"]}}, True),
        ({"always": {"read_only": False}}, False),
    ],
)
async def test_which_calls_are_asked_for_is_the_callers_to_say(
    server: Server, provider: OpenAIStandIn, rule: Any, asks: bool
) -> None:
    provider.script(Reply(text="It rains.", hosted=(asking(),)))
    response = await asked(server, tools=[{**WIKI, "require_approval": rule}], input="Does it rain?")
    assert (kinds(response)[0] == "mcp_approval_request") == asks
    assert response["tools"][0]["require_approval"] == rule


@pytest.mark.parametrize(
    ("more", "param", "says"),
    [
        ({"tools": [SEARCH]}, "tools", "must have the mcp server again"),
        ({"tools": [WIKI | {"server_label": "other"}]}, "tools", "must have the mcp server again"),
        ({"input": [{"type": "mcp_approval_response", "approve": True}]}, "input[0].approval_request_id", "a string"),
        (
            {"input": [{"type": "mcp_approval_response", "approval_request_id": "a", "approve": "yes"}]},
            "input[0].approve",
            "true or false",
        ),
        (
            {"input": [{"type": "mcp_approval_response", "approval_request_id": "mcpr_canary", "approve": True}]},
            "input",
            "waits for mcpr_",
        ),
    ],
)
async def test_an_approval_of_nothing_is_refused_and_the_text_says_what_waits(
    server: Server, bench: Bench, provider: OpenAIStandIn, more: Json, param: str, says: str
) -> None:
    provider.script(Reply(hosted=(LISTED, asking())))
    first = await asked(server, **ASKED, input="Does it rain?")
    body = ASKED | {"input": approving(first), "previous_response_id": first["id"]} | more
    refusal = await refused(server, **body)
    assert (refusal["param"], refusal["code"]) == (param, "invalid_request")
    assert says in refusal["message"]
    twice = [*approving(first), *approving(first)]
    refusal = await refused(server, **ASKED, input=twice, previous_response_id=first["id"])
    assert "two mcp_approval_response" in refusal["message"]
    nowhere = {"type": "mcp_approval_response", "approval_request_id": "mcpr_canary", "approve": True}
    assert "it waits for none" in (await refused(server, **ASKED, input=[QUESTION, nowhere]))["message"]
    assert len(bench.store.entries) == 1


async def test_an_exported_conversation_goes_on_where_it_waits(server: Server, provider: OpenAIStandIn) -> None:
    provider.script(Reply(hosted=(asking(),)), Reply(text="It rains."), Reply(text="It rains."))
    made = (await server.post("/v1/conversations", {"user": "ada"})).json()
    first = await asked(server, **ASKED, conversation=made["id"], input="Does it rain?")
    at = f"/conversations/{made['id']}"

    async def imported(number: int) -> str:
        line = (await server.get(at)).json() | {"messages": (await server.get(f"{at}/messages")).json()["data"]}
        answer = await server.post("/conversations/import", line | {"id": f"conv_{number:024x}"})
        assert answer.status == 201, answer.body
        return str(answer.json()["id"])

    moved = await imported(1)
    assert kinds(await asked(server, **ASKED, conversation=moved, input=approving(first))) == ["mcp_call", "message"]
    await asked(server, **ASKED, conversation=made["id"], input=approving(first))
    again = await imported(2)
    items = [(await server.get(f"/v1/conversations/{each}/items")).json()["data"] for each in (made["id"], again)]
    assert items[0] == items[1]
    assert [item["type"] for item in items[0]][2] == "mcp_approval_response"


async def test_where_only_the_provider_keeps_messages_nothing_waits_for_an_approval(
    bench: Bench, provider: OpenAIStandIn, tmp_path: Path
) -> None:
    bench.policy = replace(bench.policy, keep_messages=False)
    terms = {"mcp": HostedTerms(price=PRICE, tokens=500)}
    route = Route(llm=bench.llm, transcript=bench.transcript, hosted=terms)
    bench.textllm = bench.over(routes=Routes(named={}, providers={}, otherwise=route))
    async with serving(bench, spool_dir=tmp_path) as server:
        begun = (await server.post("/chat", {"message": "Hello", "user_id": "ada"})).json()
        body = ASKED | {"conversation": begun["conversation_id"], "input": "Does it rain?"}
        refusal = await refused(server, **body)
        assert (refusal["param"], "store_messages" in refusal["message"]) == ("tools[0].require_approval", True)
        never = body | {"tools": [{**WIKI, "require_approval": "never"}]}
        assert kinds(await asked(server, **never)) == ["message"]
        assert kinds(await asked(server, **ASKED, input="Does it rain?")) == ["message"]


async def test_what_servers_did_elsewhere_can_be_added_to_a_conversation(
    server: Server, bench: Bench, provider: OpenAIStandIn
) -> None:
    made = (await server.post("/v1/conversations", {"user": "ada"})).json()
    path = f"/v1/conversations/{made['id']}/items"

    async def added(*items: Json) -> list[Json]:
        answer = await server.post(path, {"items": items})
        assert answer.status == 200, answer.body
        return list(answer.json()["data"])

    request = {"type": "mcp_approval_request", "server_label": "wiki", "name": "ask", "arguments": "{}"}
    answer = {"type": "mcp_approval_response", "approve": True}
    searched = {
        "id": "ws_1",
        "type": "web_search_call",
        "status": "completed",
        "action": {"type": "search", "query": ""},
    }
    _, asks = await added(QUESTION, searched, request | {"id": "mcpr_1"})
    (decided,) = await added(answer | {"approval_request_id": "mcpr_1"})
    assert decided["approval_request_id"] == asks["id"] != "mcpr_1"
    await added(asking(), {"role": "assistant", "content": "It rains."}, request | {"id": "mcpr_2"})
    waits = (await server.get(f"{path}?limit=1")).json()["data"][0]
    response = await asked(server, **ASKED, conversation=made["id"], input=approving({"output": [waits]}))
    assert kinds(response)[0] == "mcp_call"
    assert await calls_charged(bench, provider) == [{"mcp": 1}]
    huge = await server.post(path, {"items": [request | {"id": "mcpr_3", "arguments": "x" * 20_000}]})
    assert (huge.status, huge.json()["error"]["code"]) == (413, "input_too_long")


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({**LISTED, "tools": 5}, "tools"),
        ({**LISTED, "tools": [{"name": "ask"}]}, "tools[0].input_schema"),
        ({**LISTED, "tools": [{"name": ["ask"], "input_schema": {}}]}, "tools[0].name"),
        (asking(status=7), "status"),
        (asking(output={"x": 1}), "output"),
        (asking(approval_request_id=[1]), "approval_request_id"),
        ({"type": "mcp_approval_request", "id": "a", "server_label": "wiki", "name": "ask"}, "arguments"),
    ],
)
async def test_what_no_server_did_is_refused_by_its_place(
    server: Server, provider: OpenAIStandIn, item: Json, param: str
) -> None:
    refusal = await refused(server, **ASKED, input=[QUESTION, item, QUESTION])
    assert refusal["param"] == f"input[1].{param}"
    made = (await server.post("/v1/conversations", {"user": "ada"})).json()
    answer = await server.post(f"/v1/conversations/{made['id']}/items", {"items": [item]})
    assert (answer.status, answer.json()["error"]["param"]) == (400, f"items[0].{param}")
    assert provider.bills == []
