"""Limits hold however many workers share the load."""

import asyncio
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from tests.e2e.conftest import Books, serving
from tests.servers.openai import OpenAIStandIn

from textllm_core.ids import new_id


def requests_of(user: str) -> list[tuple[str, dict[str, object]]]:
    """The same turn at each door."""
    said = [{"role": "user", "content": "hi"}]
    return [
        ("/chat", {"message": "hi", "user_id": user, "max_output_tokens": 100}),
        ("/v1/responses", {"input": "hi", "user": user, "max_output_tokens": 100}),
        ("/v1/chat/completions", {"messages": said, "user": user, "max_completion_tokens": 100}),
    ]


async def talk(url: str, turns: int, user: str) -> list[httpx.Response]:
    """So many new conversations at once, at all doors in turn."""
    limits, asked = httpx.Limits(max_connections=None), requests_of(user)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        some = (asked[number % len(asked)] for number in range(turns))
        return await asyncio.gather(*[client.post(path, json=body) for path, body in some])


@pytest.mark.usefixtures("one_day")
async def test_200_turns_at_once_stay_within_the_cap_and_leave_another_user_alone(
    provider: OpenAIStandIn, database: str, books: Books, tmp_path: Path
) -> None:
    greedy, modest = new_id("user"), new_id("user")
    cap = Decimal("0.02")
    with serving(tmp_path, provider, database, "--workers", "4", TEXTLLM_COST_LIMIT_PER_SESSION=str(cap)) as service:
        answers, others = await asyncio.gather(
            talk(service.url, 200, greedy),
            talk(service.url, 5, modest),
        )
        entries = await books.entries(greedy)
        assert await books.drifts() == []
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 402}
    assert [answer.status_code for answer in others] == [200] * 5
    assert len(entries) == statuses[200]
    assert Counter(entry.status for entry in entries).keys() == {"completed"}
    assert sum(entry.cost for entry in entries) <= cap


@pytest.mark.parametrize("workers", ["1", "3", pytest.param("8", marks=pytest.mark.slow)])
async def test_ten_turns_a_minute_are_ten_however_many_workers_there_are(
    provider: OpenAIStandIn, postgres_url: str, tmp_path: Path, workers: str
) -> None:
    with serving(tmp_path, provider, postgres_url, "--workers", workers, TEXTLLM_RATE_LIMIT_PER_MINUTE="10") as service:
        begun = time.monotonic()
        answers = await talk(service.url, 60, "ada")
        refilled = int((time.monotonic() - begun) * 10 / 60)
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() == {200, 429}
    assert 10 <= statuses[200] <= 10 + refilled
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
