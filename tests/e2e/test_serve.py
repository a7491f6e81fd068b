"""The whole service as a process: real server, real database, the real SDK against the stand-in provider."""

import asyncio
import json
import socket
import struct
import threading
import time
from decimal import Decimal
from pathlib import Path
from typing import Literal

import httpx
import psutil
import pytest
from tests.e2e.conftest import API_KEY, Books, Service, price_of, serving
from tests.http.sse_reader import read_events
from tests.servers.openai import Fault, OpenAIStandIn, Reply

from textllm_core.ids import new_id

REPLY_FIELDS = {
    "text", "conversation_id", "user_id", "message_number", "usage", "cost", "estimated",
    "response_id", "session_id", "model", "finish_reason", "warnings",
}  # fmt: skip


@pytest.fixture
def user() -> str:
    return new_id("user")


async def test_a_reply_has_the_promised_shape_and_its_exact_price(
    service: Service, provider: OpenAIStandIn, books: Books, user: str
) -> None:
    provider.script(
        Reply(
            text="Paris.",
            usage={"input_tokens": 2003, "cached_tokens": 1024, "output_tokens": 7, "reasoning_tokens": 2},
        )
    )
    answer = service.chat("What is the capital of France?", user_id=user)
    assert answer.status_code == 200
    reply = json.loads(answer.content, parse_float=Decimal)
    assert reply.keys() == REPLY_FIELDS
    assert reply["usage"] == {"input": 2003, "output": 7, "total": 2010, "cached": 1024, "reasoning": 2}
    assert reply["cost"] == price_of(provider.bills[-1]) == Decimal("0.0037975")
    assert (reply["text"], reply["user_id"], reply["message_number"]) == ("Paris.", user, 1)
    assert reply["conversation_id"].startswith("conv_")
    assert reply["conversation_id"] != provider.bills[-1].conversation_id
    (entry,) = await books.entries(user)
    assert (entry.cost, entry.provider_response_id) == (reply["cost"], provider.bills[-1].response_id)
    assert (entry.status, entry.estimated) == ("completed", False)


def test_a_conversation_goes_on_in_any_worker(service: Service, user: str) -> None:
    reply = service.chat("turn 0", user_id=user).json()
    for number in range(1, 12):
        reply = service.chat(f"turn {number}", conversation_id=reply["conversation_id"]).json()
        assert (reply["text"], reply["message_number"]) == (f"[{2 * number}] You said: turn {number}", number + 1)


def test_a_conversation_goes_on_after_a_restart(
    provider: OpenAIStandIn, database: str, tmp_path: Path, user: str
) -> None:
    with serving(tmp_path, provider, database) as service:
        first = service.chat("before", user_id=user).json()
        service.stop()
        service.start()
        second = service.chat("after", conversation_id=first["conversation_id"]).json()
        assert (second["text"], second["message_number"]) == ("[2] You said: after", 2)
        service.stop()


def test_the_first_text_comes_before_the_provider_has_finished(
    service: Service, provider: OpenAIStandIn, user: str
) -> None:
    gate = threading.Event()
    provider.script(Reply(deltas=("early", " late"), gate=gate))
    request = {"message": "hi", "user_id": user}
    with httpx.stream("POST", f"{service.url}/chat/stream", json=request, timeout=30) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-conversation-id"].startswith("conv_")
        assert answer.headers["x-user-id"] == user
        received = b""
        for chunk in answer.iter_raw():
            received += chunk
            if b"early" in received and not gate.is_set():
                assert b"late" not in received
                gate.set()
    assert [event.data for event in read_events(received)] == ["early", " late", "[DONE]"]


AWKWARD = "line\nbreak\r\nand\rreturn \u2028 data: x\n\ndata: [DONE]\n[DONE] 👩🏽‍🚀 e\u0301 \x00 end\n"


