"""`textllm sessions`: what a user spent, a UTC day each."""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec
import typer

from textllm_cli.commands import options
from textllm_cli.engine import Administration
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import Invocation, invocation_of
from textllm_cli.render import Screen, dollars, outline, reporting, table
from textllm_core.records.sessions import Session
from textllm_core.sessions import MAX_SESSION_DAYS
from textllm_core.tenancy import Caller

app = typer.Typer(no_args_is_help=True, help="Look at sessions: a user's usage in one UTC day each.")

SessionId = Annotated[str, typer.Argument(metavar="ID", help="The session.")]
T = TypeVar("T")


@app.command()
def today(context: typer.Context, as_json: options.Json = False, user: options.User = None) -> None:
    """Show the session of the current UTC day; exit code 3 before its first turn.

    Example: textllm sessions today --json
    """
    with reporting(as_json=as_json) as screen:
        user_id = invocation_of(context).user_id(user)
        _show(screen, _run(context, lambda administration: administration.todays_session(Caller(), user_id)))


@app.command()
def show(context: typer.Context, session_id: SessionId, as_json: options.Json = False) -> None:
    """Show one session.

    Example: textllm sessions show sess_5f0c2b9a7d31e8640c1f9b22
    """
    with reporting(as_json=as_json) as screen:
        _show(screen, _run(context, lambda administration: administration.get_session(Caller(), session_id)))


@app.command()
def end(context: typer.Context, session_id: SessionId, as_json: options.Json = False) -> None:
    """Mark a session as ended. Its day's budget stays spent; the next turn of that day reopens it.

    Example: textllm sessions end sess_5f0c2b9a7d31e8640c1f9b22
    """
    with reporting(as_json=as_json) as screen:
        _show(screen, _run(context, lambda administration: administration.end_session(Caller(), session_id)))


@app.command("list")
def list_(
    context: typer.Context,
    days: Annotated[
        int, typer.Option("--days", min=1, max=MAX_SESSION_DAYS, metavar="N", help="UTC days, today included.")
    ] = 30,
    as_json: options.Json = False,
    user: options.User = None,
) -> None:
    """List the sessions of the last days, newest first.

    Example: textllm sessions list --days 7
    """
    with reporting(as_json=as_json) as screen:
        user_id = invocation_of(context).user_id(user)
        sessions = _run(context, lambda administration: administration.list_sessions(Caller(), user_id, days=days))
        header = ["session", "day", "conversations", "tokens", "cost", "active"]
        if any(session.estimated_cost for session in sessions):
            header.append("estimated")
        screen.record({"data": sessions}, table(header, [_cells(session)[: len(header)] for session in sessions]))


def _run(context: typer.Context, call: Callable[[Administration], Awaitable[T]]) -> T:
    return interruptibly(_called(invocation_of(context), call))


async def _called(invocation: Invocation, call: Callable[[Administration], Awaitable[T]]) -> T:
    settings = invocation.settings()
    async with invocation.engine(settings).open_administration(settings) as administration:
        return await call(administration)


def _show(screen: Screen, session: Session) -> None:
    screen.record(session, outline(msgspec.to_builtins(session)))


def _cells(session: Session) -> tuple[str, ...]:
    return (
        session.id,
        f"{session.created_at:%Y-%m-%d}",
        f"{session.conversation_count:,}",
        f"{session.total_tokens:,}",
        dollars(session.total_cost),
        "yes" if session.is_active else "no",
        dollars(session.estimated_cost),
    )
