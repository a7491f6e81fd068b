"""`textllm sessions`, over a store that a question has been asked of."""

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from tests.cli.app_over_memory import NOON, MemoryWiring
from tests.cli.conftest import Run

from textllm_adapters.memory.store import KeptSession
from textllm_core.ids import new_id
from textllm_core.records.sessions import Session, day_of
from textllm_core.records.usage_reports import DailyUsage

FIELDS = ["id", "user_id", "created_at", "last_activity"]
FIELDS += ["total_tokens", "total_cost", "conversation_count", "is_active", "estimated_cost"]


@pytest.fixture
def session_id(run: Run) -> str:
    """Ada's, of today."""
    return str(json.loads(run("ask", "hi", "--user", "ada", "--json").stdout)["session_id"])


def test_todays_session_is_shown(run: Run, session_id: str) -> None:
    shown = run("sessions", "today", "--user", "ada")
    assert shown.exit_code == 0
    assert shown.stdout.startswith(f"id: {session_id}\nuser_id: ada\n")
    assert shown.stdout.endswith("conversation_count: 1\nis_active: true\nestimated_cost: 0\n")


def test_before_the_first_turn_of_the_day_there_is_none(run: Run) -> None:
    result = run("sessions", "today", "--json")
    assert (result.exit_code, json.loads(result.stderr)["code"]) == (3, "session_not_found")


@pytest.mark.parametrize("command", [("today", "--user", "ada"), ("show", "ID"), ("end", "ID")])
def test_json_is_the_session_as_rest_has_it(run: Run, session_id: str, command: tuple[str, ...]) -> None:
    shown = json.loads(run("sessions", *[session_id if word == "ID" else word for word in command], "--json").stdout)
    assert list(shown) == FIELDS
    assert (shown["id"], shown["is_active"]) == (session_id, command[0] != "end")


def test_an_ended_session_reopens_with_the_next_turn(run: Run, session_id: str) -> None:
    for _ in range(2):
        assert run("sessions", "end", session_id).stdout.endswith("is_active: false\nestimated_cost: 0\n")
    run("ask", "hi", "--user", "ada")
    assert run("sessions", "show", session_id).stdout.endswith("is_active: true\nestimated_cost: 0\n")


@pytest.mark.parametrize("command", ["show", "end"])
@pytest.mark.parametrize("session_id", ["sess_never_made", "", "ü"])
def test_an_unknown_session_has_exit_code_3(run: Run, command: str, session_id: str) -> None:
    result = run("sessions", command, session_id)
    assert (result.exit_code, result.stdout, result.stderr) == (3, "", "error: No such session.\n")


def test_a_malformed_user_has_exit_code_4(run: Run) -> None:
    assert run("sessions", "today", "--user", "a b").exit_code == 4


@pytest.mark.parametrize("days", ["0", "367", "x"])
def test_days_that_cannot_be_have_exit_code_2(run: Run, days: str) -> None:
    assert run("sessions", "list", "--days", days).exit_code == 2


def test_sessions_are_listed_newest_first(run: Run, wiring: MemoryWiring, session_id: str) -> None:
    yesterday = NOON - timedelta(days=1)
    old = Session(new_id("sess"), "ada", yesterday, yesterday, 1234, Decimal("0.25"), 2, is_active=False)
    wiring.store.sessions["default", "ada", day_of(yesterday)] = KeptSession(old, Decimal(0))
    listed = json.loads(run("sessions", "list", "--user", "ada", "--json").stdout)
    assert [session["id"] for session in listed["data"]] == [session_id, old.id]
    lines = run("sessions", "list", "--user", "ada").stdout.splitlines()
    assert lines[0].split() == ["session", "day", "conversations", "tokens", "cost", "active"]
    assert lines[2].split() == [old.id, f"{yesterday:%Y-%m-%d}", "2", "1,234", "$0.25", "no"]
    used = DailyUsage(day_of(yesterday), "gpt-4o", 1, 1, 1, Decimal("0.25"), Decimal("0.2"))
    wiring.store.daily_usage["default", "ada", used.day, used.model] = used
    lines = run("sessions", "list", "--user", "ada").stdout.splitlines()
    assert [lines[0].split()[-1], lines[2].split()[-1]] == ["estimated", "$0.2"]
    assert len(run("sessions", "list", "--user", "ada", "--days", "1").stdout.splitlines()) == 2
    assert len(run("sessions", "list").stdout.splitlines()) == 1
