"""`textllm usage`, over a store with two days of one user."""

import json
from datetime import timedelta
from decimal import Decimal

import pytest
from msgspec.structs import replace
from tests.cli.app_over_memory import NOON, MemoryWiring
from tests.cli.conftest import Run

from textllm_core.records.sessions import day_of
from textllm_core.records.usage_reports import DailyUsage
from textllm_core.usage import Usage

TODAY = day_of(NOON)
YESTERDAY = TODAY - timedelta(days=1)


@pytest.fixture
def used(run: Run, wiring: MemoryWiring) -> str:
    """The id of the one conversation."""
    reply = json.loads(run("ask", "What is\n\x1b[31mred\x1b[0m?", "--user", "ada", "--json").stdout)
    for key, entry in wiring.store.entries.items():
        wiring.store.entries[key] = replace(entry, usage=Usage(input_tokens=500, output_tokens=20), cost=Decimal("0.5"))
    wiring.store.daily_usage.clear()
    for row in (
        DailyUsage(TODAY, "gpt-5", 1, 500, 20, Decimal("0.5")),
        DailyUsage(YESTERDAY, "gpt-5", 1, 400, 30, Decimal("0.125")),
        DailyUsage(YESTERDAY, "gpt-4o", 1, 600, 20, Decimal("0.125")),
    ):
        wiring.store.daily_usage["default", "ada", row.day, row.model] = row
    return str(reply["conversation_id"])


@pytest.mark.usefixtures("used")
def test_days_come_oldest_first_with_a_total(run: Run) -> None:
    result = run("usage", "--user", "ada")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "day         messages  tokens in  tokens out   cost\n"
        f"{YESTERDAY}         2      1,000          50  $0.25\n"
        f"{TODAY}         1        500          20   $0.5\n"
        "total              3      1,500          70  $0.75\n"
    )


@pytest.mark.usefixtures("used")
def test_what_is_estimated_of_the_cost_has_a_column_where_there_is_any(run: Run, wiring: MemoryWiring) -> None:
    row = DailyUsage(TODAY, "gpt-4o", 1, 500, 20, Decimal("0.25"), Decimal("0.125"))
    wiring.store.daily_usage["default", "ada", TODAY, "gpt-4o"] = row
    assert run("usage", "--user", "ada").stdout == (
        "day         messages  tokens in  tokens out   cost  estimated\n"
        f"{YESTERDAY}         2      1,000          50  $0.25         $0\n"
        f"{TODAY}         2      1,000          40  $0.75     $0.125\n"
        "total              4      2,000          90     $1     $0.125\n"
    )


@pytest.mark.usefixtures("used")
def test_models_come_dearest_first(run: Run) -> None:
    lines = run("usage", "--by", "model", "--user", "ada").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["model", "gpt-5", "gpt-4o", "total"]
    assert lines[1].split() == ["gpt-5", "2", "900", "50", "$0.625"]


def test_conversations_come_with_their_titles_which_cannot_drive_the_terminal(run: Run, used: str) -> None:
    result = run("usage", "--by", "conversation", "--user", "ada")
    assert result.stdout.splitlines()[1].split() == [used, "1", "500", "20", "$0.5", "What", "is", "red?"]


def test_what_is_left_beside_the_conversations_has_a_row_so_that_they_add_up(
    run: Run, used: str, wiring: MemoryWiring
) -> None:
    row = DailyUsage(TODAY, "gpt-4o", 1, 500, 20, Decimal("0.25"), Decimal("0.125"))
    wiring.store.daily_usage["default", "ada", TODAY, "gpt-4o"] = row
    assert run("usage", "--by", "conversation", "--user", "ada").stdout == (
        "conversation                   messages  tokens in  tokens out  cost  estimated\n"
        f"{used}         1        500          20  $0.5         $0  What is red?\n"
        "all others                            3      1,500          70  $0.5     $0.125\n"
        "total                                 4      2,000          90    $1     $0.125\n"
    )


