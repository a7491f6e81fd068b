"""`/chat`: what a turn answers, and how it fails."""

import asyncio
import json
import logging
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.http.conftest import JSON, Server, serving
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.ledger import MemoryLedger
from textllm_adapters.memory.llm import ScriptedReply
from textllm_core.errors import (
    ContentRefusedError,
    ContextTooLongError,
    ConversationLostError,
    ProviderError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    StorageUnavailableError,
    TextLLMError,
)
from textllm_core.records.ledger import Hold, Reservation
from textllm_core.usage import Usage

PROBLEM_FIELDS = {"type", "title", "status", "detail", "instance", "code"}


async def test_a_reply_has_the_fields_of_the_contract_and_no_others(server: Server) -> None:
    used = Usage(input_tokens=1000, output_tokens=100, cached_tokens=400, reasoning_tokens=30)
    server.bench.llm.script(ScriptedReply(text="Hello, Ada.", usage=used))
    answer = await server.post("/chat", {"message": "Hi", "user_id": "ada"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    reply = answer.json()
    assert {name: reply.pop(name)[:5] for name in ("conversation_id", "response_id", "session_id")} == {
        "conversation_id": "conv_",
        "response_id": "resp_",
        "session_id": "sess_",
    }
    assert reply == {
        "text": "Hello, Ada.",
        "user_id": "ada",
        "message_number": 1,
        "usage": {"input": 1000, "output": 100, "total": 1100, "cached": 400, "reasoning": 30},
        "cost": 0.003,
        "estimated": False,
        "model": "gpt-4o",
        "finish_reason": "stop",
        "warnings": [],
    }
    assert b'"cost":0.003,' in answer.body
    await server.bench.check_books()


async def test_a_reply_whose_usage_was_not_stated_says_that_its_cost_is_an_estimate(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(text="Hello.", usage_stated=False), ScriptedReply(usage_stated=False))
    asked = {"message": "Hi", "user_id": "ada"}
    reply = (await server.post("/chat", asked)).json()
    assert reply["estimated"]
    streamed = await server.post("/chat/stream", asked | {"stream_format": "events"})
    assert json.loads(streamed.body.decode().rsplit("data: ", 1)[1])["estimated"]
    exact = (await server.post("/chat", asked)).json()
    said = (await server.get(f"/conversations/{reply['conversation_id']}/messages")).json()["data"]
    assert [message.get("estimated") for message in said] == [None, True]
    stats = (await server.get("/users/ada/stats")).json()
    estimated = stats["total_cost"] - exact["cost"]
    for used in (stats, *stats["by_day"], *stats["by_model"]):
        assert used["estimated_cost"] == pytest.approx(estimated)


async def test_a_conversation_goes_on(server: Server) -> None:
    first = (await server.post("/chat", {"message": "Hi"})).json()
    asked = {"message": "And?", "conversation_id": first["conversation_id"], "user_id": first["user_id"]}
    second = (await server.post("/chat", asked)).json()
    assert (second["text"], second["message_number"]) == ("[2] You said: And?", 2)
    assert second["conversation_id"] == first["conversation_id"]


async def test_the_options_of_a_turn_reach_the_model(server: Server) -> None:
    options = {"instructions": "Rhyme.", "max_output_tokens": 99, "temperature": 0.5, "metadata": {"topic": "cats"}}
    await server.post("/chat", {"message": "Hi", "stream": False, "stream_format": "text", **options})
    (request,) = server.bench.llm.requests
    assert {name: getattr(request, name) for name in options} == options


@pytest.mark.parametrize("conversation_id", ["conv_unknown", "../..", "conv_\n", "x" * 100_000, "ü😀"])
async def test_a_conversation_that_is_not_there_is_not_found(server: Server, conversation_id: str) -> None:
    answer = await server.post("/chat", {"message": "Hi", "conversation_id": conversation_id})
    problem = answer.json()
    assert answer.status == 404
    assert problem.keys() == PROBLEM_FIELDS
    assert problem["type"] == "/problems/conversation_not_found"
    assert problem["title"] == "Conversation not found"
    assert problem["status"] == 404
    assert problem["code"] == "conversation_not_found"
    assert problem["instance"] == answer.headers["x-request-id"]


async def test_a_conversation_of_another_user_is_not_found(server: Server) -> None:
    first = (await server.post("/chat", {"message": "Hi", "user_id": "ada"})).json()
    asked = {"message": "Hi", "conversation_id": first["conversation_id"], "user_id": "eve"}
    answer = await server.post("/chat", asked)
    assert (answer.status, answer.json()["code"]) == (404, "conversation_not_found")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (ProviderError("Bad answer."), 502, "provider_error"),
        (ProviderUnavailableError("Overloaded.", may_have_run=False), 503, "provider_unavailable"),
        (ProviderTimeoutError("Too slow."), 504, "provider_timeout"),
        (ContentRefusedError(), 422, "content_refused"),
        (ContextTooLongError.of_turn(), 422, "context_too_long"),
    ],
)
@pytest.mark.parametrize("after", [None, 1])
async def test_a_failure_of_the_model_has_its_status(
    server: Server, error: TextLLMError, status: int, code: str, after: int | None
) -> None:
    server.bench.llm.script(ScriptedReply(text="One two three", error=error, after=after, unheard="failed"))
    answer = await server.post("/chat", {"message": "Hi"})
    assert (answer.status, answer.json()["code"], answer.json()["detail"]) == (status, code, str(error))
    assert answer.headers["content-type"] == "application/problem+json"
    await server.bench.check_books()


