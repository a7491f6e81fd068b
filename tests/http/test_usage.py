"""`/users/{user_id}/stats`."""

from datetime import timedelta

from tests.http.conftest import Server
from tests.unit.conftest import Bench


async def test_statistics_have_exactly_the_fields_of_the_contract(server: Server, bench: Bench) -> None:
    reply = await bench.say("Hi")
    used = {
        "messages": 1,
        "tokens_input": reply.usage.input,
        "tokens_output": reply.usage.output,
        "cost": float(reply.cost),
        "estimated_cost": 0,
    }
    answer = await server.get("/users/ada/stats")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "total_conversations": 1,
        "total_messages": 1,
        "total_tokens_input": reply.usage.input,
        "total_tokens_output": reply.usage.output,
        "total_cost": float(reply.cost),
        "estimated_cost": 0,
        "by_day": [{"day": "2026-11-22", **used}],
        "by_model": [{"model": reply.model, **used}],
    }


async def test_the_last_thirty_days_are_meant_unless_said_otherwise(server: Server, bench: Bench) -> None:
    await bench.say("Hi")
    bench.clock.advance(timedelta(days=29))
    assert (await server.get("/users/ada/stats")).json()["total_messages"] == 1
    assert (await server.get("/users/ada/stats?days=29")).json()["total_messages"] == 0
    bench.clock.advance(timedelta(days=1))
    assert (await server.get("/users/ada/stats")).json()["total_messages"] == 0
    assert (await server.get("/users/ada/stats?days=3660")).json()["total_messages"] == 1


async def test_a_user_who_was_never_seen_has_zeros(server: Server) -> None:
    answer = await server.get("/users/nobody/stats")
    assert answer.status == 200
    assert answer.body == (
        b'{"total_conversations":0,"total_messages":0,"total_tokens_input":0,"total_tokens_output":0,"total_cost":0,'
        b'"estimated_cost":0,"by_day":[],"by_model":[]}'
    )
