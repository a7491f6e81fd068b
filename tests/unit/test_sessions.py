"""Who may see and end a session, and which days are meant."""

from datetime import timedelta

import pytest
from tests.unit.conftest import NOON, Bench

from textllm_core import Caller
from textllm_core.errors import InvalidRequestError, NotFoundError, SessionNotFoundError
from textllm_core.sessions import EndSession, GetSession, ListSessions, TodaysSession

ADA = Caller(role="user", user_id="ada")
BOB = Caller(role="user", user_id="bob")
ELSEWHERE = Caller(tenant_id="other")


@pytest.mark.parametrize("caller", [Caller(), ADA])
async def test_a_session_is_its_users_and_its_tenants(bench: Bench, caller: Caller) -> None:
    reply = await bench.say("Hi")
    assert (await GetSession(bench.sessions)(caller, reply.session_id)).user_id == "ada"
    assert not (await EndSession(bench.sessions)(caller, reply.session_id)).is_active


@pytest.mark.parametrize("caller", [BOB, ELSEWHERE])
async def test_the_session_of_another_does_not_exist(bench: Bench, caller: Caller) -> None:
    reply = await bench.say("Hi")
    with pytest.raises(SessionNotFoundError):
        await GetSession(bench.sessions)(caller, reply.session_id)
    with pytest.raises(SessionNotFoundError):
        await EndSession(bench.sessions)(caller, reply.session_id)
    assert (await GetSession(bench.sessions)(Caller(), reply.session_id)).is_active


async def test_a_user_may_not_ask_for_another(bench: Bench) -> None:
    with pytest.raises(NotFoundError) as today:
        await TodaysSession(bench.sessions, bench.clock)(BOB, "ada")
    with pytest.raises(NotFoundError) as listed:
        await ListSessions(bench.sessions, bench.clock)(BOB, "ada", days=1)
    assert (today.value.code, listed.value.code) == ("not_found", "not_found")


async def test_todays_session_begins_with_the_first_turn_of_the_utc_day(bench: Bench) -> None:
    todays_session = TodaysSession(bench.sessions, bench.clock)
    with pytest.raises(SessionNotFoundError):
        await todays_session(ADA, "ada")
    reply = await bench.say("Hi")
    bench.clock.advance(NOON.replace(hour=23, minute=59, second=59) - bench.clock.now())
    assert (await todays_session(ADA, "ada")).id == reply.session_id
    bench.clock.advance(timedelta(seconds=1))
    with pytest.raises(SessionNotFoundError):
        await todays_session(ADA, "ada")


async def test_the_last_days_hold_today_and_as_many_before_it_as_are_missing(bench: Bench) -> None:
    list_sessions = ListSessions(bench.sessions, bench.clock)
    sessions: list[str] = []
    for _ in range(3):
        sessions.insert(0, (await bench.say("Hi")).session_id)
        bench.clock.advance(timedelta(days=1))
    for days, expected in [(1, []), (2, sessions[:1]), (4, sessions), (366, sessions)]:
        assert [session.id for session in await list_sessions(ADA, "ada", days=days)] == expected


@pytest.mark.parametrize("days", [-1, 0, 367])
async def test_days_that_cannot_be_are_refused(bench: Bench, days: int) -> None:
    with pytest.raises(InvalidRequestError, match="from 1 to 366"):
        await ListSessions(bench.sessions, bench.clock)(ADA, "ada", days=days)


async def test_a_malformed_user_is_refused(bench: Bench) -> None:
    with pytest.raises(InvalidRequestError):
        await TodaysSession(bench.sessions, bench.clock)(Caller(), "a b")
