"""`/keys`, as an admin sees it."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace
from tests.http.conftest import JSON, Answer, Server, serving
from tests.unit.conftest import Bench

from textllm_adapters.memory.application import memory_administration
from textllm_adapters.settings import Settings
from textllm_adapters.settings.kinds import Secret
from textllm_adapters.wiring import ListedModels
from textllm_core import Caller
from textllm_core.api_keys import is_secret
from textllm_http.services import Models


@pytest.fixture
async def admin(bench: Bench) -> dict[str, str]:
    """The headers of the tenant's first key."""
    first = await memory_administration(bench.store, bench.clock).issue_api_key(Caller("acme", "admin"), role="admin")
    return {"authorization": f"Bearer {first.secret}"}


@pytest.fixture
async def server(bench: Bench) -> AsyncIterator[Server]:
    async with serving(bench, requires_keys=True) as running:
        yield running


async def issue(server: Server, headers: dict[str, str], body: object) -> Answer:
    return await server.post("/keys", body, headers | JSON)


async def test_a_key_is_made_and_its_secret_is_shown_once(server: Server, admin: dict[str, str]) -> None:
    answer = await issue(server, admin, {"role": "user", "user_id": "ada", "name": "laptop"})
    issued = answer.json()
    assert (answer.status, answer.headers["cache-control"]) == (201, "no-store")
    assert answer.headers["location"] == f"/keys/{issued['id']}"
    assert is_secret(secret := issued.pop("secret"))
    assert issued == {
        "id": issued["id"],
        "tenant_id": "acme",
        "role": "user",
        "user_id": "ada",
        "name": "laptop",
        "hint": secret[:9],
        "created_at": "2026-11-22T12:00:00Z",
        "revoked_at": None,
        "models": None,
    }
    listed = await server.get("/keys", admin)
    assert issued in listed.json()["data"]
    assert secret not in listed.body.decode()
    assert (await server.get("/users/ada/stats", {"authorization": f"Bearer {secret}"})).status == 200


async def test_a_key_is_limited_to_models(server: Server, admin: dict[str, str]) -> None:
    answer = await issue(server, admin, {"role": "service", "models": ["gpt-4o-mini", "fast", "fast"]})
    issued = answer.json()
    assert issued["models"] == ["gpt-4o-mini", "fast"]
    own = {"authorization": f"Bearer {issued['secret']}"} | JSON
    refused = await server.post("/chat", {"message": "Hello"}, own)
    assert (refused.status, refused.json()["code"]) == (403, "forbidden")
    assert "'gpt-4o'; it may use gpt-4o-mini, fast" in refused.json()["detail"]
    same = await server.post(
        "/v1/chat/completions", {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}, own
    )
    assert (same.status, same.json()["error"]["code"]) == (403, "forbidden")


async def test_the_list_of_models_has_all_that_a_key_is_limited_to_and_can_use(
    bench: Bench, admin: dict[str, str]
) -> None:
    models = ListedModels(Settings(openai_api_key=Secret("sk-1")))
    async with serving(bench, requires_keys=True, models=Models(models.all(), models.find)) as server:
        answer = await issue(server, admin, {"role": "service", "models": ["gpt-4o-mini", "gpt-4o", "nobody-sells-it"]})
        own = {"authorization": f"Bearer {answer.json()['secret']}"}
        all_of = {name: (await server.get("/v1/models", key)).json() for name, key in (("own", own), ("all", admin))}
        found = {
            (who, name): (await server.get(f"/v1/models/{name}", key)).status
            for who, key in (("own", own), ("all", admin))
            for name in ("gpt-4o-mini", "gpt-4.1", "nobody-sells-it", "x" * 300)
        }
    assert all_of["own"]["object"] == "list"
    assert [model["id"] for model in all_of["all"]["data"]] == ["gpt-4o"]
    [mini, default] = all_of["own"]["data"]
    assert (mini["id"], mini["object"], mini["owned_by"], mini["is_default"]) == (
        "gpt-4o-mini",
        "model",
        "openai",
        False,
    )
    assert mini["price"]["input"] == 0.15
    assert (default["id"], default["is_default"]) == ("gpt-4o", True)
    assert {who_and_name for who_and_name, status in found.items() if status == 200} == {
        ("own", "gpt-4o-mini"),
        ("all", "gpt-4o-mini"),
        ("all", "gpt-4.1"),
    }
    assert set(found.values()) == {200, 404}