async def test_an_unavailable_provider_says_when_to_come_back(server: Server) -> None:
    server.bench.llm.script(ScriptedReply(error=ProviderUnavailableError("Down.", may_have_run=False, retry_after_s=7)))
    answer = await server.post("/chat", {"message": "Hi"})
    assert (answer.headers["retry-after"], answer.json()["retry_after_s"]) == ("7", 7)


async def test_a_lost_conversation_is_a_conflict(server: Server) -> None:
    server.bench.llm.script(*(ScriptedReply(error=ConversationLostError()) for _ in range(2)))
    answer = await server.post("/chat", {"message": "Hi"})
    assert (answer.status, answer.json()["code"]) == (409, "conversation_lost")


async def test_the_rate_limit_says_what_it_is_and_when_it_ends() -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=2))
    async with serving(bench) as server:
        answers = [await server.post("/chat", {"message": "Hi", "user_id": "ada"}) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        refused = answers[-1]
        wait_s = refused.json()["retry_after_s"]
        assert refused.json()["code"] == "rate_limited"
        assert refused.json()["limit"] == 2
        assert refused.headers["retry-after"] == str(wait_s)
        assert refused.headers["ratelimit-policy"] == '"turns";q=2;w=60'
        assert refused.headers["ratelimit"] == f'"turns";r=0;t={wait_s}'
        bench.clock.advance(timedelta(seconds=wait_s))
        assert (await server.post("/chat", {"message": "Hi", "user_id": "ada"})).status == 200


async def test_a_budget_that_is_spent_is_402_with_its_numbers() -> None:
    bench = Bench(policy=replace(POLICY, daily_limit=Decimal("0.0001")))
    async with serving(bench) as server:
        answer = await server.post("/chat/stream", {"message": "Hi", "user_id": "ada"})
    assert answer.status == 402
    assert "retry-after" not in answer.headers
    told = {name: answer.json()[name] for name in answer.json().keys() - PROBLEM_FIELDS}
    assert told == {"limit": 0.0001, "spent": 0, "resets_at": "2026-11-23T00:00:00Z", "reserved": False}


async def test_the_second_of_two_turns_at_once_is_busy(server: Server) -> None:
    first = (await server.post("/chat", {"message": "Hi", "user_id": "ada"})).json()
    gate = asyncio.Event()
    server.bench.llm.script(ScriptedReply(text="Slow reply", gate=gate))
    asked = {"message": "Go on", "conversation_id": first["conversation_id"]}
    running = asyncio.create_task(server.post("/chat", asked))
    while len(server.bench.llm.requests) < 2:  # noqa: ASYNC110 - until the model has been asked
        await asyncio.sleep(0.001)
    refused = await server.post("/chat", asked)
    gate.set()
    assert (refused.status, refused.json()["code"]) == (409, "conversation_busy")
    assert refused.headers["retry-after"] == str(refused.json()["retry_after_s"])
    assert (await running).json()["message_number"] == 2


async def test_an_exchange_outlives_the_client_that_asked(server: Server) -> None:
    gate = asyncio.Event()
    server.bench.llm.script(ScriptedReply(text="Slow reply", gate=gate))
    asking = asyncio.create_task(server.post("/chat", {"message": "Hi", "user_id": "ada"}))
    while not server.bench.llm.requests:  # noqa: ASYNC110 - until the model has been asked
        await asyncio.sleep(0.001)
    asking.cancel()
    gate.set()
    (entry,) = await server.bench.entries()
    assert entry.status == "completed"
    await server.bench.check_books()


class LedgerWithoutStorage(MemoryLedger):
    """Its database is away."""

    async def reserve(self, reservation: Reservation) -> Hold:  # noqa: ARG002 - it does not get that far
        raise StorageUnavailableError


class BrokenLedger(MemoryLedger):
    """It has a defect, and quotes what it was given."""

    async def reserve(self, reservation: Reservation) -> Hold:
        raise KeyError(reservation.title)


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
async def test_storage_that_is_away_is_503_with_when_to_come_back(path: str) -> None:
    async with serving(Bench(ledger_type=LedgerWithoutStorage)) as server:
        answer = await server.post(path, {"message": "Hi"})
    assert (answer.status, answer.json()["code"]) == (503, "storage_unavailable")
    assert answer.headers["retry-after"] == "2"


@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
async def test_a_defect_tells_nothing_but_the_request_id(path: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Bench(ledger_type=BrokenLedger)) as server:
        answer = await server.post(path, {"message": "canary"}, {**JSON, "x-request-id": "mine-1"})
    assert answer.status == 500
    assert answer.headers["x-request-id"] == "mine-1"
    assert answer.json() == {
        "type": "/problems/internal_error",
        "title": "Internal error",
        "status": 500,
        "detail": "Something went wrong on our side.",
        "instance": "mine-1",
        "code": "internal_error",
    }
    (record,) = [record for record in caplog.records if record.name == "textllm"]
    assert record.levelno == logging.ERROR
    for word in ("mine-1", "KeyError", "in reserve"):
        assert word in record.getMessage()
    assert "canary" not in record.getMessage()
    assert record.exc_info is None
