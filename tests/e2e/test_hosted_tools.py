"""Tools on OpenAI's servers, asked for with its SDK: what they cost is what the provider bills, whatever dies when."""

import asyncio
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
from sqlalchemy import select
from tests.e2e.conftest import Books, Service, price_of, serving
from tests.openai import described
from tests.servers.openai import OpenAIStandIn, Reply
from tests.servers.openai_tools import SEARCH

from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.tables import holds
from textllm_core.ids import new_id

PRICE = Decimal("0.01")
ALLOWED = '{"web_search": {"price": 0.01}, "code_interpreter": {"price": 0.01}}'
TOOLS: Any = [{"type": "web_search"}, {"type": "code_interpreter", "container": {"type": "auto"}}]
RAN = {"id": "ci_1", "type": "code_interpreter_call", "status": "completed", "container_id": "cntr_1", "code": "1"}
NOTE = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 3}
ASKED: dict[str, Any] = {"model": "gpt-4o", "input": "Does it rain?", "tools": TOOLS, "user": "ada"}


def searched(**more: Any) -> Reply:
    return Reply(text="It rains.", hosted=(SEARCH, {**RAN, "outputs": []}), annotations=(NOTE,), **more)


@pytest.fixture
def user() -> str:
    return new_id("user")


@pytest.fixture
def own_service(own_provider: OpenAIStandIn, own_database: str, tmp_path: Path) -> Iterator[Service]:
    with serving(tmp_path, own_provider, own_database, "--workers", "1", TEXTLLM_HOSTED_TOOLS=ALLOWED) as service:
        yield service


async def charged(books: Books, provider: OpenAIStandIn, user: str) -> dict[str, int]:
    """The calls of the user's last exchange, which costs what the provider bills."""
    entry, bill = (await books.exact_entries(user))[-1], provider.bills[-1]
    assert (entry.estimated, entry.cost) == (False, price_of(bill, call=PRICE))
    assert entry.usage.tool_calls == bill.tool_calls
    assert await books.drifts() == []
    return dict(entry.usage.tool_calls)


async def test_the_sdk_sees_what_tools_did_and_the_books_have_what_the_provider_bills(
    own_client: OpenAI, own_provider: OpenAIStandIn, own_books: Books, user: str
) -> None:
    asked = ASKED | {"user": user}
    own_provider.script(searched(), searched())
    whole = own_client.responses.create(**asked)
    assert [item.type for item in whole.output] == ["web_search_call", "code_interpreter_call", "message"]
    assert await charged(own_books, own_provider, user) == {"web_search": 1, "code_interpreter": 1}
    with own_client.responses.stream(**asked, previous_response_id=whole.id) as stream:
        events = list(stream)
        final = stream.get_final_response()
    for event in events:
        if event.type not in ("response.output_text.delta", "response.output_text.done", "response.completed"):
            described.check_event(event.to_dict())
    kinds = [event.type for event in events]
    assert kinds.index("response.web_search_call.searching") < kinds.index("response.output_text.delta")
    assert [item.type for item in final.output] == ["web_search_call", "code_interpreter_call", "message"]
    message = final.output[-1]
    assert message.type == "message"
    assert message.content[0].to_dict()["annotations"] == [NOTE]
    assert await charged(own_books, own_provider, user) == {"web_search": 1, "code_interpreter": 1}
    kept = own_client.responses.retrieve(final.id)
    assert [item.to_dict() for item in kept.output[:-1]] == [item.to_dict() for item in final.output[:-1]]
    assert kept.output_text == final.output_text == "It rains."
    sent = [request.body for request in own_provider.requests if request.path == "/v1/responses"]
    assert [body["max_tool_calls"] for body in sent] == [5, 5]
    assert [body["tools"] for body in sent] == [TOOLS, TOOLS]
    with pytest.raises(openai.BadRequestError, match=r"hosted_tools\.file_search"):
        own_client.responses.create(**asked | {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]})


async def test_a_client_that_hangs_up_while_a_tool_works_pays_for_all_of_it(
    own_client: OpenAI, own_provider: OpenAIStandIn, own_books: Books, user: str
) -> None:
    gate = threading.Event()
    own_provider.script(searched(hosted_gate=gate))
    with own_client.responses.create(**ASKED | {"user": user}, stream=True) as stream:
        next(event for event in stream if event.type == "response.code_interpreter_call.in_progress")
    gate.set()
    assert await charged(own_books, own_provider, user) == {"web_search": 1, "code_interpreter": 1}


async def written_down(books: Books) -> None:
    """Wait until the database knows by which id the provider can be asked; the client may have heard of it before."""
    engine = books.engine()
    try:
        async with asyncio.timeout(30):
            known = None
            while known is None:
                async with Database(engine).single(EVERYONE) as connection:
                    known = await connection.scalar(select(holds.c.provider_response_id))
                await asyncio.sleep(0.02)
    finally:
        await engine.dispose()


async def test_a_worker_that_is_killed_while_a_tool_works_leaves_exact_books(
    own_client: OpenAI, own_provider: OpenAIStandIn, own_service: Service, own_books: Books, user: str
) -> None:
    own_provider.finish_after_disconnect = True
    gate = threading.Event()
    own_provider.script(searched(hosted_gate=gate))
    with own_client.responses.create(**ASKED | {"user": user}, stream=True) as stream:
        next(event for event in stream if event.type == "response.code_interpreter_call.in_progress")
        await written_down(own_books)
        (worker,) = own_service.workers()
        os.kill(worker, signal.SIGKILL)
    gate.set()
    assert await charged(own_books, own_provider, user) == {"web_search": 1, "code_interpreter": 1}


async def test_a_response_in_the_background_is_polled_with_what_its_tools_did(
    own_client: OpenAI, own_provider: OpenAIStandIn, own_books: Books, user: str
) -> None:
    gate = threading.Event()
    own_provider.script(searched(hosted_gate=gate))
    begun = own_client.responses.create(**ASKED | {"user": user}, background=True)
    stream = own_client.responses.retrieve(begun.id, stream=True)
    next(event for event in stream if event.type == "response.code_interpreter_call.in_progress")
    gate.set()
    assert [event.type for event in stream][-1] == "response.completed"
    ended = own_client.responses.retrieve(begun.id)
    assert [item.type for item in ended.output] == ["web_search_call", "code_interpreter_call", "message"]
    assert await charged(own_books, own_provider, user) == {"web_search": 1, "code_interpreter": 1}
