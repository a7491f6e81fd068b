"""Who names no user escapes no limit: the key is counted, or without keys the client's address."""

import json
import re
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.conftest import JSON, Answer, Server, serving
from tests.http.test_door_files import FORM, form
from tests.unit.conftest import POLICY, Bench

from textllm_adapters.memory.application import memory_administration
from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Caller, Usage
from textllm_core.ids import is_new_user_id
from textllm_core.records.api_keys import IssuedApiKey

HI = {"message": "Hi"}
DEAR = ScriptedReply(text="Hello.", usage=Usage(input_tokens=100_000))  # 0.25 USD


async def issue(server: Server, role: Any = "service", user_id: str | None = None) -> IssuedApiKey:
    administration = memory_administration(server.bench.store, server.bench.clock)
    return await administration.issue_api_key(Caller("acme", "admin"), role=role, user_id=user_id)


def headers_of(key: IssuedApiKey) -> dict[str, str]:
    return JSON | {"authorization": f"Bearer {key.secret}"}


@pytest.fixture
async def strict() -> AsyncIterator[Server]:
    """Asks for keys; ten turns a minute."""
    async with serving(Bench(policy=replace(POLICY, rate_per_minute=10)), requires_keys=True) as server:
        yield server


@pytest.fixture
async def poor() -> AsyncIterator[Server]:
    """Asks for keys; 1 USD a day."""
    async with serving(Bench(policy=replace(POLICY, daily_limit=Decimal(1))), requires_keys=True) as server:
        server.bench.llm.script(*[DEAR] * 9)
        yield server


def codes(answers: list[Answer]) -> list[int]:
    return [answer.status for answer in answers]


async def test_of_25_calls_with_one_key_and_no_user_the_limit_lets_10_in(strict: Server) -> None:
    key = headers_of(await issue(strict))
    answers = [await strict.post("/chat", HI, key) for _ in range(25)]
    assert codes(answers) == [200] * 10 + [429] * 15
    users = {answer.json()["user_id"] for answer in answers[:10]}
    assert len(users) == 10
    assert all(map(is_new_user_id, users))
    assert codes([await strict.post("/chat", HI, headers_of(await issue(strict)))]) == [200]
    await strict.bench.check_books()


async def test_nor_does_it_help_to_send_back_what_the_reply_has_named(strict: Server) -> None:
    key = headers_of(await issue(strict))
    first = (await strict.post("/chat", HI, key)).json()
    named = {name: first[name] for name in ("conversation_id", "user_id")}
    bodies = [HI | {name: named[name]} for name in named] + [HI | named]
    assert codes([await strict.post("/chat", body, key) for body in bodies * 4]) == [200] * 9 + [429] * 3
    conversation = (await strict.get(f"/conversations/{first['conversation_id']}", key)).json()
    assert (conversation["user_id"], conversation["message_count"]) == (first["user_id"], 7)
    assert codes([await strict.post("/chat", HI | {"user_id": "ada"}, key)]) == [200]
    await strict.bench.check_books()


async def test_a_key_without_users_has_one_budget_for_all_of_them(poor: Server) -> None:
    key = await issue(poor)
    answers = [await poor.post("/chat", HI, headers_of(key)) for _ in range(6)]
    assert codes(answers) == [200] * 4 + [402] * 2
    assert answers[-1].json()["spent"] == 1
    first = answers[0].json()
    for path in (f"/users/{key.id}/sessions", f"/users/{first['user_id']}/sessions"):
        session = (await poor.get(path, headers_of(key))).json()
        assert (session["id"], session["user_id"]) == (first["session_id"], key.id)
        assert (session["total_cost"], session["conversation_count"]) == (1, 4)
    for user in (key.id, first["user_id"]):
        stats = (await poor.get(f"/users/{user}/stats", headers_of(key))).json()
        assert (stats["total_cost"], stats["total_messages"], stats["total_conversations"]) == (1, 4, 4)
    assert codes([await poor.post("/chat", HI | {"user_id": "ada"}, headers_of(key))]) == [200]
    await poor.bench.check_books()


async def test_a_key_of_a_user_counts_that_user_whatever_its_id_is(poor: Server) -> None:
    made = (await poor.post("/chat", HI, headers_of(await issue(poor)))).json()["user_id"]
    bound = headers_of(await issue(poor, "user", made))
    reply = (await poor.post("/chat", HI, bound)).json()
    session = (await poor.get(f"/sessions/{reply['session_id']}", bound)).json()
    assert (session["user_id"], session["total_cost"]) == (made, 0.25)


HELLO = [{"role": "user", "content": "Hi"}]
AT_THE_DOOR: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HELLO},
    "/v1/responses": {"input": "Hi"},
    "/v1/conversations": {},
}


