"""The same key, however often and wherever it is sent: one call of the provider, one result."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Service, serving
from tests.servers.openai import OpenAIStandIn, Reply

from textllm_core.ids import new_id


def send(service: Service, key: str, user: str, path: str = "/chat") -> httpx.Response:
    body = {"message": "hi", "user_id": user} if path == "/chat" else {"input": "hi", "user": user}
    return httpx.post(f"{service.url}{path}", json=body, headers={"Idempotency-Key": key}, timeout=30)


def result(service: Service, key: str, user: str, path: str = "/chat") -> httpx.Response:
    """The turn's one result, asked for as a client does: again, as long as it is still running."""
    deadline = time.monotonic() + 150
    while (answer := send(service, key, user, path)).status_code == 409:
        told = answer.json()
        assert told.get("error", told)["code"] == "idempotency_in_progress"
        assert time.monotonic() < deadline
        time.sleep(float(answer.headers["retry-after"]))
    return answer


def said(answer: httpx.Response) -> str:
    """The whole of it, but for when a response was asked for and completed."""
    return str({name: value for name, value in answer.json().items() if name not in ("created_at", "completed_at")})


def asked(provider: OpenAIStandIn, since: int) -> int:
    return sum(request.path == "/v1/responses" for request in provider.requests[since:])


@pytest.mark.parametrize("path", ["/chat", "/v1/responses"])
def test_five_at_once_ask_once_and_get_the_same(service: Service, provider: OpenAIStandIn, path: str) -> None:
    key, user, before = new_id("key"), new_id("user"), len(provider.requests)
    provider.script(Reply(text="Once.", created_pause_s=0.3))
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: result(service, key, user, path), range(5)))
    assert asked(provider, before) == 1
    assert len({(answer.status_code, said(answer)) for answer in answers}) == 1
    assert "Once." in said(answers[0])


@pytest.mark.slow
def test_a_server_that_is_killed_in_between_does_not_ask_again(
    provider: OpenAIStandIn, database: str, tmp_path: Path
) -> None:
    key, user, before = new_id("key"), new_id("user"), len(provider.requests)
    gate = threading.Event()
    provider.script(Reply(deltas=("a", "b"), gate=gate))
    with serving(tmp_path, provider, database, "--workers", "2") as service:
        with ThreadPoolExecutor(5) as pool:
            first = [pool.submit(send, service, key, user) for _ in range(5)]
            while not asked(provider, before):
                time.sleep(0.01)
            time.sleep(0.5)  # the first delta is on its way
            service.kill()
            for answer in first:
                assert answer.exception() is not None or answer.result().status_code == 409
        gate.set()
        service.start()
        with ThreadPoolExecutor(5) as pool:
            answers = list(pool.map(lambda _: result(service, key, user), range(5)))
    assert asked(provider, before) == 1
    assert {answer.status_code for answer in answers} == {502}
    documents = {tuple(sorted((answer.json() | {"instance": ""}).items())) for answer in answers}
    assert len(documents) == 1
