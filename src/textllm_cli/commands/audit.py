"""`textllm audit`: do the counters say what the ledger says?"""

from collections.abc import AsyncGenerator
from decimal import Decimal
from typing import Annotated

import typer

from textllm_cli.commands import options
from textllm_cli.exit_codes import UNEXPECTED
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import Invocation, invocation_of
from textllm_cli.render import Screen, reporting
from textllm_core.records.audit import BooksSize, Drift


def audit(
    context: typer.Context,
    repair: Annotated[bool, typer.Option("--repair", help="Set right what has drifted.")] = False,
    as_json: options.Json = False,
) -> None:
    """Check every counter against the ledger; safe while the server runs.

    Exit code 1 where the books do not balance, after the repair if there was one.

    Example: textllm audit --repair
    """
    invocation = invocation_of(context)
    with reporting(as_json=as_json) as screen:
        if interruptibly(_audit(invocation, screen, repair=repair)):
            raise typer.Exit(UNEXPECTED)


async def _audit(invocation: Invocation, screen: Screen, *, repair: bool) -> int:
    """How many counters are wrong."""
    settings, host = invocation.host("audit")
    async with host.open_administration(settings) as administration:
        repaired = await _show(administration.audit.repair(), screen, "found") if repair else 0
        drifted = await _show(administration.audit(), screen, "is")
        size = await administration.audit.size()
    summary = {"checked": size, "drifted": drifted, "repaired": repaired}
    screen.record(summary, _summary(size, drifted=drifted, repaired=repaired))
    return drifted


async def _show(drifts: AsyncGenerator[Drift, None], screen: Screen, verb: str) -> int:
    shown = 0
    async for drift in drifts:
        shown += 1
        where = f"{drift.table} {drift.key} of {drift.tenant_id}/{drift.user_id}"
        amounts = f"{verb} {_amount(drift.recorded)}, should be {_amount(drift.actual)}"
        screen.record(drift, f"{where}: {drift.counter} {amounts}")
    return shown


def _amount(value: Decimal | int) -> str:
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def _summary(size: BooksSize, *, drifted: int, repaired: int) -> str:
    rows = f"{size.entries} entries, {size.holds} holds, {size.sessions} sessions, {size.conversations} conversations"
    verdict = f"{drifted} counters have drifted" if drifted else "the books balance"
    return f"checked {rows}: {verdict}" + (f"; {repaired} set right" if repaired else "")