@pytest.mark.parametrize("path", AT_THE_DOOR)
async def test_a_header_names_the_user_whom_the_body_does_not(strict: Server, path: str) -> None:
    """Open WebUI sends no field `user`, and takes headers for each connection."""
    key = headers_of(await issue(strict))
    body = AT_THE_DOOR[path]
    for named in ("ann", "ann@example.org", "Ann Ö."):
        answer = await strict.post(path, body, key | {"x-user-id": named.encode().decode("latin-1")})
        assert answer.status == 200
    assert (await strict.post(path, body | {"user": "Ann Ö."}, key | {"x-user-id": "ann"})).status == 200
    empty = await strict.post(path, body, key | {"x-user-id": ""})
    assert (empty.status, empty.json()["error"]["param"]) == (400, "X-User-ID")
    both = [*key.items(), ("x-user-id", "eve"), ("x-user-id", "ann")]  # a client's, and that of the proxy behind it
    twice = await strict.call("POST", path, [json.dumps(body).encode()], headers=both)
    assert (twice.status, twice.json()["error"]["param"]) == (400, "X-User-ID")
    store = strict.bench.store
    of_turns = [entry.payer for entry in store.entries.values()]
    payers = of_turns or [kept.conversation.user_id for kept in store.conversations.values()]
    assert payers[:2] == ["ann", "ann@example.org"]
    assert payers[2].startswith("id_")
    assert payers[3:] == payers[2:3]
    if of_turns:
        bound = headers_of(await issue(strict, "user", "bob")) | {"x-user-id": "ann"}
        assert (await strict.post(path, body, bound)).status == 200
        assert [entry.payer for entry in store.entries.values()][4] == "bob"
    await strict.bench.check_books()


async def test_what_is_of_another_user_is_not_there_for_a_request_that_names_one(tmp_path: Path) -> None:
    async with serving(Bench(), requires_keys=True, spool_dir=tmp_path) as server:
        key = headers_of(await issue(server))
        ada, bob = (key | {"x-user-id": user} for user in ("ada", "bob"))
        conversation = (await server.post("/v1/conversations", {"items": HELLO}, ada)).json()["id"]
        here = f"/v1/conversations/{conversation}"
        item = (await server.get(f"{here}/items", ada)).json()["data"][0]["id"]
        said = {"input": "Hi", "conversation": conversation}
        response = (await server.post("/v1/responses", said, ada)).json()["id"]
        uploaded = await server.call("POST", "/v1/files", [form(purpose="user_data")], headers=ada | FORM)
        file = uploaded.json()["id"]
        asked: list[tuple[str, str, dict[str, Any] | None]] = [
            ("GET", here, None),
            ("POST", here, {"metadata": {}}),
            ("GET", f"{here}/items", None),
            ("POST", f"{here}/items", {"items": HELLO}),
            ("GET", f"{here}/items/{item}", None),
            ("GET", f"/v1/responses/{response}", None),
            ("GET", f"/v1/responses/{response}/input_items", None),
            ("POST", "/v1/responses", said),
            ("POST", f"/v1/responses/{response}/cancel", {}),
            ("GET", f"/v1/files/{file}", None),
            ("GET", f"/v1/files/{file}/content", None),
            ("DELETE", f"{here}/items/{item}", None),
            ("DELETE", f"/v1/responses/{response}", None),
            ("DELETE", f"/v1/files/{file}", None),
            ("DELETE", here, None),
        ]

        async def ask(method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]) -> Answer:
            return await server.call(method, path, [] if body is None else [json.dumps(body).encode()], headers=headers)

        for method, path, body in asked:
            foreign = await ask(method, path, body, bob)
            assert foreign.status == 404, path
            if path not in ("/v1/responses", f"{here}/items/{item}"):
                never = await ask(method, re.sub(r"[0-9a-f]{8}", "00000000", path), body, bob)
                assert foreign.json()["error"]["message"] == never.json()["error"]["message"]
        assert (await server.get("/v1/files", bob)).json()["data"] == []
        assert len((await server.get("/v1/files", ada)).json()["data"]) == 1
        for method, path, body in asked:
            wanted = 400 if path.endswith("/cancel") else 200  # it is over
            assert (await ask(method, path, body, ada if method == "POST" else key)).status == wanted, path


@pytest.mark.parametrize("path", ["/v1/conversations", "/v1/responses"])
async def test_what_is_of_no_user_is_there_for_a_request_that_names_one(strict: Server, path: str) -> None:
    key = headers_of(await issue(strict))
    made = (await strict.post(path, AT_THE_DOOR[path], key)).json()["id"]
    assert (await strict.get(f"{path}/{made}", key | {"x-user-id": "bob"})).status == 200
    assert (await strict.get(f"{path}/{made}", key | {"x-user-id": ""})).status == 400


async def test_a_repeat_for_another_user_is_another_request(strict: Server) -> None:
    key = headers_of(await issue(strict)) | {"idempotency-key": "one"}
    path = "/v1/chat/completions"
    asked = [await strict.post(path, AT_THE_DOOR[path], key | {"x-user-id": named}) for named in ("ann", "ann", "bob")]
    assert codes(asked) == [200, 200, 422]
    assert asked[1].headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("198.51.100.7", "198.51.100.7", True),
        ("198.51.100.7", "198.51.100.8", False),
        ("198.51.100.7", "::ffff:198.51.100.7", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ],
)
@pytest.mark.parametrize("is_behind_proxy", [False, True])
async def test_without_keys_an_address_is_counted(first: str, second: str, is_one: bool, is_behind_proxy: bool) -> None:
    bench = Bench(policy=replace(POLICY, rate_per_minute=1))
    async with serving(bench, trusted_proxies=["10.0.0.0/8"] if is_behind_proxy else []) as server:
        statuses = []
        for address in (first, second):
            sent: dict[str, Any] = {"headers": JSON, "peer": address}
            if is_behind_proxy:
                sent = {"headers": JSON | {"x-forwarded-for": f"192.0.2.1, {address}"}, "peer": "10.1.2.3"}
            statuses.append((await server.call("POST", "/chat", [b'{"message": "Hi"}'], **sent)).status)
    assert statuses == [200, 429 if is_one else 200]
