"""The metrics of a service of several processes, beside its ledger."""

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.conftest import Books, Service, serving
from tests.servers.openai import Fault, OpenAIStandIn, Reply

from textllm_core.ids import new_id


def metrics(service: Service) -> dict[str, Counter[tuple[str, ...]]]:
    """By name: the values by their labels, in the order of the labels' names."""
    found: dict[str, Counter[tuple[str, ...]]] = {}
    for family in text_string_to_metric_families(service.get("/metrics").text):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, Counter())[labels] = sample.value  # type: ignore[assignment]
    return found


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 - it is so in another process
            await asyncio.sleep(0.1)


async def test_the_metrics_of_two_workers_agree_with_the_ledger(
    provider: OpenAIStandIn, database: str, books: Books, tmp_path: Path
) -> None:
    user = new_id("user")
    with serving(tmp_path, provider, database, "--workers", "2") as service:
        provider.script(Fault.http(400, "invalid_prompt"))
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=service.url, timeout=60, limits=limits) as client:
            asks = [client.post("/chat", json={"message": f"turn {n}", "user_id": user}) for n in range(60)]
            statuses = Counter(answer.status_code for answer in await asyncio.gather(*asks))
        entries = await books.entries(user)
        await until(
            lambda: (
                sum(n for (_, r, _), n in metrics(service)["textllm_http_requests_total"].items() if r == "/chat") == 60
            )
        )
        seen = [metrics(service) for _ in range(4)]  # of whichever worker
    for shown in seen:
        requests = shown["textllm_http_requests_total"]
        assert {int(status): n for (_, route, status), n in requests.items() if route == "/chat"} == statuses
        assert sum(shown["textllm_turns_total"].values()) == len(entries)
        tokens: Counter[tuple[str, ...]] = Counter()
        for entry in entries:
            tokens[entry.model, entry.status, "input"] += entry.usage.input_tokens
            tokens[entry.model, entry.status, "output"] += entry.usage.output_tokens
        assert {key: n for key, n in shown["textllm_tokens_total"].items() if key[2] in ("input", "output")} == tokens
        cost = float(sum(entry.cost for entry in entries))
        assert sum(shown["textllm_cost_usd_total"].values()) == pytest.approx(cost, rel=1e-9)
        assert shown["textllm_holds"][()] == shown["textllm_holds_usd"][()] == 0


async def test_what_a_killed_worker_held_vanishes_and_what_it_has_counted_stays(
    provider: OpenAIStandIn, database: str, tmp_path: Path
) -> None:
    user, gate = new_id("user"), threading.Event()
    with serving(tmp_path, provider, database) as service:
        assert service.chat("hi", user_id=user).status_code == 200
        provider.script(Reply(deltas=("a", "b"), gate=gate))
        try:
            with httpx.stream(
                "POST", f"{service.url}/chat/stream", json={"message": "hi", "user_id": user}, timeout=30
            ) as answer:
                assert answer.status_code == 200
                await until(lambda: metrics(service)["textllm_replies_live"][()] == 1)
                assert metrics(service)["textllm_holds_usd"][()] > 0
                (worker,) = service.workers()
                os.kill(worker, signal.SIGKILL)
        finally:
            gate.set()
        await until(lambda: service.get("/health/ready").status_code == 200)
        await until(lambda: metrics(service)["textllm_holds"][()] == 0)
        assert sum(metrics(service)["textllm_turns_total"].values()) >= 1


async def test_a_worker_that_leaves_has_written_all_that_it_counted(
    provider: OpenAIStandIn, database: str, tmp_path: Path
) -> None:
    with serving(tmp_path, provider, database) as service:
        before = service.workers()
        for _ in range(3):
            assert service.chat("hi").status_code == 200
        service.process.send_signal(signal.SIGHUP)
        await until(lambda: not set(before) & set(service.workers()))
        assert metrics(service)["textllm_http_requests_total"]["POST", "/chat", "200"] == 3