@pytest.mark.parametrize("split", ["event", "bytes"])
def test_any_text_arrives_equal(
    service: Service, provider: OpenAIStandIn, user: str, split: Literal["event", "bytes"]
) -> None:
    deltas = tuple(AWKWARD[i : i + 3] for i in range(0, len(AWKWARD), 3))
    for stream_format in ("events", "text"):
        provider.script(Reply(deltas=deltas, split=split))
        request = {"message": "hi", "user_id": user, "stream": True, "stream_format": stream_format}
        events = read_events(httpx.post(f"{service.url}/chat", json=request, timeout=30).content)
        if stream_format == "events":
            assert "".join(json.loads(e.data)["text"] for e in events if e.name == "reply.delta") == AWKWARD
            assert json.loads(events[-1].data)["text"] == AWKWARD
        else:
            assert events[-1].data == "[DONE]"
            received = "".join(event.data for event in events[:-1])
            assert received == AWKWARD.replace("\r\n", "\n").replace("\r", "\n")


@pytest.mark.parametrize("deltas_read", [0, 1, 5])
@pytest.mark.parametrize("path", ["/chat", "/chat/stream"])
async def test_a_client_that_disconnects_is_charged_what_the_provider_billed(
    service: Service, provider: OpenAIStandIn, books: Books, user: str, path: str, deltas_read: int
) -> None:
    billed, asked = len(provider.bills), len(provider.requests)
    provider.script(Reply(deltas=tuple(f"<{i}>" for i in range(12)), pause_s=0.02))
    _vanish(service, path, user, provider, asked, after=f"<{deltas_read - 1}>" if deltas_read else "")
    entries = await _entries_of_one_turn(books, user)
    bills = provider.bills[billed:]
    assert [(entry.cost, entry.status, entry.estimated) for entry in entries] == [
        (price_of(bills[0]), "completed", False)
    ]
    again = service.chat("still there?", conversation_id=entries[0].conversation_id).json()
    assert (again["text"], again["message_number"]) == ("[2] You said: still there?", 2)


