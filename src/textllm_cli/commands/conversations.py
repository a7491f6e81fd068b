"""`textllm conversations`: look at what was said, put it in order, or remove it."""

from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import typer

from textllm_cli.commands import options
from textllm_cli.engine import Conversations
from textllm_cli.identifying import whole_id
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import Invocation, invocation_of
from textllm_cli.render import Screen, dollars, outline, reporting, table
from textllm_cli.uploads import STDIN
from textllm_core.conversations import MAX_LISTED, MAX_OFFSET
from textllm_core.import_conversation import ExportedConversation
from textllm_core.list_messages import MAX_MESSAGES
from textllm_core.records.conversations import (
    Conversation,
    ConversationChanges,
    ConversationFilter,
    ConversationPage,
    Deletion,
)
from textllm_core.tenancy import Caller
from textllm_core.uploads import MEGABYTE

app = typer.Typer(
    no_args_is_help=True, help="Look at conversations, find, name, tag, sum up, export, import and delete them."
)

ConversationId = Annotated[
    str, typer.Argument(metavar="ID", help="The conversation; the first characters of its id will do.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=MAX_LISTED, metavar="N", help="How many.")]
Offset = Annotated[int, typer.Option("--offset", min=0, max=MAX_OFFSET, metavar="N", help="After how many.")]
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
    limit: Limit = 50,
    offset: Offset = 0,
    user: options.User = None,
    as_json: options.Json = False,
) -> None:
    """List conversations, the newest turn first.

    Example: textllm conversations list --tag work --limit 10
    """
    with reporting(as_json=as_json) as screen:
        user_id = invocation_of(context).user_id(user)
        wanted = ConversationFilter(user_id=user_id, tag=tag, q=q, include_deleted=deleted)
        _show_page(screen, _run(context, lambda manage: manage.list(Caller(), wanted, limit=limit, offset=offset)))


@app.command()
def show(context: typer.Context, conversation_id: ConversationId, as_json: options.Json = False) -> None:
    """Show one conversation, without its messages.

    Example: textllm conversations show conv_5f0c
    """
    with reporting(as_json=as_json) as screen:
        _show(screen, _run_on(context, conversation_id, lambda manage, whole: manage.get(Caller(), whole)))


@app.command()
def search(
    context: typer.Context,
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help='Words, all in one message; in "quotes" those that follow each other.')
    ],
    limit: Limit = 50,
    offset: Offset = 0,
    user: options.User = None,
    as_json: options.Json = False,
) -> None:
    """Find conversations by what was said in them, the newest turn first.

    Example: textllm conversations search '"longest river" Africa'
    """
    with reporting(as_json=as_json) as screen:
        wanted = ConversationFilter(user_id=invocation_of(context).user_id(user), search=text)
        _show_page(screen, _run(context, lambda manage: manage.list(Caller(), wanted, limit=limit, offset=offset)))


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
    """Show what was said in a conversation.

    Example: textllm conversations messages conv_5f0c --order desc --limit 2
    """
    with reporting(as_json=as_json) as screen:
        page = _run_on(
            context,
            conversation_id,
            lambda manage, whole: manage.messages(Caller(), whole, limit=limit, order=order.value, after=after),
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
    """Give a conversation another title, or none.

    Example: textllm conversations rename conv_5f0c "Rivers of France"
    """
    with reporting(as_json=as_json) as screen:
        _show(screen, _run_on(context, conversation_id, _changing(ConversationChanges(title=title))))


@app.command()
def tag(
    context: typer.Context,
    conversation_id: ConversationId,
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG]...", help="All its tags; else none.")] = None,
    as_json: options.Json = False,
) -> None:
    """Give a conversation these tags in place of those that it has.

    Example: textllm conversations tag conv_5f0c work geography
    """
    with reporting(as_json=as_json) as screen:
        _show(screen, _run_on(context, conversation_id, _changing(ConversationChanges(tags=tags or ()))))