@pytest.mark.usefixtures("used")
def test_all_users_together_are_asked_for_by_name(run: Run, wiring: MemoryWiring) -> None:
    row = DailyUsage(TODAY, "gpt-5", 2, 100, 10, Decimal("0.25"))
    wiring.store.daily_usage["default", "bob", TODAY, "gpt-5"] = row
    assert run("usage", "--all-users").stdout == (
        "day         messages  tokens in  tokens out   cost\n"
        f"{YESTERDAY}         2      1,000          50  $0.25\n"
        f"{TODAY}         3        600          30  $0.75\n"
        "total              5      1,600          80     $1\n"
    )
    models = run("usage", "--all-users", "--by", "model", "--csv").stdout.splitlines()
    assert models[1:] == ["gpt-5,4,1000,60,0.875,0", "gpt-4o,1,600,20,0.125,0"]


@pytest.mark.parametrize("more", [["--user", "ada"], ["--by", "conversation"]])
def test_all_users_are_neither_one_user_nor_told_by_conversation(run: Run, more: list[str]) -> None:
    assert run("usage", "--all-users", *more).exit_code == 2


@pytest.mark.usefixtures("used")
def test_only_the_last_days_are_shown(run: Run) -> None:
    assert run("usage", "--days", "1", "--user", "ada").stdout.splitlines()[-1].split() == [
        *("total", "1", "500", "20", "$0.5")
    ]


@pytest.mark.usefixtures("used")
def test_csv_has_plain_numbers(run: Run) -> None:
    assert run("usage", "--csv", "--user", "ada").stdout == (
        "day,messages,tokens_input,tokens_output,cost,estimated_cost\n"
        f"{YESTERDAY},2,1000,50,0.25,0\n{TODAY},1,500,20,0.5,0\n"
    )


def test_csv_of_conversations_names_them_by_id(run: Run, used: str) -> None:
    assert run("usage", "--csv", "--by", "conversation", "--user", "ada").stdout == (
        "conversation,messages,tokens_input,tokens_output,cost,estimated_cost\n"
        f"{used},1,500,20,0.5,0\n,2,1000,50,0.25,0\n"
    )


@pytest.mark.usefixtures("used")
def test_json_is_the_report_as_rest_has_it(run: Run) -> None:
    report = json.loads(run("usage", "--json", "--user", "ada").stdout)
    assert list(report) == [
        "total_conversations",
        "total_messages",
        "total_tokens_input",
        "total_tokens_output",
        "total_cost",
        "estimated_cost",
        "by_day",
        "by_model",
    ]
    assert (report["total_conversations"], report["total_messages"], report["total_cost"]) == (1, 3, 0.75)
    assert report == json.loads(run("usage", "--by", "model", "--json", "--user", "ada").stdout)


def test_json_of_conversations_is_a_list(run: Run, used: str) -> None:
    listed = json.loads(run("usage", "--by", "conversation", "--json", "--user", "ada").stdout)
    assert [(of["conversation_id"], of["cost"]) for of in listed["data"]] == [(used, 0.5), (None, 0.25)]


def test_nothing_used_is_a_total_of_nothing(run: Run) -> None:
    result = run("usage")
    assert (result.exit_code, result.stdout.splitlines()[-1].split()) == (0, ["total", "0", "0", "0", "$0"])
    assert run("usage", "--csv").stdout == "day,messages,tokens_input,tokens_output,cost,estimated_cost\n"
    assert len(run("usage", "--by", "conversation").stdout.splitlines()) == 2


@pytest.mark.parametrize("wrong", [["--days", "0"], ["--days", "3661"], ["--by", "user"], ["--csv", "--json"]])
def test_wrong_options_have_exit_code_2(run: Run, wrong: list[str]) -> None:
    assert run("usage", *wrong).exit_code == 2


def test_a_malformed_user_has_exit_code_4(run: Run) -> None:
    assert run("usage", "--user", "").exit_code == 4
