"""A conversation that is erased is gone on both sides, also when the provider refuses at first."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from tests.e2e.conftest import Books, Service
from tests.e2e.test_cli import textllm
from tests.servers.openai import Fault, OpenAIStandIn, Reply

from textllm_core.ids import new_id

DELETE_ITEM = "DELETE /conversations/{conversation_id}/items/{item_id}"
DELETE_CONVERSATION = "DELETE /conversations/{conversation_id}"
DELETE_RESPONSE = "DELETE /responses/{response_id}"


def soon(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90  # what was refused is tried again after a while
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_erased_is_gone_on_both_sides(service: Service, provider: OpenAIStandIn, books: Books) -> None:
    user = new_id("user")
    sides, responses = set(provider.conversations), provider.responses
    first = service.chat("a canary", user_id=user).json()
    it = first["conversation_id"]
    provider.script(Reply(text="cut short", end="incomplete:max_output_tokens"))
    assert service.chat("more", conversation_id=it).status_code == 200  # its side is made anew for the next turn
    assert service.chat("and more", conversation_id=it).status_code == 200
    assert len(provider.responses - responses) == 3
    for route in (DELETE_ITEM, DELETE_CONVERSATION, DELETE_RESPONSE):
        provider.script_route(route, *[Fault.http(503, retry_after_s=0.01)] * 2)

    url = f"{service.url}/conversations/{it}"
    deleted = httpx.delete(f"{url}?soft=false", timeout=30)
    assert (deleted.status_code, deleted.json()) == (200, {"id": it, "soft": False, "deleted": True})
    assert httpx.get(url).status_code == httpx.get(f"{url}/messages").status_code == 404
    soon(lambda: set(provider.conversations) <= sides and provider.responses <= responses)
    assert "canary" not in json.dumps(provider.orphaned_items)
    assert len(asyncio.run(books.entries(user))) == 3
    assert httpx.get(f"{service.url}/users/{user}/stats").json()["total_messages"] == 3
    assert asyncio.run(books.drifts()) == []


@pytest.fixture
def openai() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn(api_key="sk-test") as provider:
        yield provider


def test_the_command_line_erases_at_the_provider_before_it_leaves(openai: OpenAIStandIn, tmp_path) -> None:  # type: ignore[no-untyped-def]
    settings = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": openai.base_url}
    asked = textllm(tmp_path, "ask", "hi", "--json", **settings)
    it = json.loads(asked.stdout)["conversation_id"]
    openai.script_route(DELETE_ITEM, Fault.http(500, retry_after_s=0.01))
    result = textllm(tmp_path, "conversations", "delete", it, "--hard", **settings)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{it} is erased\n", "")
    assert (openai.conversations, openai.orphaned_items, openai.responses) == ({}, {}, frozenset())
