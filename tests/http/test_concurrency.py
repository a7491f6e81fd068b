"""Room for so many at a time, and for so many of each."""

import asyncio
from collections.abc import Hashable
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.http.conftest import JSON, Server

from textllm_core.errors import ServiceUnavailableError, StorageUnavailableError
from textllm_core.tenancy import Caller
from textllm_http.concurrency import ConcurrencyLimit
from textllm_http.spool import MAX_REQUESTS, OF_TENANT, OF_USER, Spool


def test_whoever_finds_no_place_is_refused_until_one_is_free() -> None:
    limit = ConcurrencyLimit(2, ServiceUnavailableError, "Full.")
    with limit.taken():
        with limit.taken(), pytest.raises(ServiceUnavailableError, match="Full"), limit.taken():
            pass
        with limit.taken():
            pass


def test_nobody_has_more_than_his_share_and_it_comes_back() -> None:
    limit = ConcurrencyLimit(3, ServiceUnavailableError, "Full.")
    too_much: list[dict[Hashable, int]] = [{"a": 1}, {"a": 1, "b": 2}]
    for _ in range(2):
        with limit.taken({"a": 1}), limit.taken({"b": 2}):
            for shares in too_much:
                with pytest.raises(ServiceUnavailableError), limit.taken(shares):
                    pass
            with limit.taken({"b": 2}), pytest.raises(ServiceUnavailableError), limit.taken({"c": 9}):
                pass


def test_neither_a_user_nor_a_tenant_fills_the_spool(tmp_path: Path) -> None:
    spool, ann, bob = Spool(tmp_path), Caller("acme", "user", "ann"), Caller("acme", "user", "bob")
    service, other = Caller("acme"), Caller("other")
    with ExitStack() as taken:

        def fill(caller: Caller, expected: int) -> None:
            for _ in range(expected):
                taken.enter_context(spool.place(caller))
            with pytest.raises(StorageUnavailableError), spool.place(caller):
                pass

        fill(ann, OF_USER)
        fill(bob, OF_USER)
        fill(service, OF_TENANT - 2 * OF_USER)
        fill(other, OF_TENANT)
        assert 2 * OF_TENANT <= MAX_REQUESTS
    with spool.place(ann), spool.place(other):
        pass


async def test_long_texts_that_come_slowly_are_so_many_at_a_time(server: Server) -> None:
    path, short, long = "/v1/chat/completions", JSON | {"content-length": "100"}, JSON | {"content-length": "1000000"}
    sending = [
        asyncio.create_task(server.call("POST", path, [b"{"], headers=long, is_whole=False)) for _ in range(OF_TENANT)
    ]
    await asyncio.sleep(0.05)
    body = {"messages": [{"role": "user", "content": "Hello"}]}
    assert (await server.post(path, body, long)).json()["error"]["code"] == "storage_unavailable"
    assert (await server.post(path, body, short)).status == 200
    for task in sending:
        task.cancel()
    await asyncio.wait(sending)
    assert (await server.post(path, body, long)).status == 200
