"""`textllm conversations`: look at what was said, put it in order, or remove it."""

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Annotated, TypeVar

import msgspec
import typer

from textllm_cli.commands import options
from textllm_cli.invocation import Invocation, invocation_of
from textllm_cli.render import Screen, dollars, outline, reporting, table
from textllm_core.application import Conversations
from textllm_core.conversations import MAX_LISTED, MAX_OFFSET
from textllm_core.list_messages import MAX_MESSAGES
from textllm_core.records.conversations import Conversation, ConversationChanges, ConversationFilter
from textllm_core.tenancy import Caller

app = typer.Typer(no_args_is_help=True, help="Look at conversations, name, tag, sum up, export and delete them.")

ConversationId = Annotated[str, typer.Argument(metavar="ID", help="The conversation.")]
T = TypeVar("T")


class Order(StrEnum):
    """Which messages come first: the oldest, or the newest."""

    ASC = "asc"
    DESC = "desc"


@app.command("list")
def list_(
    context: typer.Context,
    tag: Annotated[str | None, typer.Option("--tag", help="Only those with this tag.")] = None,
    q: Annotated[str | None, typer.Option("--q", metavar="TEXT", help="Only those with this in their title.")] = None,
    deleted: Annotated[bool, typer.Option("--include-deleted", help="Also those that could be restored.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=MAX_LISTED, metavar="N", help="How many.")] = 50,
    offset: Annotated[int, typer.Option("--offset", min=0, max=MAX_OFFSET, metavar="N", help="After how many.")] = 0,
    as_json: options.Json = False,
    user: options.User = "cli",
) -> None:
    """List conversations, the newest turn first."""
    wanted = ConversationFilter(user_id=user, tag=tag, q=q, include_deleted=deleted)
    with reporting(as_json=as_json) as screen:
        page = _run(context, lambda manage: manage.list(Caller(), wanted, limit=limit, offset=offset))
        header = ("conversation", "last turn", "messages", "tokens", "cost")
        screen.record(page, table(header, [_cells(each) for each in page.data], [_note(each) for each in page.data]))
        if offset + len(page.data) < page.total:
            screen.say(f"{page.total} in all; --offset {offset + len(page.data)} shows more")


@app.command()
def show(context: typer.Context, conversation_id: ConversationId, as_json: options.Json = False) -> None:
    """Show one conversation, without its messages."""
    with reporting(as_json=as_json) as screen:
        _show(screen, _run(context, lambda manage: manage.get(Caller(), conversation_id)))


@app.command()
def messages(
    context: typer.Context,
    conversation_id: ConversationId,
    limit: Annotated[int, typer.Option("--limit", min=1, max=MAX_MESSAGES, metavar="N", help="How many.")] = 100,
    order: Annotated[Order, typer.Option("--order", help="The oldest first, or the newest.")] = Order.ASC,
    after: Annotated[
        str | None, typer.Option("--after", metavar="ID", help="From the one behind this message on.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show what was said in a conversation."""
    with reporting(as_json=as_json) as screen:
        page = _run(
            context,
            lambda manage: manage.messages(Caller(), conversation_id, limit=limit, order=order.value, after=after),
        )
        if as_json:
            screen.record(page, "")
            return
        screen.messages(page.data)
        if page.has_more:
            screen.say(f"there is more; --after {page.data[-1].id} shows it")


@app.command()
def rename(
    context: typer.Context,
    conversation_id: ConversationId,
    title: Annotated[str | None, typer.Argument(metavar="[TITLE]", help="The title; without one it has none.")] = None,
    as_json: options.Json = False,
) -> None:
    """Give a conversation another title, or none."""
    with reporting(as_json=as_json) as screen:
        _show(screen, _run(context, _changing(conversation_id, ConversationChanges(title=title))))


@app.command()
def tag(
    context: typer.Context,
    conversation_id: ConversationId,
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG]...", help="All its tags; else none.")] = None,
    as_json: options.Json = False,
) -> None:
    """Give a conversation these tags in place of those that it has."""
    with reporting(as_json=as_json) as screen:
        _show(screen, _run(context, _changing(conversation_id, ConversationChanges(tags=tags or ()))))


@app.command()
def delete(
    context: typer.Context,
    conversation_id: ConversationId,
    hard: Annotated[
        bool, typer.Option("--hard", help="Erase it for good, here and at the provider; nothing brings it back.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Hide a conversation; `restore` shows it again. What it cost stays in the books either way."""
    with reporting(as_json=as_json) as screen:
        deletion = _run(context, lambda manage: manage.delete(Caller(), conversation_id, soft=not hard))
        screen.record(deletion, f"{deletion.id} is {'hidden' if deletion.soft else 'erased'}")


@app.command()
def restore(context: typer.Context, conversation_id: ConversationId, as_json: options.Json = False) -> None:
    """Show a hidden conversation again."""
    with reporting(as_json=as_json) as screen:
        _show(screen, _run(context, lambda manage: manage.restore(Caller(), conversation_id)))


@app.command()
def summarize(context: typer.Context, conversation_id: ConversationId, as_json: options.Json = False) -> None:
    """Have the model sum a conversation up; it costs what a turn costs, and is kept with the conversation."""
    with reporting(as_json=as_json) as screen:
        conversation = asyncio.run(_summarized(invocation_of(context), conversation_id, screen))
        screen.record(conversation, conversation.summary or "")


@app.command()
def export(
    context: typer.Context,
    conversation_id: ConversationId,
    as_json: options.Json = False,
) -> None:
    """Write a conversation and all its messages as one line of JSON: its fields, and `messages`."""
    with reporting(as_json=as_json) as screen:
        screen.json(_run(context, lambda manage: _exported(manage, conversation_id)))


async def _exported(manage: Conversations, conversation_id: str) -> dict[str, object]:
    conversation = await manage.get(Caller(), conversation_id)
    said = [message async for message in manage.messages.every(Caller(), conversation_id)]
    return msgspec.structs.asdict(conversation) | {"messages": said}


def _changing(conversation_id: str, changes: ConversationChanges) -> Callable[[Conversations], Awaitable[Conversation]]:
    return lambda manage: manage.update(Caller(), conversation_id, changes)


def _run(context: typer.Context, call: Callable[[Conversations], Awaitable[T]]) -> T:
    return asyncio.run(_called(invocation_of(context), call))


async def _called(invocation: Invocation, call: Callable[[Conversations], Awaitable[T]]) -> T:
    async with invocation.wiring.open_conversations(invocation.settings()) as manage:
        return await call(manage)


async def _summarized(invocation: Invocation, conversation_id: str, screen: Screen) -> Conversation:
    settings = invocation.settings()
    async with invocation.wiring.open_textllm(settings, model_progress=screen.model_progress, grace_s=0) as textllm:
        return await textllm.summarize_conversation(Caller(), conversation_id)


def _show(screen: Screen, conversation: Conversation) -> None:
    screen.record(conversation, outline(msgspec.to_builtins(conversation)))


def _cells(conversation: Conversation) -> tuple[str, ...]:
    return (
        conversation.id,
        f"{conversation.updated_at:%Y-%m-%d %H:%M}",
        f"{conversation.message_count:,}",
        f"{conversation.total_tokens_input + conversation.total_tokens_output:,}",
        dollars(conversation.total_cost),
    )


def _note(conversation: Conversation) -> str:
    tags = "".join(f" #{tag}" for tag in conversation.tags)
    hidden = " (deleted)" if conversation.is_deleted else ""
    return " ".join(f"{conversation.title or ''}{tags}{hidden}".split())
