"""Calls of MCP servers that somebody approves first, with OpenAI's SDK; the stand-in asks and runs as OpenAI does."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.e2e.conftest import API_KEY, Books, Service, price_of, serving
from tests.e2e.test_sdk_responses import check
from tests.openai import described
from tests.servers.openai import OpenAIStandIn, Reply
from tests.servers.openai_script import Json

from textllm_core.ids import new_id

PRICE = Decimal("0.01")
ALLOWED = '{"mcp": {"price": 0.01, "tokens": 2000}}'
TOOLS: Any = [{"type": "mcp", "server_label": "wiki", "server_url": "https://mcp.example/wiki"}]
LISTED: Json = {
    "id": "mcpl_1",
    "type": "mcp_list_tools",
    "server_label": "wiki",
    "tools": [{"name": "ask", "input_schema": {"type": "object"}, "description": "Ask.", "annotations": None}],
}


def asking(name: str = "ask", **more: Any) -> Json:
    call = {"id": new_id("mcp"), "type": "mcp_call", "status": "completed", "server_label": "wiki", "name": name}
    return call | {"arguments": '{"q":"rain"}', "output": "It rains.", "error": None} | more


def approving(response: Any, *, approve: bool = True, **more: Any) -> list[Any]:
    requests = [item for item in response.output if item.type == "mcp_approval_request"]
    assert requests
    answer = {"type": "mcp_approval_response", "approve": approve, **more}
    return [answer | {"approval_request_id": request.id} for request in requests]


def kinds(response: Any) -> list[str]:
    return [item.type for item in response.output]


@pytest.fixture
def user() -> str:
    return new_id("user")


@pytest.fixture
def own_provider() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn(api_key=API_KEY) as provider:
        yield provider


@pytest.fixture(params=["conversations", "responses"])
def own_service(
    own_provider: OpenAIStandIn, database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Service]:
    settings = {"TEXTLLM_HOSTED_TOOLS": ALLOWED, "TEXTLLM_LLM_API": request.param}
    with serving(tmp_path, own_provider, database, "--workers", "1", **settings) as service:
        yield service


@pytest.fixture
def client(own_service: Service) -> Iterator[OpenAI]:
    http = openai.DefaultHttpx2Client(event_hooks={"response": [check]})
    with OpenAI(base_url=f"{own_service.url}/v1", api_key="none", http_client=http, max_retries=0) as client:
        yield client


async def charged(books: Books, provider: OpenAIStandIn, user: str) -> list[dict[str, int]]:
    """The calls of each exchange of the user's, which cost what the provider bills."""
    entries = await books.exact_entries(user)
    assert [entry.cost for entry in entries] == [price_of(bill, call=PRICE) for bill in provider.bills]
    assert await books.drifts() == []
    return [dict(entry.usage.tool_calls) for entry in entries]


async def test_a_call_runs_once_it_is_approved_and_is_charged_once(
    client: OpenAI, own_provider: OpenAIStandIn, books: Books, user: str
) -> None:
    own_provider.script(Reply(hosted=(LISTED, asking())), Reply(text="It rains."))
    asked: dict[str, Any] = {"model": "gpt-4o", "tools": TOOLS, "user": user}
    first = client.responses.create(**asked, input="Does it rain?")
    assert kinds(first) == ["mcp_list_tools", "mcp_approval_request"]
    request = first.output[-1]
    assert request.type == "mcp_approval_request"
    assert (request.server_label, request.name, request.arguments) == ("wiki", "ask", '{"q":"rain"}')
    assert client.responses.retrieve(first.id).output == first.output
    second = client.responses.create(**asked, input=approving(first, reason="Go."), previous_response_id=first.id)
    assert kinds(second) == ["mcp_call", "message"]
    call = second.output[0]
    assert call.type == "mcp_call"
    assert (call.approval_request_id, call.output) == (request.id, "ask ran.")
    (said,) = client.responses.input_items.list(second.id)
    assert said.type == "mcp_approval_response"
    assert (said.approval_request_id, said.approve, said.reason) == (request.id, True, "Go.")
    third = client.responses.create(**asked, input="And now?", previous_response_id=second.id)
    assert third.output_text.endswith("You said: And now?")
    assert await charged(books, own_provider, user) == [{}, {"mcp": 1}, {}]
    with pytest.raises(openai.BadRequestError, match="was answered before"):
        client.responses.create(**asked, input=approving(first), previous_response_id=first.id)


async def test_the_events_of_a_request_are_openais_and_a_repeat_tells_the_same(
    client: OpenAI, own_provider: OpenAIStandIn, books: Books, user: str
) -> None:
    own_provider.script(Reply(hosted=(LISTED, asking())), Reply(text="It rains."))
    asked: dict[str, Any] = {"model": "gpt-4o", "tools": TOOLS, "user": user}

    def streamed(**more: Any) -> list[Any]:
        with client.responses.create(**asked, **more, stream=True) as stream:
            events = list(stream)
        for event in events:
            described.check_event(event.to_dict())
        return events

    keyed: dict[str, Any] = {"extra_headers": {"Idempotency-Key": new_id("k")}}
    events = streamed(input="Does it rain?", **keyed)
    of_request = [event for event in events if getattr(event, "output_index", None) == 1]
    assert [event.type for event in of_request] == ["response.output_item.added", "response.output_item.done"]
    first = events[-1].response
    assert of_request[-1].item == first.output[-1] == of_request[0].item
    assert streamed(input="Does it rain?", **keyed)[-1].response.output == first.output
    approval: dict[str, Any] = {"input": approving(first), "previous_response_id": first.id}
    keyed = {"extra_headers": {"Idempotency-Key": new_id("k")}}
    second = streamed(**approval, **keyed)[-1].response
    assert kinds(second) == ["mcp_call", "message"]
    assert streamed(**approval, **keyed)[-1].response.output == second.output
    assert await charged(books, own_provider, user) == [{}, {"mcp": 1}]


