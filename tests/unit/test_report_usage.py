"""Statistics follow from the turns, for those who may see them."""

from datetime import timedelta
from decimal import Decimal

import pytest
from tests.unit.conftest import NOON, Bench

from textllm_adapters.memory.llm import ScriptedReply
from textllm_adapters.memory.usage_reports import MemoryUsageReports
from textllm_core import Caller, TextTurn
from textllm_core.errors import InvalidRequestError, NotFoundError
from textllm_core.records.sessions import day_of
from textllm_core.records.usage_reports import DailyUsage, UsageOfDay, UsageOfModel, UsageReport
from textllm_core.report_usage import ReportUsage

TODAY = day_of(NOON)
BOB = Caller(role="user", user_id="bob")


@pytest.fixture
def report_usage(bench: Bench) -> ReportUsage:
    return ReportUsage(MemoryUsageReports(bench.store), bench.clock)


def put(bench: Bench, *rows: DailyUsage) -> None:
    for row in rows:
        bench.store.daily_usage["default", "ada", row.day, row.model] = row


async def test_turns_add_up_and_so_do_those_whose_cost_is_an_estimate(bench: Bench, report_usage: ReportUsage) -> None:
    bench.llm.script(ScriptedReply(text="One."), ScriptedReply(text="Two.", usage_stated=False))
    first = await bench.say("Hi")
    replies = [first, await bench.say("And you?", first.conversation_id), await bench.say("Something else")]
    report = await report_usage(Caller(), "ada", days=1)
    tokens_input, tokens_output = sum(r.usage.input for r in replies), sum(r.usage.output for r in replies)
    cost = sum((r.cost for r in replies), Decimal(0))
    assert report == UsageReport(
        total_conversations=2,
        total_messages=3,
        total_tokens_input=tokens_input,
        total_tokens_output=tokens_output,
        total_cost=cost,
        estimated_cost=replies[1].cost,
        by_day=[UsageOfDay(TODAY, 3, tokens_input, tokens_output, cost, replies[1].cost)],
        by_model=[UsageOfModel(first.model, 3, tokens_input, tokens_output, cost, replies[1].cost)],
    )
    conversations = await report_usage.by_conversation(Caller(), "ada", days=1)
    assert [(of.conversation_id, of.messages, of.estimated_cost) for of in conversations] == [
        (replies[2].conversation_id, 1, 0),
        (first.conversation_id, 2, replies[1].cost),
    ]


async def test_conversations_and_what_is_left_add_up_to_the_totals_of_the_same_days(
    bench: Bench, report_usage: ReportUsage
) -> None:
    bench.llm.script(*[ScriptedReply(text="One.", usage_stated=number % 2 == 0) for number in range(103)])
    deleted = await bench.say("Hi")
    await bench.textllm.conversations.delete(Caller(), deleted.conversation_id)
    for _ in range(102):
        bench.clock.advance(timedelta(seconds=10))
        await bench.say("Hi")
    used = await report_usage.by_conversation(Caller(), "ada", days=1)
    total = await report_usage(Caller(), "ada", days=1)
    assert len(used) == 101
    assert (used[-1].conversation_id, used[-1].title, used[-1].messages) == (None, None, 3)
    assert sum(of.messages for of in used) == total.total_messages == 103
    assert sum(of.tokens_input for of in used) == total.total_tokens_input
    assert sum(of.tokens_output for of in used) == total.total_tokens_output
    assert sum(of.cost for of in used) == total.total_cost
    assert sum(of.estimated_cost for of in used) == total.estimated_cost > 0


async def test_days_come_oldest_first_and_models_dearest_first(bench: Bench, report_usage: ReportUsage) -> None:
    days = [TODAY - timedelta(days=days) for days in range(3)]
    put(
        bench,
        DailyUsage(days[0], "cheap", 1, 10, 1, Decimal("0.1")),
        DailyUsage(days[2], "cheap", 1, 10, 1, Decimal("0.1")),
        DailyUsage(days[2], "dear", 1, 10, 1, Decimal("0.3")),
        DailyUsage(days[1], "free, much", 0, 20, 1, Decimal(0)),
        DailyUsage(days[1], "free, little", 0, 10, 1, Decimal(0)),
    )
    report = await report_usage(Caller(), "ada", days=3)
    assert [of.day for of in report.by_day] == days[::-1]
    assert [of.cost for of in report.by_day] == [Decimal("0.4"), Decimal(0), Decimal("0.1")]
    assert [of.model for of in report.by_model] == ["dear", "cheap", "free, much", "free, little"]
    assert str(report.total_cost) == "0.5"


@pytest.mark.parametrize(("days", "messages"), [(1, 1), (2, 2), (30, 3), (3660, 4)])
async def test_today_is_the_last_of_the_days(bench: Bench, report_usage: ReportUsage, days: int, messages: int) -> None:
    put(bench, *[DailyUsage(TODAY - timedelta(days=ago), "m", 1, 1, 1, Decimal(1)) for ago in (0, 1, 29, 3659)])
    assert (await report_usage(Caller(), "ada", days=days)).total_messages == messages


async def test_a_user_never_seen_has_zeros(report_usage: ReportUsage) -> None:
    assert await report_usage(Caller(), "nobody", days=30) == UsageReport(0, 0, 0, 0, Decimal(0), Decimal(0), [], [])
    assert await report_usage.by_conversation(Caller(), "nobody", days=30) == []


async def test_nobody_sees_what_another_used(bench: Bench, report_usage: ReportUsage) -> None:
    await bench.say("Hi")
    assert (await report_usage(Caller(tenant_id="other"), "ada", days=1)).total_messages == 0
    assert (await report_usage(BOB, "bob", days=1)).total_messages == 0
    with pytest.raises(NotFoundError):
        await report_usage(BOB, "ada", days=1)
    with pytest.raises(NotFoundError):
        await report_usage.by_conversation(BOB, "ada", days=1)


async def test_without_a_user_it_is_what_all_used_for_whom_the_caller_acts(
    bench: Bench, report_usage: ReportUsage
) -> None:
    of_ada = await bench.say("Hi")
    of_bob = await bench.send_message(Caller(), TextTurn("Hi", user_id="bob"))
    everyone = await report_usage(Caller(), None, days=1)
    assert (everyone.total_conversations, everyone.total_messages) == (2, 2)
    assert everyone.total_cost == of_ada.cost + of_bob.cost
    assert [of.messages for of in everyone.by_day] == [of.messages for of in everyone.by_model] == [2]
    assert await report_usage(BOB, None, days=1) == await report_usage(Caller(), "bob", days=1)
    assert (await report_usage(Caller("other"), None, days=1)).total_messages == 0


@pytest.mark.parametrize(("user_id", "days", "field"), [("ada", 0, "days"), ("ada", 3661, "days"), ("", 1, "user_id")])
async def test_what_cannot_be_is_refused(report_usage: ReportUsage, user_id: str, days: int, field: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        await report_usage(Caller(), user_id, days=days)
    assert [name for name, _ in refusal.value.errors] == [field]
