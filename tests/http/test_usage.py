"""`/stats`, `/users/{user_id}/stats` and `/users/{user_id}/stats/conversations`."""

from datetime import timedelta
from decimal import Decimal

from tests.http.conftest import Server, serving
from tests.unit.conftest import Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_core import Caller, TextTurn


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


async def test_a_service_key_sees_what_all_its_users_used_and_a_users_key_its_own(bench: Bench) -> None:
    async with serving(bench, requires_keys=True) as server:
        issue = bench.textllm.administration.issue_api_key
        keys = [await issue(Caller(role="admin"), role=role) for role in ("admin", "service")]
        own = await issue(Caller(role="admin"), role="user", user_id="bob")
        replies = [await bench.say("Hi"), await bench.send_message(Caller(), TextTurn("Hi", user_id="bob"))]
        for key, expected in [(keys[0], replies), (keys[1], replies), (own, replies[1:])]:
            answer = await server.get("/stats?days=1", {"authorization": f"Bearer {key.secret}"})
            assert answer.status == 200
            assert answer.json()["total_messages"] == len(expected)
            assert answer.json()["total_cost"] == float(sum(reply.cost for reply in expected))


async def test_what_each_conversation_used_says_what_of_it_is_estimated(server: Server, bench: Bench) -> None:
    bench.llm.script(ScriptedReply(text="One."), ScriptedReply(text="Two.", usage_stated=False))
    first = await bench.say("Hi")
    second = await bench.say("And you?", first.conversation_id)
    answer = await server.get("/users/ada/stats/conversations?days=1")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {
        "data": [
            {
                "conversation_id": first.conversation_id,
                "title": "Hi",
                "messages": 2,
                "tokens_input": first.usage.input + second.usage.input,
                "tokens_output": first.usage.output + second.usage.output,
                "cost": float(first.cost + second.cost),
                "estimated_cost": float(second.cost),
            }
        ]
    }


async def test_what_was_used_below_v1_without_a_conversation_is_in_a_row_of_its_own(
    server: Server, bench: Bench
) -> None:
    asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "user": "ada"}
    assert (await server.post("/v1/chat/completions", asked)).status == 200
    assert (await server.post("/v1/responses", {"model": "gpt-4o", "input": "Hi", "user": "ada"})).status == 200
    reply = await bench.say("Hi")
    used = (await server.get("/users/ada/stats/conversations")).json()["data"]
    assert [(of["conversation_id"], of["messages"]) for of in used] == [(reply.conversation_id, 1), (None, 2)]
    total = (await server.get("/users/ada/stats")).json()
    assert sum(Decimal(str(of["cost"])) for of in used) == Decimal(str(total["total_cost"]))


async def test_nothing_used_is_no_row(server: Server) -> None:
    assert (await server.get("/users/nobody/stats/conversations")).json() == {"data": []}
    assert (await server.get("/users/nobody/stats/conversations?days=0")).status == 400