async def test_a_conversation_keeps_what_was_asked_and_decided_and_goes_on(
    client: OpenAI, own_provider: OpenAIStandIn, books: Books, user: str
) -> None:
    own_provider.script(
        Reply(hosted=(LISTED, asking())),
        Reply(hosted=(asking("look"),)),
        Reply(text="It rains."),
    )
    conversation = client.conversations.create()
    asked: dict[str, Any] = {"model": "gpt-4o", "tools": TOOLS, "user": user, "conversation": conversation.id}
    first = client.responses.create(**asked, input="Does it rain?")
    second = client.responses.create(**asked, input=approving(first))
    assert kinds(second) == ["mcp_call", "mcp_approval_request"]
    with pytest.raises(openai.BadRequestError, match="waits for mcpr_") as refusal:
        client.responses.create(**asked, input=approving(first))
    assert refusal.value.param == "input"
    # What the first call said must not be lost: the model asks for the second one because of it.
    third = client.responses.create(**asked, input=approving(second))
    sent = [item["type"] for item in own_provider.requests[-1].body["input"]]
    assert sent[-6:] == [
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_approval_request",
        "mcp_approval_response",
    ]
    assert kinds(third) == ["mcp_call", "message"]
    items = client.conversations.items.list(conversation.id, order="asc")
    assert [item.type for item in items] == [
        "message",
        "mcp_list_tools",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "mcp_approval_request",
        "mcp_approval_response",
        "mcp_call",
        "message",
    ]
    again = client.responses.create(**asked, input="Thanks.")
    assert again.output_text == "[2] You said: Thanks."
    assert await charged(books, own_provider, user) == [{}, {"mcp": 1}, {"mcp": 1}, {}]


async def test_what_is_denied_or_never_decided_does_not_run_and_costs_nothing(
    client: OpenAI, own_provider: OpenAIStandIn, books: Books, user: str
) -> None:
    own_provider.script(
        Reply(hosted=(LISTED, asking())), Reply(text="As you like."), Reply(hosted=(asking(), asking("look")))
    )
    asked: dict[str, Any] = {"model": "gpt-4o", "tools": TOOLS, "user": user}
    first = client.responses.create(**asked, input="Does it rain?")
    denied = client.responses.create(
        **asked, input=approving(first, approve=False, reason="No."), previous_response_id=first.id
    )
    assert kinds(denied) == ["message"]
    waiting = client.responses.create(**asked, input="Ask again.", previous_response_id=denied.id)
    assert kinds(waiting) == ["mcp_approval_request"]
    plain: dict[str, Any] = {"model": "gpt-4o", "user": user}
    gone_on = client.responses.create(**plain, input="Never mind.", previous_response_id=waiting.id)
    assert gone_on.output_text.endswith("You said: Never mind.")
    assert await charged(books, own_provider, user) == [{}, {}, {}, {}]


async def test_all_items_can_be_given_back_and_nothing_be_stored(
    client: OpenAI, own_provider: OpenAIStandIn, books: Books, user: str
) -> None:
    own_provider.script(Reply(hosted=(LISTED, asking())), Reply(hosted=(asking("look"),)), Reply(text="It rains."))
    asked: dict[str, Any] = {"model": "gpt-4o", "tools": TOOLS, "user": user, "store": False}
    said: list[Any] = [{"role": "user", "content": "Does it rain?"}]
    for calls in ([], ["mcp_call"], ["mcp_call"]):
        response = client.responses.create(**asked, input=said)
        assert [kind for kind in kinds(response) if kind == "mcp_call"] == calls
        said += [item.to_dict() for item in response.output]
        if response.output[-1].type == "mcp_approval_request":
            said += approving(response)
    assert response.output_text == "It rains."
    assert await charged(books, own_provider, user) == [{}, {"mcp": 1}, {"mcp": 1}]
    with pytest.raises(openai.BadRequestError, match="mcp_approval_response"):
        client.responses.create(**asked, input=[said[0], approving_nothing()])


async def test_all_items_can_be_given_back_and_the_response_be_kept(
    client: OpenAI, own_provider: OpenAIStandIn, books: Books, user: str
) -> None:
    own_provider.script(Reply(hosted=(LISTED, asking())), Reply(text="It rains."), Reply(hosted=(asking(),)))
    asked: dict[str, Any] = {"model": "gpt-4o", "tools": TOOLS, "user": user}
    said: list[Any] = [{"role": "user", "content": "Does it rain?"}]
    first = client.responses.create(**asked, input=said)
    referred = [{"type": "item_reference", "id": item.id} for item in first.output]
    for given in ([item.to_dict() for item in first.output], referred):
        response = client.responses.create(**asked, input=[*said, *given, *approving(first)])
        assert kinds(response)[0] == "mcp_call"
        items = list(client.responses.input_items.list(response.id, order="asc"))
        asks, answer = items[-2:]
        assert (asks.type, answer.type) == ("mcp_approval_request", "mcp_approval_response")
        assert answer.to_dict()["approval_request_id"] == asks.id
    assert await charged(books, own_provider, user) == [{}, {"mcp": 1}, {"mcp": 1}]


def approving_nothing() -> Any:
    return {"type": "mcp_approval_response", "approve": True, "approval_request_id": "mcpr_canary"}
