"""What makes a row is in the rate limit, and a user has so many conversations at most."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.http.conftest import JSON, Server, serving
from tests.unit.conftest import POLICY, Bench

from textllm_core.files import FilePolicy

MOST = 3


@pytest.fixture
def bench() -> Bench:
    """What stands behind the server."""
    files = FilePolicy(max_file_bytes=1000, max_tenant_bytes=None, link_expires_in_s=60, rate_per_minute=10)
    return Bench(policy=replace(POLICY, max_conversations=MOST, rate_per_minute=10), file_policy=files)


@pytest.fixture
async def server(bench: Bench, tmp_path: Path) -> AsyncIterator[Server]:
    """One where a user may have three conversations, and ask ten times a minute."""
    async with serving(bench, spool_dir=tmp_path) as running:
        yield running


async def test_a_new_conversation_counts_as_a_turn(server: Server) -> None:
    first = await server.post("/conversations", {"user_id": "ada"})
    assert (first.status, first.headers["ratelimit"]) == (201, '"turns";r=9;t=6')
    turn = await server.post("/chat", {"message": "Hi", "conversation_id": first.json()["id"]})
    assert turn.headers["ratelimit"].startswith('"turns";r=8')
    for _ in range(8):
        await server.post("/conversations", {"user_id": "ada"})
    refused = await server.post("/conversations", {"user_id": "ada"})
    assert (refused.status, refused.json()["code"]) == (429, "rate_limited")
    assert int(refused.headers["retry-after"]) == 6
    assert (await server.post("/conversations", {"user_id": "bob"})).status == 201


@pytest.mark.parametrize(
    ("path", "body"), [("/conversations", {"user_id": "ada"}), ("/chat", {"user_id": "ada", "message": "Hi"})]
)
async def test_a_user_has_no_more_conversations_than_allowed_until_one_is_erased(
    server: Server, path: str, body: dict[str, str]
) -> None:
    made = [(await server.post(path, body)).json() for _ in range(MOST)]
    one = made[0].get("conversation_id") or made[0]["id"]
    await server.call("DELETE", f"/conversations/{one}")
    refused = await server.post(path, body)
    assert (refused.status, refused.json()["code"], refused.json()["limit"]) == (403, "forbidden", MOST)
    assert "soft=false" in refused.json()["detail"]
    await server.call("DELETE", f"/conversations/{one}?soft=false")
    assert (await server.post(path, body)).status in (200, 201)


async def test_who_has_as_many_as_allowed_goes_on_in_them_and_is_told_of_repeats(server: Server) -> None:
    asks = [JSON | {"idempotency-key": str(number)} for number in range(MOST)]
    first, *_ = [await server.post("/chat", {"user_id": "ada", "message": "Hi"}, ask) for ask in asks]
    going_on = {"message": "Hi", "conversation_id": first.json()["conversation_id"]}
    assert (await server.post("/chat", going_on)).status == 200
    again = await server.post("/chat", {"user_id": "ada", "message": "Hi"}, asks[0])
    assert (again.json(), again.headers["idempotent-replayed"]) == (first.json(), "true")
    assert (await server.post("/conversations", {})).status == 201  # of a new user


async def test_items_that_are_added_count_as_a_turn_unless_a_turn_is_in_their_way(server: Server, bench: Bench) -> None:
    items = {"items": [{"role": "user", "content": "Hi"}] * 20}
    path = f"/v1/conversations/{(await server.post('/v1/conversations', items | {'user': 'ada'})).json()['id']}"
    statuses = [(await server.post(f"{path}/items", items)).status for _ in range(9)]
    assert statuses == [200] * 9
    refused = await server.post(f"{path}/items", items)
    assert (refused.status, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert (await server.post("/chat", {"user_id": "ada", "message": "Hi"})).status == 429
    (key,) = bench.store.conversations
    kept = bench.store.conversations[key]
    assert len(kept.messages) == 200
    bench.clock.advance(timedelta(seconds=6))
    bench.store.conversations[key] = replace(kept, turn_id="resp_1")
    assert [(await server.post(f"{path}/items", items)).status for _ in range(2)] == [409, 409]
    bench.store.conversations[key] = kept
    assert (await server.post(f"{path}/items", items)).status == 200


async def test_nothing_is_copied_for_a_response_that_may_not_be_asked_for_now(server: Server, bench: Bench) -> None:
    first = (await server.post("/v1/responses", {"input": "one", "user": "ada"})).json()
    following = {"input": "two", "previous_response_id": first["id"]}
    answers = [await server.post("/v1/responses", following) for _ in range(12)]
    assert [answer.status for answer in answers] == [200] * 9 + [429] * 3
    assert len(bench.store.conversations) == 9  # that of the first two, and eight forks of it
