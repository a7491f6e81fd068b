"""Two providers behind a server: whose a reply is, also where the worker that heard it dies."""

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import API_KEY, Books, Service, serving
from tests.servers.openai import OpenAIStandIn, Reply
from tests.servers.openai_script import Fault

PRICE = {"input": 1, "output": 2}


@pytest.fixture
def second() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn(api_key="sk-second") as second:
        second.finish_after_disconnect = True
        yield second


@pytest.fixture
def service(provider: OpenAIStandIn, second: OpenAIStandIn, own_database: str, tmp_path: Path) -> Iterator[Service]:
    config = {
        "model": "first",
        "providers": {
            "openai": {"kind": "openai", "base_url": provider.base_url, "api_key": "${FIRST_KEY}"},
            "two": {"kind": "openai", "base_url": second.base_url, "api_key": "${SECOND_KEY}"},
        },
        "models": {
            "first": {"provider": "openai", "model": "gpt-4o", "price": PRICE, "fallbacks": ["second"]},
            "second": {"provider": "two", "model": "gpt-4o", "price": {"input": 10, "output": 20}},
        },
    }
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    settings = {"TEXTLLM_CONFIG": str(tmp_path / "config.yaml"), "FIRST_KEY": API_KEY, "SECOND_KEY": "sk-second"}
    with serving(tmp_path, provider, own_database, **settings) as service:
        yield service


def hear_until_killed(service: Service, turn: Mapping[str, str], gate: threading.Event) -> None:
    """Read a stream whose worker is killed once the reply has begun; the provider writes on."""
    heard = b""
    with httpx.stream("POST", f"{service.url}/chat/stream", json=turn, timeout=60) as answer:
        for some in answer.iter_raw():
            heard += some
            if heard.strip() and not gate.is_set():
                [worker] = service.workers()
                os.kill(worker, signal.SIGKILL)
                gate.set()


def read(service: Service, path: str, turn: Mapping[str, str] | None = None) -> str:
    if turn is None:
        return service.get(path).text
    return httpx.post(f"{service.url}{path}", json=turn, timeout=60).text


@pytest.mark.slow  # a lease has to end
async def test_after_a_crash_the_provider_is_asked_that_wrote_the_reply(
    service: Service, provider: OpenAIStandIn, second: OpenAIStandIn, own_books: Books
) -> None:
    gate, asked = threading.Event(), len(provider.requests)
    second.script(Reply(text="It goes on without us.", gate=gate))
    turn = {"message": "Hello", "user_id": "crash-of-two", "model": "second"}
    with pytest.raises(httpx.TransportError):
        hear_until_killed(service, turn, gate)
    [entry] = await own_books.exact_entries("crash-of-two")
    [bill] = second.bills
    assert (entry.estimated, entry.model.startswith("two/gpt-4o")) == (False, True)
    assert (entry.usage.input_tokens, entry.usage.output_tokens) == (bill.usage.input_tokens, bill.usage.output_tokens)
    assert entry.cost * 1_000_000 == 10 * entry.usage.input_tokens + 20 * entry.usage.output_tokens
    assert len(provider.requests) == asked
    assert await own_books.drifts() == []


async def test_a_stream_begins_with_whoever_answers(
    service: Service, provider: OpenAIStandIn, second: OpenAIStandIn, own_books: Books
) -> None:
    provider.script(Fault.http(503))
    second.script(Reply(text="From the second."))
    turn = {"message": "Hello", "user_id": "fallback-of-two", "stream_format": "events"}
    assert "From" in read(service, "/chat/stream", turn)
    [entry] = await own_books.entries("fallback-of-two")
    assert entry.model.startswith("two/gpt-4o")
    assert entry.cost * 1_000_000 == 10 * entry.usage.input_tokens + 20 * entry.usage.output_tokens
    assert 'textllm_fallbacks_total{model="gpt-4o",to="two/gpt-4o"} 1.0' in read(service, "/metrics")
    assert json.loads(read(service, "/health"))["checks"]["providers"]["names"] == ["openai", "two"]
    assert await own_books.drifts() == []
