"""`textllm usage`: what a user used and paid."""

from collections.abc import Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer

from textllm_cli.commands import options
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import Invocation, invocation_of
from textllm_cli.render import Screen, comma_separated, dollars, reporting, table
from textllm_core.records.usage_reports import UsageOfConversation, UsageOfDay, UsageOfModel, UsageReport
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
        By, typer.Option("--by", help="Conversations: the newest 100, with all that they ever used.")
    ] = By.DAY,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    as_json: options.Json = False,
    user: options.User = None,
) -> None:
    """Show the answered messages, the tokens and the cost of the last days.

    Example: textllm usage --days 7 --by model
    """
    if as_csv and as_json:
        raise typer.BadParameter("give either --csv or --json, not both")
    with reporting(as_json=as_json) as screen:
        invocation = invocation_of(context)
        interruptibly(_usage(invocation, screen, invocation.user_id(user), days=days, by=by, as_csv=as_csv))


async def _usage(invocation: Invocation, screen: Screen, user: str, *, days: int, by: By, as_csv: bool) -> None:
    used: Sequence[Used]
    totals: UsageReport | None = None
    settings = invocation.settings()
    async with invocation.engine(settings).open_administration(settings) as administration:
        if by is By.CONVERSATION:
            used = await administration.report_usage.by_conversation(Caller(), user, days=days)
        else:
            totals = await administration.report_usage(Caller(), user, days=days)
            used = totals.by_day if by is By.DAY else totals.by_model
    if as_csv:
        screen.result(_csv(by, used))
    else:
        screen.record(totals or {"data": used}, _table(screen, by, used, totals))


def _csv(by: By, used: Sequence[Used]) -> str:
    header = [by, "messages", "tokens_input", "tokens_output", "cost"]
    if by is not By.CONVERSATION:
        header.append("estimated_cost")
    rows = [[_name(of), *(f"{value:f}" for value in _numbers(of))] for of in used]
    return comma_separated(header, rows)


def _table(screen: Screen, by: By, used: Sequence[Used], totals: UsageReport | None) -> str:
    rows = [_cells(_name(of), *_numbers(of)) for of in used]
    bars = screen.bars([of.cost for of in used] if any(of.cost for of in used) else [_tokens(of) for of in used])
    notes = [f"{bar}{_title(of)}" for bar, of in zip(bars, used, strict=True)]
    header = [by, "messages", "tokens in", "tokens out", "cost"]
    if totals is not None:
        total = (totals.total_messages, totals.total_tokens_input, totals.total_tokens_output, totals.total_cost)
        rows.append(_cells("total", *(Decimal(value) for value in total), totals.estimated_cost))
        if totals.estimated_cost:
            header.append("estimated")
    return table(header, [row[: len(header)] for row in rows], notes)


def _cells(name: str, messages: Decimal, tokens_input: Decimal, tokens_output: Decimal, *usd: Decimal) -> Sequence[str]:
    return name, f"{messages:,}", f"{tokens_input:,}", f"{tokens_output:,}", *map(dollars, usd)


def _numbers(used: Used) -> Sequence[Decimal]:
    """Messages, tokens read and written, USD; of days and models, those of them that are estimated."""
    estimated = [] if isinstance(used, UsageOfConversation) else [used.estimated_cost]
    return [*map(Decimal, (used.messages, used.tokens_input, used.tokens_output)), used.cost, *estimated]


def _name(used: Used) -> str:
    match used:
        case UsageOfDay(day=day):
            return day.isoformat()
        case UsageOfModel(model=model):
            return model
        case UsageOfConversation(conversation_id=conversation_id):
            return conversation_id


def _title(used: Used) -> str:
    return " ".join((used.title or "").split()) if isinstance(used, UsageOfConversation) else ""


def _tokens(used: Used) -> Decimal:
    return Decimal(used.tokens_input + used.tokens_output)
