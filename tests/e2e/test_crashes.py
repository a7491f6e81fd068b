"""Workers die in the middle of anything, and the books are exact all the same."""

import asyncio
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import API_KEY, Books, Service, price_of, serving
from tests.http.sse_reader import read_events
from tests.servers.openai import OpenAIStandIn, Reply
from tests.servers.openai_script import Bill, Usage

from textllm_adapters.memory.clock import FixedClock
from textllm_adapters.sql.conversation_repository import SqlConversationRepository
from textllm_adapters.wiring import load_settings, open_textllm
from textllm_core.reconcile import Reconcile
from textllm_core.usage import LedgerEntry

WORKERS = 3
CLIENTS = 8
USERS = tuple(f"user_{number}" for number in range(10))
STREAMED, LEFT_EARLY, KEPT_BY_CLIENT, AS_RESPONSE = 0.7, 0.4, 0.2, 0.25
TOLERATED = (200, 409, 502, 503)  # beside connections that broke; 409: a dead worker's turn holds the conversation


@dataclass
class Load:
    """Clients that talk until `turns` were taken, and what they were told; meanwhile workers are killed."""

    service: Service
    turns: int
    kills: int
    chance: random.Random
    taken: int = 0
    replies: list[dict[str, object]] = field(default_factory=list)
    conversations: dict[str, str] = field(default_factory=dict)
    statuses: Counter[int | str] = field(default_factory=Counter)
    heard: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # user, conversation and text, by reply

    async def run(self) -> None:
        await asyncio.gather(*[self._talk() for _ in range(CLIENTS)])

    async def _talk(self) -> None:
        while self.taken < self.turns:
            self.taken += 1
            if self.taken % (self.turns // (self.kills + 1)) == 0:
                self._kill()
            user_id = self.chance.choice(USERS)
            body: dict[str, object] = {"message": f"turn {self.taken}", "user_id": user_id}
            if user_id in self.conversations and self.chance.random() < 0.5:
                body["conversation_id"] = self.conversations[user_id]
            try:
                async with httpx.AsyncClient(base_url=self.service.url, timeout=60) as client:
                    await self._turn(client, body)
            except httpx.TransportError as error:
                self.statuses[type(error).__name__] += 1

    def _kill(self) -> None:
        if workers := self.service.workers():  # else those killed before are not yet replaced
            os.kill(self.chance.choice(workers), signal.SIGKILL)
            self.statuses["killed"] += 1

    async def _turn(self, client: httpx.AsyncClient, body: dict[str, object]) -> None:
        is_streamed, leaves = self.chance.random() < STREAMED, self.chance.random() < LEFT_EARLY
        if self.chance.random() < KEPT_BY_CLIENT:
            await self._completion(client, body, is_streamed=is_streamed, leaves=leaves)
            return
        if self.chance.random() < AS_RESPONSE:
            await self._response(client, body, is_streamed=is_streamed, leaves=leaves)
            return
        if is_streamed:
            streamed = body | {"stream_format": "events"}
            async with client.stream("POST", "/chat/stream", json=streamed) as answer:
                self.statuses[answer.status_code] += 1
                received = b""
                try:
                    async for piece in answer.aiter_raw():
                        received += piece
                        if leaves and b"reply.delta" in received:
                            return
                finally:
                    self._heard(received)
            self._told([event.data for event in read_events(received) if event.name == "reply.completed"])
        elif leaves:
            with suppress(TimeoutError):
                async with asyncio.timeout(self.chance.uniform(0.01, 0.2)):
                    await client.post("/chat", json=body)
        else:
            reply = await client.post("/chat", json=body)
            self.statuses[reply.status_code] += 1
            self._told([reply.text] if reply.status_code == 200 else [])

    async def _completion(
        self, client: httpx.AsyncClient, body: dict[str, object], *, is_streamed: bool, leaves: bool
    ) -> None:
        """The same at the door of OpenAI's clients, where nothing of it is kept."""
        said = [{"role": "user", "content": body["message"]}]
        asked = {"messages": said, "user": body["user_id"], "stream": is_streamed}
        asked |= {"stream_options": {"include_usage": True}} if is_streamed else {}
        async with client.stream("POST", "/v1/chat/completions", json=asked) as answer:
            self.statuses[answer.status_code] += 1
            received = b""
            async for piece in answer.aiter_raw():
                received += piece
                if leaves and b"content" in received:
                    return
        told = [received.decode()] if answer.status_code == 200 and not is_streamed else []
        if answer.status_code == 200 and is_streamed:
            told = [event.data for event in read_events(received) if '"usage":{' in event.data]
        for text in told:
            reply = json.loads(text, parse_float=Decimal)
            response_id = reply["id"].replace("chatcmpl-", "resp_")
            self.replies.append({"response_id": response_id, "cost": reply["usage"]["cost"]})

    async def _response(
        self, client: httpx.AsyncClient, body: dict[str, object], *, is_streamed: bool, leaves: bool
    ) -> None:
        """The same at the door of OpenAI's clients, where it is kept as on `/chat`."""
        asked = {"input": body["message"], "user": body["user_id"], "stream": is_streamed}
        asked |= {"conversation": body["conversation_id"]} if "conversation_id" in body else {}
        async with client.stream("POST", "/v1/responses", json=asked) as answer:
            self.statuses[answer.status_code] += 1
            received = b""
            try:
                async for piece in answer.aiter_raw():
                    received += piece
                    if leaves and b"delta" in received:
                        return
            finally:
                if answer.status_code == 200 and is_streamed:
                    events = read_events(received[: received.rfind(b"\n\n") + 2])
                    deltas = [json.loads(each.data)["delta"] for each in events if each.name.endswith("text.delta")]
                    of_it = str(body["user_id"]), answer.headers["x-conversation-id"], "".join(deltas)
                    self.heard[answer.headers["x-response-id"]] = of_it
        told = [received.decode()] if answer.status_code == 200 and not is_streamed else []
        if answer.status_code == 200 and is_streamed:
            events = [event for event in read_events(received) if event.name == "response.completed"]
            told = [json.dumps(json.loads(event.data)["response"]) for event in events]
        for text in told:
            reply = json.loads(text)
            usage = reply["usage"]
            used = Usage(
                input_tokens=usage["input_tokens"],
                cached_tokens=usage["input_tokens_details"]["cached_tokens"],
                cache_write_tokens=usage["input_tokens_details"]["cache_write_tokens"],
                output_tokens=usage["output_tokens"],
                reasoning_tokens=usage["output_tokens_details"]["reasoning_tokens"],
            )
            bill = Bill(reply["id"], None, reply["model"], used, reply["status"], "default")
            self.replies.append({"response_id": reply["id"], "cost": price_of(bill)})

    def _heard(self, received: bytes) -> None:
        """Remember what was read of a reply, whole events alone."""
        events = read_events(received[: received.rfind(b"\n\n") + 2])
        started = next((json.loads(event.data) for event in events if event.name == "reply.started"), None)
        if started is not None:
            text = "".join(json.loads(event.data)["text"] for event in events if event.name == "reply.delta")
            self.heard[started["response_id"]] = (started["user_id"], started["conversation_id"], text)

    def _told(self, complete: Sequence[str]) -> None:
        for text in complete:
            reply = json.loads(text, parse_float=Decimal)
            self.replies.append(reply)
            self.conversations[reply["user_id"]] = reply["conversation_id"]


@pytest.fixture
def own_provider() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn(api_key=API_KEY) as provider:
        provider.default = Reply(deltas=tuple(f"<{number}>" for number in range(10)), pause_s=0.01)
        provider.finish_after_disconnect = True  # it bills what a dead worker asked for
        yield provider


@pytest.mark.parametrize(("turns", "kills"), [(100, 4), pytest.param(3_000, 40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_what_was_delivered_is_in_the_books_and_what_was_billed_is_settled_whoever_was_killed(
    request: pytest.FixtureRequest, own_provider: OpenAIStandIn, tmp_path: Path, store: str, turns: int, kills: int
) -> None:
    database: str = request.getfixturevalue(f"{store}_url")
    with serving(
        tmp_path, own_provider, database, "--workers", str(WORKERS), TEXTLLM_COST_LIMIT_PER_SESSION="1000"
    ) as service:
        load = Load(service, turns, kills, random.Random(turns))
        await load.run()
        service.kill()
    await asyncio.sleep(1)  # the provider ends what it was asked for; what it has not ended yet would be estimated
    await _recover(database, own_provider, tmp_path)

    books = Books(database)
    entries = [entry for user_id in USERS for entry in await books.entries(user_id)]
    _compare(load, entries, own_provider)
    await _find_what_was_heard(load, books)
    assert await books.drifts() == []


async def _find_what_was_heard(load: Load, books: Books) -> None:
    engine = books.engine()
    conversations = SqlConversationRepository(engine)
    assert len(load.heard) > load.turns // 4
    for user_id, conversation_id, text in load.heard.values():
        kept = await conversations.last_messages("default", user_id, conversation_id, limit=None)
        assert any(message.role == "assistant" and message.text.startswith(text) for message in kept), text
        assert [message.role for message in kept] == ["user", "assistant"] * (len(kept) // 2)
    await engine.dispose()


@pytest.mark.parametrize("store", ["sqlite", "postgres"])
def test_all_items_of_a_request_whose_worker_was_killed_are_in_the_chain_that_goes_on(
    request: pytest.FixtureRequest, own_provider: OpenAIStandIn, tmp_path: Path, store: str
) -> None:
    database: str = request.getfixturevalue(f"{store}_url")
    own_provider.default = Reply(deltas=("You", " are"), pause_s=30)
    said = [("user", "I am Ada."), ("assistant", "Hello Ada."), ("developer", "Be brief."), ("user", "Who am I?")]
    asked = {"input": [{"role": role, "content": text} for role, text in said], "user": "ada", "stream": True}
    alone = ("--workers", "1")
    with serving(tmp_path, own_provider, database, *alone, TEXTLLM_LLM_API="responses") as service:
        with httpx.stream("POST", f"{service.url}/v1/responses", json=asked, timeout=60) as answer:
            next(piece for piece in answer.iter_raw() if b"output_text.delta" in piece)
            service.kill()
        response_id = answer.headers["x-response-id"]
    asyncio.run(_recover(database, own_provider, tmp_path))
    own_provider.default = Reply()
    with serving(tmp_path, own_provider, database, *alone, TEXTLLM_LLM_API="responses") as service:
        listed = service.get(f"/v1/responses/{response_id}/input_items?order=asc").json()["data"]
        more = {"input": "And you?", "previous_response_id": response_id, "user": "ada"}
        reply = httpx.post(f"{service.url}/v1/responses", json=more, timeout=60)
    assert [(item["role"], item["content"][0]["text"]) for item in listed] == said
    assert reply.status_code == 200, reply.text
    [*_, last] = (request for request in own_provider.requests if request.path == "/v1/responses")
    sent = [(item["role"], item["content"]) for item in last.body["input"]]
    assert [each for each in sent if each != ("assistant", "You")] == [*said, ("user", "And you?")]
    assert asyncio.run(Books(database).drifts()) == []


@pytest.mark.slow
async def test_conversations_whose_worker_was_killed_take_a_new_turn_or_are_erased_within_half_a_minute(
    own_provider: OpenAIStandIn, tmp_path: Path, postgres_url: str
) -> None:
    own_provider.default = Reply(deltas=("One", " two"), pause_s=5)
    with serving(
        tmp_path, own_provider, postgres_url, "--workers", "2", TEXTLLM_RATE_LIMIT_PER_MINUTE="1000"
    ) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
            begun = await asyncio.gather(*[_begin(client, number) for number in range(25)])
            for worker in service.workers():
                os.kill(worker, signal.SIGKILL)
            own_provider.default = Reply(deltas=("Well.",))
            async with asyncio.timeout(30):
                await asyncio.gather(
                    *[_insist(service, "POST", "/chat", _going_on(conversation_id)) for conversation_id in begun[:20]],
                    *[_insist(service, "DELETE", f"/conversations/{it}?soft=false") for it in begun[20:]],
                )
            known = [(await client.get(f"/conversations/{it}")).status_code for it in begun]
    assert known == [200] * 20 + [404] * 5


async def _begin(client: httpx.AsyncClient, number: int) -> str:
    """A conversation in whose first turn some text was read."""
    body = {"message": "Count.", "user_id": f"user_{number}", "stream_format": "events"}
    async with client.stream("POST", "/chat/stream", json=body) as answer:
        async for piece in answer.aiter_raw():
            if b"reply.started" in piece:
                break
        return answer.headers["x-conversation-id"]


def _going_on(conversation_id: str) -> dict[str, str]:
    return {"message": "And on.", "conversation_id": conversation_id}


async def _insist(service: Service, method: str, path: str, body: dict[str, str] | None = None) -> None:
    """Ask until it is done: by another worker, and once what the dead one has left is settled."""
    while True:
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
                if (await client.request(method, path, json=body)).is_success:
                    return
        await asyncio.sleep(0.5)


async def _recover(database: str, provider: OpenAIStandIn, folder: Path) -> None:
    """What the next process would do, once all leases are over."""
    environment = {
        "DATABASE_URL": database,
        "OPENAI_API_KEY": API_KEY,
        "OPENAI_BASE_URL": provider.base_url,
        "TEXTLLM_DATA_DIR": str(folder / "data"),
    }
    async with open_textllm(load_settings(cwd=folder, environ=environment)) as textllm:
        clock = FixedClock(datetime.now(UTC) + timedelta(minutes=1))
        reconcile: Reconcile = replace(textllm.reconcile, clock=clock)
        while await reconcile():
            clock.advance(timedelta(minutes=1))


def _compare(load: Load, entries: Sequence[LedgerEntry], provider: OpenAIStandIn) -> None:
    assert all(status in TOLERATED for status in load.statuses if isinstance(status, int)), load.statuses
    assert load.statuses["killed"] > 1
    assert len(load.replies) > load.turns // 8, load.statuses  # enough to compare; how many there are, chance says
    rows = {entry.response_id: entry for entry in entries}
    assert len(rows) == len(entries)
    bills = {bill.response_id: bill for bill in provider.bills}
    for reply in load.replies:
        row = rows[str(reply["response_id"])]
        assert (row.status, row.estimated, row.cost) == ("completed", False, reply["cost"])
    exact = [entry for entry in entries if not entry.estimated]
    estimated = [entry for entry in entries if entry.estimated]
    named = [entry for entry in exact if entry.provider_response_id is not None]
    assert all(entry.provider_response_id in bills for entry in named)
    assert all(entry.cost == price_of(bills[str(entry.provider_response_id)]) for entry in named)
    # The difference to the provider's sum is what was asked by workers that died before they were told its name.
    accounted = {entry.provider_response_id for entry in named}
    left = [bill for bill in provider.bills if bill.response_id not in accounted]
    unnamed = Counter(entry.cost for entry in exact if entry.provider_response_id is None)  # it stores none of these
    assert unnamed <= Counter(price_of(bill) for bill in left)
    assert len(left) - unnamed.total() <= len(estimated), (left, estimated)
    assert all(entry.status != "pending" for entry in entries)