def _vanish(service: Service, path: str, user: str, provider: OpenAIStandIn, asked: int, *, after: str) -> None:
    """Ask, read until `after` has come, and be gone, by a reset as a vanished client's connection is."""
    body = json.dumps({"message": "hi", "user_id": user}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    address = httpx.URL(service.url)
    with socket.create_connection((address.host, address.port or 0)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.sendall(head.encode() + body)
        received = b""
        while path == "/chat/stream" and after.encode() not in received:
            received += client.recv(4096)
        while not any(request.path == "/v1/responses" for request in provider.requests[asked:]):
            time.sleep(0.005)  # a reset may also overtake the request, which then never came


async def _entries_of_one_turn(books: Books, user: str):  # type: ignore[no-untyped-def]
    for _ in range(100):
        if entries := await books.entries(user):
            return entries
    raise AssertionError("the turn never reached the ledger")


# The last column: how many messages the next turn is told of. A turn that nobody has answered stays in its conversation
# alone, one that was answered in part has the part, and one that the provider has refused leaves no trace.
FAULTS = [
    ("wrong key", Fault.http(401, "invalid_api_key"), 502, "provider_error", 2),
    ("429", [Fault.http(429, "rate_limit_exceeded")] * 3, 503, "provider_unavailable", 2),
    ("quota", Fault.insufficient_quota(), 502, "provider_error", 2),
    ("500", Fault.http(500), 503, "provider_unavailable", 2),
    ("503", [Fault.http(503)] * 3, 503, "provider_unavailable", 2),
    ("timeout", Fault.stall(), 504, "provider_timeout", 3),
    ("HTML", Fault.html(200), 502, "provider_error", 2),
    ("HTML error", Fault.html(502), 503, "provider_unavailable", 2),
    ("no JSON", Fault.broken_json(), 502, "provider_error", 3),
    ("reset", Fault.cut(), 502, "provider_error", 3),
    ("too long", Fault.http(400, "context_length_exceeded"), 422, "context_too_long", 2),
    ("refused", Fault.http(400, "invalid_prompt"), 422, "content_refused", 2),
    ("cut", Reply(end="cut", end_after=2), 502, "provider_error", 4),
    ("cut, yet billed", Reply(end="cut", end_after=2, cut_completes=True), 502, "provider_error", 4),
    ("stalled", Reply(end="stall", end_after=2), 504, "provider_timeout", 4),
    ("failed", Reply(end="failed:server_error"), 503, "provider_unavailable", 4),
    ("failed at once", Reply(end="failed:server_error", end_after=0), 503, "provider_unavailable", 2),
    ("filtered", Reply(end="incomplete:content_filter"), 422, "content_refused", 2),
    ("silent end", Reply(end="silent"), 502, "provider_error", 4),
    ("flat error", Reply(end="error_flat:server_error"), 503, "provider_unavailable", 4),
    ("nested error", Reply(end="error_nested:server_error"), 503, "provider_unavailable", 4),
]  # fmt: skip


@pytest.fixture(scope="session")
def impatient(provider: OpenAIStandIn, database: str, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A server that waits three seconds for the provider, and no longer."""
    folder = tmp_path_factory.mktemp("impatient")
    with serving(
        folder, provider, database, TEXTLLM_FIRST_TOKEN_TIMEOUT_S="3", TEXTLLM_UPSTREAM_TIMEOUT_S="3"
    ) as service:
        yield service


# Where nobody but the provider knows what it has done, and it does not say, what was sent and heard is charged. The
# same where it says no more than that it failed, and some of its reply was heard.
UNTOLD = ("timeout", "no JSON", "reset", "stalled", "cut", "silent end", "failed", "flat error", "nested error")


@pytest.mark.parametrize(("name", "fault", "status", "code", "known"), FAULTS, ids=[f[0] for f in FAULTS])
async def test_a_fault_of_the_provider_has_its_code_costs_what_was_billed_and_does_no_lasting_harm(
    impatient: Service,
    provider: OpenAIStandIn,
    books: Books,
    user: str,
    name: str,
    fault: object,
    status: int,
    code: str,
    known: int,
) -> None:
    first = impatient.chat("one", user_id=user).json()
    billed = len(provider.bills)
    steps = fault if isinstance(fault, list) else [fault]
    provider.script(*steps)
    answer = impatient.chat("two", conversation_id=first["conversation_id"])
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert API_KEY not in answer.text
    charged = [entry for entry in (await books.entries(user))[1:] if entry.cost]
    if name in UNTOLD:
        assert [entry.estimated for entry in charged] == [True]
        assert provider.bills[billed:] == []
    else:
        assert [entry.cost for entry in charged] == list(map(price_of, provider.bills[billed:]))
        assert not any(entry.estimated for entry in charged)
    again = impatient.chat("three", conversation_id=first["conversation_id"]).json()
    assert (again["text"], again["message_number"]) == (f"[{known}] You said: three", 2 if known == 2 else 3)


@pytest.mark.parametrize("stream_format", ["text", "events"])
def test_a_stream_that_breaks_off_ends_with_the_problem(
    service: Service, provider: OpenAIStandIn, user: str, stream_format: str
) -> None:
    provider.script(Reply(deltas=("a", "b", "c"), end="failed:server_error", end_after=2))
    request = {"message": "hi", "user_id": user, "stream_format": stream_format}
    answer = httpx.post(f"{service.url}/chat/stream", json=request, timeout=30)
    last = read_events(answer.content)[-1]
    assert (answer.status_code, last.name) == (200, "error" if stream_format == "text" else "reply.failed")
    assert json.loads(last.data)["code"] == "provider_unavailable"


def test_a_reply_at_its_longest_length_says_so(service: Service, provider: OpenAIStandIn, user: str) -> None:
    provider.script(Reply(text="Once upon", end="incomplete:max_output_tokens"))
    reply = service.chat("Tell me.", user_id=user).json()
    assert (reply["text"], reply["finish_reason"]) == ("Once upon", "length")
    again = service.chat("Go on.", conversation_id=reply["conversation_id"]).json()
    assert again["text"] == "[2] You said: Go on."


def test_no_secret_is_shown_or_logged(service: Service) -> None:
    shown = httpx.get(f"{service.url}/config").text + service.log.read_text()
    logs = service.folder / "logs" / "textllm.log"
    assert API_KEY not in shown + logs.read_text()


async def test_hundreds_who_connect_at_once_are_all_answered(service: Service) -> None:
    address = httpx.URL(service.url)

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer[:12]

    async with asyncio.timeout(60):
        assert set(await asyncio.gather(*[ask() for _ in range(500)])) == {b"HTTP/1.1 200"}


def test_the_parent_of_the_workers_takes_little_memory(service: Service) -> None:
    assert psutil.Process(service.process.pid).memory_info().rss < 30_000_000
