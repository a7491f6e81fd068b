"""`textllm audit`, over books in memory that a test may spoil."""

import json
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.cli.app_over_memory import MemoryWiring
from tests.cli.conftest import Run


@pytest.fixture
def spoilt(run: Run, wiring: MemoryWiring) -> MemoryWiring:
    """Books of one turn, whose session says that it cost a dollar too much."""
    assert run("ask", "hi", "--user", "ada").exit_code == 0
    for key, kept in wiring.store.sessions.items():
        session = replace(kept.session, total_cost=kept.session.total_cost + 1)
        wiring.store.sessions[key] = replace(kept, session=session)
    return wiring


def test_books_that_balance_say_so_and_how_much_was_checked(run: Run) -> None:
    run("ask", "hi")
    result = run("audit")
    checked = "checked 1 entries, 0 holds, 1 sessions, 1 conversations: the books balance\n"
    assert (result.exit_code, result.stdout, result.stderr) == (0, checked, "")


def test_a_drift_is_named_with_its_amounts_and_has_exit_code_1(run: Run, spoilt: MemoryWiring) -> None:
    (kept,) = spoilt.store.sessions.values()
    (entry,) = spoilt.store.entries.values()
    result = run("audit")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        f"sessions {kept.session.id} of default/ada: total_cost is {1 + entry.cost:f}, should be {entry.cost:f}",
        "checked 1 entries, 0 holds, 1 sessions, 1 conversations: 1 counters have drifted",
    ]


def test_a_repair_says_what_it_found_and_leaves_nothing(run: Run, spoilt: MemoryWiring) -> None:
    result = run("audit", "--repair")
    assert result.exit_code == 0
    assert ": total_cost found 1.0" in result.stdout
    assert result.stdout.endswith(": the books balance; 1 set right\n")
    assert run("audit").exit_code == 0


def test_what_cannot_be_set_right_has_exit_code_1_after_the_repair_too(run: Run, wiring: MemoryWiring) -> None:
    run("ask", "hi")
    for key, entry in wiring.store.entries.items():
        wiring.store.entries[key] = replace(entry, status="pending")
    result = run("audit", "--repair")
    assert result.exit_code == 1
    assert ": running is 1, should be 0\n" in result.stdout
    assert "1 counters have drifted" in result.stdout


def test_json_is_a_line_a_drift_with_exact_amounts_and_a_summary(run: Run, spoilt: MemoryWiring) -> None:
    (entry,) = spoilt.store.entries.values()
    drift, summary = (json.loads(line, parse_float=Decimal) for line in run("audit", "--json").stdout.splitlines())
    assert (drift["table"], drift["counter"], drift["tenant_id"], drift["user_id"]) == (
        "sessions", "total_cost", "default", "ada",
    )  # fmt: skip
    assert (drift["recorded"] - drift["actual"], drift["actual"]) == (1, entry.cost)
    assert summary == {
        "checked": {"entries": 1, "holds": 0, "sessions": 1, "conversations": 1},
        "drifted": 1,
        "repaired": 0,
    }
