"""What is about the whole service is the operator's, and a flood of unknown keys costs nobody anything."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.http.conftest import serving
from tests.unit.conftest import Bench

from textllm_adapters.memory.application import memory_administration
from textllm_adapters.memory.store import MemoryStore
from textllm_core import Caller
from textllm_core.api_keys import new_secret
from textllm_core.errors import UnknownKeysError
from textllm_http.unknown_keys import PER_MINUTE, UnknownKeyLimit

TOKEN = "operator-token-of-32-characters."
PAGES = ("/metrics", "/config")


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("requires_keys", [True, False])
async def test_the_operators_token_opens_what_is_about_all_tenants(
    bench: Bench, page: str, requires_keys: bool
) -> None:
    async with serving(bench, requires_keys=requires_keys, operator_token=TOKEN) as server:
        assert (await server.get(page, bearer(TOKEN))).status == 200
        for wrong in ({}, bearer(TOKEN[:-1]), bearer(TOKEN + "."), bearer(new_secret())):
            answer = await server.get(page, wrong)
            assert (answer.status, answer.json()["code"]) == (401, "unauthenticated")
            assert "TEXTLLM_METRICS_TOKEN" in answer.json()["detail"]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("token", [TOKEN, None])
async def test_no_tenants_key_does_and_the_refusal_says_what_would(bench: Bench, page: str, token: str | None) -> None:
    administration = memory_administration(bench.store, bench.clock)
    async with serving(bench, requires_keys=True, operator_token=token) as server:
        for tenant in ("default", "acme"):
            issued = await administration.issue_api_key(Caller(tenant, "admin"), role="admin")
            answer = await server.get(page, bearer(issued.secret))
            assert (answer.status, answer.json()["code"]) == (403, "forbidden")
            assert "TEXTLLM_METRICS_TOKEN" in answer.json()["detail"]


async def test_the_token_is_nobodys_key(bench: Bench) -> None:
    async with serving(bench, requires_keys=True, operator_token=TOKEN) as server:
        assert (await server.get("/conversations", bearer(TOKEN))).status == 401


class Counting(dict[Any, Any]):
    """Keys, and how often they were gone through."""

    asked = 0

    def values(self) -> Any:
        self.asked += 1
        return super().values()


async def test_a_flood_of_unknown_keys_costs_few_questions_and_bars_nobody_who_is_known(tmp_path: Path) -> None:
    keys = Counting()
    bench = Bench(store=MemoryStore(api_keys=keys))
    issued = await memory_administration(bench.store, bench.clock).issue_api_key(Caller(role="admin"), role="service")
    async with serving(bench, requires_keys=True, spool_dir=tmp_path) as server:

        async def ask(secret: str, peer: str = "203.0.113.7") -> tuple[int, dict[str, str]]:
            answer = await server.call("GET", "/conversations", headers=bearer(secret), peer=peer)
            return answer.status, answer.headers

        assert (await ask(issued.secret))[0] == 200
        before = keys.asked
        answers = [await ask(new_secret()) for _ in range(PER_MINUTE + 20)]
        assert [status for status, _ in answers] == [401] * PER_MINUTE + [429] * 20
        assert keys.asked == before + PER_MINUTE
        assert 1 <= int(answers[-1][1]["retry-after"]) <= 2
        assert "ratelimit" not in answers[-1][1]
        bench.clock.advance(timedelta(seconds=1))  # what is known is asked for again
        assert (await ask(issued.secret))[0] == 200
        assert (await ask(new_secret(), peer="203.0.113.8"))[0] == 401


async def test_a_key_that_was_revoked_is_as_unknown_as_any(tmp_path: Path) -> None:
    bench = Bench()
    keys, admin = memory_administration(bench.store, bench.clock), Caller(role="admin")
    issued = await keys.issue_api_key(admin, role="service")
    async with serving(bench, requires_keys=True, spool_dir=tmp_path) as server:
        assert (await server.get("/conversations", bearer(issued.secret))).status == 200
        await keys.revoke_api_key(admin, issued.id)
        bench.clock.advance(timedelta(seconds=1))
        told = [(await server.get("/conversations", bearer(issued.secret))).status for _ in range(PER_MINUTE + 3)]
    assert told == [401] * (PER_MINUTE + 1) + [429] * 2  # the first was known still


def test_tries_come_back_one_by_one() -> None:
    time = 0.0
    limit = UnknownKeyLimit(lambda: time)
    for _ in range(PER_MINUTE):
        limit.admit("203.0.113.7", new_secret().encode())
    with pytest.raises(UnknownKeysError) as refusal:
        limit.admit("203.0.113.7", b"x")
    time += refusal.value.retry_after_s
    limit.admit("203.0.113.7", b"x")
    with pytest.raises(UnknownKeysError):
        limit.admit("203.0.113.7", b"x")


def test_a_network_of_ipv6_is_one_address() -> None:
    limit = UnknownKeyLimit(lambda: 0.0)
    for number in range(PER_MINUTE):
        limit.admit(f"2001:db8::{number:x}", b"x")
    with pytest.raises(UnknownKeysError):
        limit.admit("2001:db8::ffff", b"x")
    limit.admit("2001:db8:0:1::1", b"x")


def test_however_many_addresses_come_little_is_remembered() -> None:
    limit = UnknownKeyLimit(lambda: 0.0)
    for number in range(30_000):
        limit.admit(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", b"x")
        limit.know("", number.to_bytes(4))
    assert sum(len(kept) for kept in vars(limit).values() if hasattr(kept, "__len__")) <= 20_000