@app.command()
def delete(
    context: typer.Context,
    conversation_id: ConversationId,
    hard: Annotated[
        bool, typer.Option("--hard", help="Erase it for good, here and at the provider; nothing brings it back.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Hide a conversation; `restore` shows it again. What it cost stays in the books either way.

    Example: textllm conversations delete conv_5f0c --hard
    """

    async def run(manage: Conversations) -> Deletion:
        whole = await whole_id(manage, Caller(), conversation_id, include_deleted=hard)
        return await manage.delete(Caller(), whole, soft=not hard)

    with reporting(as_json=as_json) as screen:
        deletion = _run(context, run)
        screen.record(deletion, f"{deletion.id} is {'hidden' if deletion.soft else 'erased'}")


@app.command()
def restore(context: typer.Context, conversation_id: ConversationId, as_json: options.Json = False) -> None:
    """Show a hidden conversation again.

    Example: textllm conversations restore conv_5f0c
    """

    async def run(manage: Conversations) -> Conversation:
        whole = await whole_id(manage, Caller(), conversation_id, include_deleted=True)
        return await manage.restore(Caller(), whole)

    with reporting(as_json=as_json) as screen:
        _show(screen, _run(context, run))


@app.command()
def summarize(context: typer.Context, conversation_id: ConversationId, as_json: options.Json = False) -> None:
    """Have the model sum a conversation up; it costs what a turn costs, and is kept with the conversation.

    Example: textllm conversations summarize conv_5f0c
    """
    with reporting(as_json=as_json) as screen:
        conversation = interruptibly(_summarized(invocation_of(context), conversation_id, screen))
        screen.record(conversation, conversation.summary or "")


@app.command()
def export(
    context: typer.Context,
    conversation_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="The conversation; the first characters of its id will do.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All conversations of a user, a line each.")] = False,
    user: options.User = None,
    as_json: options.Json = False,
) -> None:
    """Write a conversation and all its messages as one line of JSON: its fields, and `messages`.

    Example: textllm conversations export --all > conversations.jsonl
    """
    if every == (conversation_id is not None):
        raise typer.BadParameter("give either the id of a conversation, or --all")
    with reporting(as_json=as_json) as screen:
        invocation = invocation_of(context)
        if conversation_id is not None:
            screen.json(_run_on(context, conversation_id, _exported))
        else:
            user_id = invocation.user_id(user)
            exported = _run(context, lambda manage: _export_all(manage, user_id, screen))
            screen.say(f"{exported} conversations")


@app.command("import")
def import_(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="What `export` wrote; - is stdin.")],
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="Whose they are to be; else whose they were.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Take in conversations that `export` wrote, a line each; nothing is charged.

    All lines are checked before the first is taken in. What is there already stays as it is, so that the same file can
    be imported again. A conversation keeps its id, or gets a new one where that is taken. Files do not come with it.

    Example: textllm conversations import conversations.jsonl
    """
    from textllm_cli import importing  # here, since no other of these commands needs what it loads

    with reporting(as_json=as_json) as screen:
        if source != STDIN and not source.exists():
            raise typer.BadParameter(f"file '{source}' does not exist.", param_hint="IN.jsonl")
        max_bytes = invocation_of(context).settings().max_file_size_mb * MEGABYTE
        with importing.opened(source) as file:
            count = importing.check(file, max_bytes=max_bytes)
            _run(
                context,
                lambda manage: importing.take_in(manage, file, screen, count=count, max_bytes=max_bytes, user_id=user),
            )


async def _export_all(manage: Conversations, user_id: str, screen: Screen) -> int:
    """Write all conversations of a user, those with the oldest turn first; how many there are.

    They are named before the first is written: one that is talked in meanwhile would else move past its page.
    """
    wanted, ids = ConversationFilter(user_id=user_id), list[str]()
    while True:
        page = await manage.list(Caller(), wanted, limit=MAX_LISTED, offset=len(ids))
        ids += [each.id for each in page.data]
        if not page.data or len(ids) >= page.total:
            break
    for conversation_id in reversed(ids):
        screen.json(await _exported(manage, conversation_id))
    return len(ids)


async def _exported(manage: Conversations, conversation_id: str) -> ExportedConversation:
    conversation = await manage.get(Caller(), conversation_id)
    said = [message async for message in manage.messages.every(Caller(), conversation_id)]
    return ExportedConversation(**msgspec.structs.asdict(conversation), messages=said)


def _changing(changes: ConversationChanges) -> Callable[[Conversations, str], Awaitable[Conversation]]:
    return lambda manage, conversation_id: manage.update(Caller(), conversation_id, changes)


def _run_on(context: typer.Context, named: str, call: Callable[[Conversations, str], Awaitable[T]]) -> T:
    """What a call comes to that is about one conversation."""

    async def run(manage: Conversations) -> T:
        return await call(manage, await whole_id(manage, Caller(), named))

    return _run(context, run)


def _run(context: typer.Context, call: Callable[[Conversations], Awaitable[T]]) -> T:
    return interruptibly(_called(invocation_of(context), call))


async def _called(invocation: Invocation, call: Callable[[Conversations], Awaitable[T]]) -> T:
    settings = invocation.settings()
    async with invocation.engine(settings).open_conversations(settings) as manage:
        return await call(manage)


async def _summarized(invocation: Invocation, named: str, screen: Screen) -> Conversation:
    settings = invocation.settings()
    engine = invocation.engine(settings)
    async with engine.open_textllm(settings, model_progress=screen.model_progress, grace_s=0) as talk:
        return await talk.summarize_conversation(Caller(), await whole_id(talk.conversations, Caller(), named))


def _show(screen: Screen, conversation: Conversation) -> None:
    screen.record(conversation, outline(msgspec.to_builtins(conversation)))


def _show_page(screen: Screen, page: ConversationPage) -> None:
    header = ("conversation", "last turn", "messages", "tokens", "cost")
    screen.record(page, table(header, [_cells(each) for each in page.data], [_note(each) for each in page.data]))
    if page.offset + len(page.data) < page.total:
        screen.say(f"{page.total} in all; --offset {page.offset + len(page.data)} shows more")


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
