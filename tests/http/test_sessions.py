"""`/sessions/{id}`, `/users/{user_id}/sessions` and `/sessions/{id}/end`."""

from datetime import timedelta

import pytest
from tests.http.conftest import Server
from tests.unit.conftest import Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core.errors import ContextTooLongError

SESSION_ID = "sess_" + "0" * 24


async def test_a_session_has_exactly_the_fields_of_the_contract(server: Server, bench: Bench) -> None:
    reply = await bench.say("Hi")
    answer = await server.get(f"/sessions/{reply.session_id}")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "id": reply.session_id,
        "user_id": "ada",
        "created_at": "2026-11-22T12:00:01Z",
        "last_activity": "2026-11-22T12:00:01Z",
        "total_tokens": reply.usage.total,
        "total_cost": float(reply.cost),
        "conversation_count": 1,
        "is_active": True,
        "estimated_cost": 0,
    }


async def test_todays_session_is_that_of_the_utc_day(server: Server, bench: Bench) -> None:
    assert (await server.get("/users/ada/sessions")).json()["code"] == "session_not_found"
    reply = await bench.say("Hi")
    assert (await server.get("/users/ada/sessions")).json()["id"] == reply.session_id
    bench.clock.advance(timedelta(days=1))
    answer = await server.get("/users/ada/sessions")
    assert (answer.status, answer.json()["code"]) == (404, "session_not_found")


async def test_with_days_it_is_a_list_newest_first(server: Server, bench: Bench) -> None:
    assert (await server.get("/users/ada/sessions?days=366")).json() == {"data": []}
    old = await bench.say("Hi")
    bench.clock.advance(timedelta(days=1))
    new = await bench.say("Hi again")
    both = (await server.get("/users/ada/sessions?days=2")).json()
    assert [session["id"] for session in both["data"]] == [new.session_id, old.session_id]
    assert [session["id"] for session in (await server.get("/users/ada/sessions?days=1")).json()["data"]] == [
        new.session_id
    ]


async def test_a_session_ends_as_often_as_one_likes_and_reopens_with_the_next_turn(
    server: Server, bench: Bench
) -> None:
    reply = await bench.say("Hi")
    for _ in range(2):
        answer = await server.call("POST", f"/sessions/{reply.session_id}/end")
        assert (answer.status, answer.json()["is_active"]) == (200, False)
        assert answer.json() == (await server.get(f"/sessions/{reply.session_id}")).json()
    await bench.say("Hi again")
    assert (await server.get(f"/sessions/{reply.session_id}")).json()["is_active"] is True


async def test_a_first_turn_that_the_provider_refuses_leaves_no_session(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(error=ContextTooLongError()))
    refused = await server.post("/chat", {"user_id": "ada", "message": "Hi"})
    assert (refused.status, refused.json()["code"]) == (422, "context_too_long")
    assert (await server.get("/users/ada/sessions")).status == 404


@pytest.mark.parametrize("session_id", [SESSION_ID, "x", "sess_\0", "ü", "'; --", "x" * 5000, "conv_1", " "])
@pytest.mark.parametrize("call", ["GET /sessions/{}", "POST /sessions/{}/end"])
async def test_a_malformed_id_is_no_different_from_an_unknown_one(server: Server, call: str, session_id: str) -> None:
    method, path = call.split()
    answer = await server.call(method, path.format(session_id))
    assert (answer.status, answer.json()["code"]) == (404, "session_not_found")


@pytest.mark.parametrize(
    "path", ["/users/{}/sessions", "/users/{}/sessions?days=3", "/users/{}/stats", "/users/{}/stats/conversations"]
)
async def test_a_malformed_user_is_refused(server: Server, path: str) -> None:
    answer = await server.get(path.format("ü"))
    assert (answer.status, answer.json()["code"]) == (400, "invalid_request")
    assert [error["field"] for error in answer.json()["errors"]] == ["user_id"]


@pytest.mark.parametrize("path", ["/sessions", "/sessions/a/b", "/users/ada", "/users", "/sessions/a/end/b"])
async def test_there_is_nothing_beside_them(server: Server, path: str) -> None:
    answer = await server.get(path)
    assert (answer.status, answer.json()["code"]) == (404, "not_found")
