"""A conversation that is erased is gone on both sides, also when the provider refuses at first."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import API_KEY, Books, Service, price_of, serving
from tests.e2e.test_cli import textllm
from tests.image_files import png
from tests.servers.openai import Fault, OpenAIStandIn, Reply
from tests.servers.s3 import S3Server, open_bucket

from textllm_core.ids import new_id
from textllm_core.policy import SUMMARY_PROMPT

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


@pytest.mark.usefixtures("sqlite_url")  # with its tables, which a process would take its time for
def test_the_command_line_erases_at_the_provider_and_the_storage_before_it_leaves(
    openai: OpenAIStandIn, s3_server: S3Server, tmp_path: Path
) -> None:
    bucket = s3_server.create_bucket()
    settings = {
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": openai.base_url,
        "S3_ENABLED": "true",
        "S3_BUCKET": bucket,
        "S3_ENDPOINT": s3_server.url,
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
    }
    (tmp_path / "a.png").write_bytes(png(9, 9))
    asked = textllm(tmp_path, "ask", "hi", "-i", "a.png", "--json", **settings)
    it = json.loads(asked.stdout)["conversation_id"]
    openai.script_route(DELETE_ITEM, Fault.http(500, retry_after_s=0.01))
    result = textllm(tmp_path, "conversations", "delete", it, "--hard", **settings)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{it} is erased\n", "")
    assert (openai.conversations, openai.orphaned_items, openai.responses) == ({}, {}, frozenset())
    assert asyncio.run(keys_in(s3_server, bucket)) == []


async def keys_in(server: S3Server, bucket: str) -> list[str]:
    async with open_bucket(server, bucket) as store:
        return [found["Key"] for found in (await store.client.list_objects_v2(Bucket=bucket)).get("Contents", ())]


def test_a_summary_costs_what_the_provider_billed_and_leaves_nothing_there(
    service: Service, provider: OpenAIStandIn, books: Books
) -> None:
    user = new_id("user")
    it = service.chat("a canary", user_id=user).json()["conversation_id"]
    before = provider.conversations, provider.responses
    provider.script(Reply(text="They spoke of birds."))
    answer = service.post(f"/conversations/{it}/summary")
    conversation = answer.json()
    assert (answer.status_code, conversation["summary"]) == (200, "They spoke of birds.")
    assert (conversation, conversation["message_count"]) == (service.get(f"/conversations/{it}").json(), 1)
    body = provider.requests[-1].body
    assert (body["store"], body.get("conversation")) == (False, None)
    texts = [message["content"] for message in body["input"]]
    assert texts == ["a canary", "[0] You said: a canary", SUMMARY_PROMPT]
    assert (provider.conversations, provider.responses) == before
    turn, summary = asyncio.run(books.entries(user))
    assert (summary.kind, summary.status, summary.estimated) == ("summary", "completed", False)
    assert summary.cost == price_of(provider.bills[-1])
    assert conversation["total_cost"] == float(turn.cost + summary.cost)
    again = service.chat("and?", conversation_id=it).json()
    assert (again["text"], again["message_number"]) == ("[2] You said: and?", 2)
    assert len(service.get(f"/conversations/{it}/messages").json()["data"]) == 4
    assert asyncio.run(books.drifts()) == []


@pytest.mark.usefixtures("sqlite_url")  # with its tables, which a process would take its time for
def test_the_command_line_sums_up_what_the_provider_alone_keeps(openai: OpenAIStandIn, tmp_path: Path) -> None:
    settings = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": openai.base_url, "TEXTLLM_STORE_MESSAGES": "false"}
    it = json.loads(textllm(tmp_path, "ask", "hi", "--json", **settings).stdout)["conversation_id"]
    before = openai.conversations
    openai.script(Reply(text="They greeted."))
    result = textllm(tmp_path, "conversations", "summarize", it, **settings)
    assert (result.returncode, result.stdout) == (0, "They greeted.\n"), result.stderr
    texts = [message["content"] for message in openai.requests[-1].body["input"]]
    assert texts == ["hi", "[0] You said: hi", SUMMARY_PROMPT]
    assert openai.conversations == before
    again = textllm(tmp_path, "ask", "and?", "-c", it, **settings)
    assert again.stdout == "[2] You said: and?\n"


def test_first_turns_take_what_was_made_ahead_and_nothing_else_is_left(tmp_path: Path, database: str) -> None:
    with (
        OpenAIStandIn(api_key=API_KEY) as openai,
        serving(tmp_path, openai, database, TEXTLLM_READY_CONVERSATIONS="2") as service,
    ):

        def of_turns() -> list[str]:
            return [asked.body["conversation"] for asked in openai.requests if asked.path == "/v1/responses"]

        def begins_at_once() -> bool:
            before = set(openai.conversations)
            assert service.chat("Hello").status_code == 200
            return of_turns()[-1] in before

        assert not begins_at_once()
        soon(begins_at_once)
        # The first thing to be erased loads the SDK, for which a busy machine takes longer than a process at its end.
        gone = service.chat("Bye").json()["conversation_id"]
        assert httpx.delete(f"{service.url}/conversations/{gone}?soft=false", timeout=30).status_code == 200
        soon(lambda: of_turns()[-1] not in openai.conversations)
        service.stop()
        assert len(set(of_turns())) == len(of_turns())
        assert set(openai.conversations) == set(of_turns()[:-1])
