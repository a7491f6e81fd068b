"""`textllm usage`: what a user, or all of them, used and paid."""

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer

from textllm_cli.commands import options
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import Invocation, invocation_of
from textllm_cli.render import Screen, comma_separated, dollars, reporting, table
from textllm_core.money import ZERO
from textllm_core.records.usage_reports import UsageOfConversation, UsageOfDay, UsageOfModel
from textllm_core.report_usage import MAX_USAGE_DAYS
from textllm_core.tenancy import Caller

Used: TypeAlias = UsageOfDay | UsageOfModel | UsageOfConversation


class By(StrEnum):
    """What a row of the table is about."""

    DAY = "day"
    MODEL = "model"
    CONVERSATION = "conversation"


def usage(
    context: typer.Context,
    days: Annotated[
        int, typer.Option("--days", min=1, max=MAX_USAGE_DAYS, metavar="N", help="UTC days, today included.")
    ] = 30,
    by: Annotated[
        By, typer.Option("--by", help="Conversations: the newest 100, and in one row what is left.")
    ] = By.DAY,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    as_json: options.Json = False,
    user: options.User = None,
    all_users: Annotated[
        bool, typer.Option("--all-users", help="What all users used together, by day or model.")
    ] = False,
) -> None:
    """Show the answered messages, the tokens and the cost of the last days.

    Example: textllm usage --days 7 --by model
    """
    if as_csv and as_json:
        raise typer.BadParameter("give either --csv or --json, not both")
    if all_users and (user is not None or by is By.CONVERSATION):
        raise typer.BadParameter("--all-users goes neither with --user nor with --by conversation")
    with reporting(as_json=as_json) as screen:
        invocation = invocation_of(context)
        user_id = None if all_users else invocation.user_id(user)
        interruptibly(_usage(invocation, screen, user_id, days=days, by=by, as_csv=as_csv))


async def _usage(invocation: Invocation, screen: Screen, user: str | None, *, days: int, by: By, as_csv: bool) -> None:
    used: Sequence[Used]
    settings = invocation.settings()
    async with invocation.engine(settings).open_administration(settings) as administration:
        if by is By.CONVERSATION and user is not None:
            used = await administration.report_usage.by_conversation(Caller(), user, days=days)
            report: object = {"data": used}
        else:
            report = totals = await administration.report_usage(Caller(), user, days=days)
            used = totals.by_day if by is By.DAY else totals.by_model
    if as_csv:
        screen.result(_csv(by, used))
    else:
        screen.record(report, _table(screen, by, used))


def _csv(by: By, used: Sequence[Used]) -> str:
    header = [by, "messages", "tokens_input", "tokens_output", "cost", "estimated_cost"]
    return comma_separated(header, [[_name(of), *(f"{value:f}" for value in _numbers(of))] for of in used])


def _table(screen: Screen, by: By, used: Sequence[Used]) -> str:
    bars = screen.bars([of.cost for of in used] if any(of.cost for of in used) else [_tokens(of) for of in used])
    notes = [f"{bar}{_title(of)}" for bar, of in zip(bars, used, strict=True)]
    header = [by, "messages", "tokens in", "tokens out", "cost"]
    if any(of.estimated_cost for of in used):
        header.append("estimated")
    totals = [sum(values, ZERO) for values in zip(*map(_numbers, used), strict=True)] or [ZERO] * 5
    rows = [*(_cells(_name(of) or "all others", _numbers(of)) for of in used), _cells("total", totals)]
    return table(header, [row[: len(header)] for row in rows], notes)


def _cells(name: str, numbers: Sequence[Decimal]) -> Sequence[str]:
    messages, tokens_input, tokens_output, *usd = numbers
    return name, f"{messages:,}", f"{tokens_input:,}", f"{tokens_output:,}", *map(dollars, usd)


def _numbers(used: Used) -> Sequence[Decimal]:
    """Messages, tokens read and written, USD, and those of them that are estimated."""
    return [*map(Decimal, (used.messages, used.tokens_input, used.tokens_output)), used.cost, used.estimated_cost]


def _name(used: Used) -> str:
    """Empty: no conversation in particular."""
    match used:
        case UsageOfDay(day=day):
            return day.isoformat()
        case UsageOfModel(model=model):
            return model
        case UsageOfConversation(conversation_id=conversation_id):
            return conversation_id or ""


def _title(used: Used) -> str:
    return " ".join((used.title or "").split()) if isinstance(used, UsageOfConversation) else ""


def _tokens(used: Used) -> Decimal:
    return Decimal(used.tokens_input + used.tokens_output)