@pytest.mark.parametrize("models", [[], [""], ["no model"], ["a"] * 101])
async def test_models_that_no_key_can_be_limited_to_are_refused(
    server: Server, admin: dict[str, str], models: list[str]
) -> None:
    answer = await issue(server, admin, {"role": "service", "models": models})
    assert (answer.status, answer.json()["errors"][0]["field"]) == (400, "models")


async def test_a_new_key_counts_as_a_turn_of_the_key_that_asks_for_it(bench: Bench, admin: dict[str, str]) -> None:
    policy = replace(bench.file_policy, rate_per_minute=2)
    async with serving(Bench(store=bench.store, file_policy=policy), requires_keys=True) as server:
        made = [await issue(server, admin, {"role": "service"}) for _ in range(3)]
        conversation = await server.post("/conversations", {}, admin | JSON)
        assert [answer.status for answer in (*made, conversation)] == [201, 201, 429, 429]
        assert made[0].headers["ratelimit"] == '"turns";r=1;t=30'
        assert len((await server.get("/keys", admin)).json()["data"]) == 3


async def test_pages_lead_through_all_keys(server: Server, admin: dict[str, str]) -> None:
    made = {(await issue(server, admin, {"role": "service"})).json()["id"] for _ in range(4)}
    first = (await server.get("/keys?limit=3", admin)).json()
    second = (await server.get(f"/keys?limit=3&after={first['data'][-1]['id']}", admin)).json()
    listed = [key["id"] for key in first["data"] + second["data"]]
    assert (len(listed), len(set(listed) - made)) == (5, 1)
    assert (first["has_more"], second["has_more"]) == (True, False)


async def test_a_revoked_key_is_refused_stays_listed_and_can_be_revoked_again(
    server: Server, admin: dict[str, str]
) -> None:
    issued = (await issue(server, admin, {"role": "service"})).json()
    for _ in range(2):
        answer = await server.call("DELETE", f"/keys/{issued['id']}", headers=admin)
        assert (answer.status, answer.json()) == (200, {"id": issued["id"], "deleted": True})
    assert (await server.get("/files", {"authorization": f"Bearer {issued['secret']}"})).status == 401
    (listed,) = [key for key in (await server.get("/keys", admin)).json()["data"] if key["id"] == issued["id"]]
    assert listed["revoked_at"] == "2026-11-22T12:00:00Z"


async def test_the_last_admin_key_may_revoke_itself(server: Server, admin: dict[str, str]) -> None:
    (own,) = (await server.get("/keys", admin)).json()["data"]
    assert (await server.call("DELETE", f"/keys/{own['id']}", headers=admin)).status == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "role"),
        ({"role": "root"}, "role"),
        ({"role": "user"}, "user_id"),
        ({"role": "admin", "user_id": "ada"}, "user_id"),
        ({"role": "user", "user_id": "a b"}, "user_id"),
        ({"role": "service", "name": ""}, "name"),
        ({"role": "service", "name": "x" * 201}, "name"),
        ({"role": "service", "tenant_id": "rival"}, "tenant_id"),
        ({"role": "service", "id": "key_1"}, "id"),
    ],
)
async def test_a_wrong_field_is_named(server: Server, admin: dict[str, str], body: object, field: str) -> None:
    answer = await issue(server, admin, body)
    assert (answer.status, [error["field"] for error in answer.json()["errors"]]) == (400, [field])


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "after=key_1", "after=", "tenant=rival"])
async def test_a_wrong_page_is_refused(server: Server, admin: dict[str, str], query: str) -> None:
    answer = await server.get(f"/keys?{query}", admin)
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
