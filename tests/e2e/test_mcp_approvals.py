"""Calls of MCP servers that somebody approves first, with OpenAI's SDK; the stand-in asks and runs as OpenAI does."""

import os
import signal
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from tests.e2e.conftest import Books, Service, price_of, serving
from tests.e2e.test_hosted_tools import written_down
from tests.openai import described
from tests.servers.openai import OpenAIStandIn, Reply
from tests.servers.openai_script import Json

from textllm_core.ids import new_id

PRICE = Decimal("0.01")
ALLOWED = '{"mcp": {"price": 0.01, "tokens": 2000, "allowed": ["mcp.example"]}, "file_search": {"price": 0.01}}'
TOOLS: Any = [{"type": "mcp", "server_label": "wiki", "server_url": "https://mcp.example/wiki"}]
LISTED: Json = {
    "id": "mcpl_1",
    "type": "mcp_list_tools",
    "server_label": "wiki",
    "tools": [{"name": "ask", "input_schema": {"type": "object"}, "description": "Ask.", "annotations": None}],
}
CALL: Json = {"id": "mcp_1", "type": "mcp_call", "server_label": "wiki", "name": "ask", "arguments": '{"q":"rain"}'}


@pytest.fixture
def own_service(own_provider: OpenAIStandIn, own_database: str, tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path, own_provider, own_database, "--workers", "1", TEXTLLM_HOSTED_TOOLS=ALLOWED) as service:
        yield service


async def test_the_sdk_approves_a_call_which_runs_and_is_charged_once(
    own_client: OpenAI, own_provider: OpenAIStandIn, own_books: Books
) -> None:
    user = new_id("user")
    asked: dict[str, Any] = {"model": "gpt-4o", "tools": TOOLS, "user": user}
    own_provider.script(Reply(hosted=(LISTED, CALL)), Reply(text="It rains."), Reply(hosted=(CALL,)))
    with own_client.responses.create(**asked, input="Does it rain?", stream=True) as stream:
        events = list(stream)
    for event in events:
        described.check_event(event.to_dict())
    first = own_client.responses.retrieve(events[-1].response.id)
    assert [item.type for item in first.output] == ["mcp_list_tools", "mcp_approval_request"]
    request = first.output[-1]
    approval: Any = {"type": "mcp_approval_response", "approve": True, "approval_request_id": request.id}
    keyed: Any = {"Idempotency-Key": new_id("key")}
    followed: dict[str, Any] = {"input": [approval], "previous_response_id": first.id, "extra_headers": keyed}
    second = own_client.responses.create(**asked, **followed)
    call = second.output[0]
    assert call.type == "mcp_call"
    assert (call.approval_request_id, call.output, second.output_text) == (request.id, "ask ran.", "It rains.")
    assert own_client.responses.create(**asked, **followed).output == second.output
    (said,) = own_client.responses.input_items.list(second.id)
    assert said.type == "mcp_approval_response"
    assert (said.approval_request_id, said.approve) == (request.id, True)
    with pytest.raises(openai.BadRequestError, match="answered before") as refusal:
        own_client.responses.create(**asked, input=[approval], previous_response_id=first.id)
    assert refusal.value.param == "input"
    waiting = own_client.responses.create(**asked, input="Ask again.", previous_response_id=second.id)
    assert [item.type for item in waiting.output] == ["mcp_approval_request"]
    moved_on = own_client.responses.create(model="gpt-4o", user=user, input="Stop.", previous_response_id=waiting.id)
    assert moved_on.output_text.endswith("You said: Stop.")
    entries = await own_books.exact_entries(user)
    assert [dict(entry.usage.tool_calls) for entry in entries] == [{}, {"mcp": 1}, {}, {}]
    assert [entry.cost for entry in entries] == [price_of(bill, call=PRICE) for bill in own_provider.bills]
    assert await own_books.drifts() == []
    stores: Any = [{"type": "file_search", "vector_store_ids": ["vs_1"]}]
    with pytest.raises(openai.BadRequestError, match=r"vs_1.*hosted_tools\.file_search\.allowed"):
        own_client.responses.create(**asked | {"tools": stores}, input="Search.")
    other: Any = [TOOLS[0] | {"server_url": "https://other.example"}]
    with pytest.raises(openai.BadRequestError, match=r"other\.example.*hosted_tools\.mcp\.allowed"):
        own_client.responses.create(**asked | {"tools": other}, input="Ask.")


@pytest.mark.slow  # a lease has to end
async def test_a_worker_that_is_killed_while_an_approved_call_runs_leaves_exact_books_and_runs_it_once(
    own_client: OpenAI, own_provider: OpenAIStandIn, own_service: Service, own_books: Books
) -> None:
    user, gate = new_id("user"), threading.Event()
    asked: dict[str, Any] = {"model": "gpt-4o", "tools": TOOLS, "user": user}
    own_provider.finish_after_disconnect = True
    own_provider.script(Reply(hosted=(LISTED, CALL)), Reply(text="It rains.", hosted_gate=gate))
    first = own_client.responses.create(**asked, input="Does it rain?")
    approval: Any = {"type": "mcp_approval_response", "approve": True, "approval_request_id": first.output[-1].id}
    with own_client.responses.create(**asked, input=[approval], previous_response_id=first.id, stream=True) as stream:
        begun = next(event for event in stream if event.type == "response.created")
        next(event for event in stream if event.type == "response.mcp_call.in_progress")
        await written_down(own_books)
        (worker,) = own_service.workers()
        os.kill(worker, signal.SIGKILL)
    gate.set()
    entries = await own_books.exact_entries(user)
    assert [dict(entry.usage.tool_calls) for entry in entries] == [{}, {"mcp": 1}]
    assert [entry.cost for entry in entries] == [price_of(bill, call=PRICE) for bill in own_provider.bills]
    with pytest.raises(openai.BadRequestError, match="answered before"):
        own_client.responses.create(**asked, input=[approval], previous_response_id=first.id)
    after = own_client.responses.create(**asked, input="And now?", previous_response_id=begun.response.id)
    assert after.output_text.endswith("You said: And now?")
    assert await own_books.drifts() == []
