"""`textllm ask`: one question, one answer."""

import asyncio
import json
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import typer

from textllm_cli.commands import options
from textllm_cli.fences import first_fenced_block
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import Invocation, invocation_of
from textllm_cli.render import Screen, reporting
from textllm_cli.replies import Shown, finish, print_event
from textllm_cli.speaking import Said, Speaker, heard, patiently
from textllm_cli.uploads import STDIN, upload_of
from textllm_core.errors import InvalidRequestError, TextLLMError
from textllm_core.records.messages import ReplyEvent, ReplyStarted, TurnOptions
from textllm_core.records.tools import MAX_NAME_CHARS, JsonSchemaFormat

MAX_STDIN_BYTES: Final = 16_000_000


def _existing(paths: list[Path] | None) -> list[Path] | None:
    """The paths, each of a file that is there, or stdin."""
    for path in paths or ():
        if path != STDIN and not path.exists():
            raise typer.BadParameter(f"file '{path}' does not exist.")
        if path.is_dir():
            raise typer.BadParameter(f"file '{path}' is a directory.")
    return paths


def ask(
    context: typer.Context,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The question; what is piped in comes after it.")
    ] = None,
    images: options.Images = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE|-",
            callback=_existing,
            help="Ask about a document, or several; - is what is piped in.",
        ),
    ] = None,
    conversation: options.ConversationId = None,
    latest: options.Continue = False,
    system: options.System = None,
    model: options.Model = None,
    prompt: options.Prompt = None,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    extract: Annotated[
        bool, typer.Option("--extract", "-x", help="Print the first fenced block of the answer, and nothing else.")
    ] = False,
    schema: Annotated[
        Path | None,
        typer.Option(
            "--schema",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Answer in JSON that keeps the JSON Schema in this file.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Where it is refused for now, wait as long as that asks for, and ask again.")
    ] = False,
    user: options.User = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key", metavar="KEY", help="Safe to send again: a repeat gets the first answer, for a day."
        ),
    ] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print the answer once it is whole.")] = False,
    stream_json: Annotated[
        bool, typer.Option("--stream-json", help="Print the events of the answer as they come, a line of JSON each.")
    ] = False,
    raw: options.Raw = False,
    as_json: options.Json = False,
) -> None:
    """Ask one question and print the answer.

    An answer that was cut short has exit code 7, a refusal 4; both say so on stderr.

    Example: git diff | textllm ask "Write a commit message." -s "One line, no quotes."
    """
    options.only_one(conversation, latest)
    if system is not None and prompt is not None:
        raise typer.BadParameter("give either --system or --prompt, not both")
    if sum((extract, as_json, stream_json)) > 1:
        raise typer.BadParameter("give only one of --extract, --json and --stream-json")
    chosen = TurnOptions(
        model=model,
        prompt=prompt,
        instructions=system,
        max_output_tokens=max_tokens,
        temperature=temperature,
        response_format=None if schema is None else _format_of(schema),
    )
    files, images = files or [], images or []
    with reporting(as_json=as_json or stream_json, raw=raw) as screen:
        question = _question(text, reads_stdin=STDIN not in files)
        if not question:
            raise typer.BadParameter("say what to ask, or pipe it in", param_hint="TEXT")
        pictures, documents = ([upload_of(path, may_be_pipe=True) for path in paths] for paths in (images, files))
        said = Said(question, pictures, documents)
        shown = Shown.EVENTS if stream_json else Shown.WHOLE if extract or no_stream or as_json else Shown.TEXT
        invocation = invocation_of(context)
        settings = invocation.settings()
        if shown is Shown.TEXT and not settings.stream_responses:
            shown = Shown.WHOLE
        speaker = Speaker(invocation.user_id(user), conversation, latest, chosen, idempotency_key)
        interruptibly(_ask(invocation, speaker, said, screen, shown=shown, extract=extract, wait=wait))


async def _ask(
    invocation: Invocation, speaker: Speaker, said: Said, screen: Screen, *, shown: Shown, extract: bool, wait: bool
) -> None:
    settings = invocation.settings()
    if settings.server is None and settings.resolved_provider == "embedded" and sys.stderr.isatty():
        for notice in invocation.load_wiring().notices(settings):
            screen.say(notice)
    engine = invocation.engine(settings)
    async with engine.open_textllm(settings, model_progress=screen.model_progress, grace_s=0) as talk:
        conversation_id = await speaker.first_conversation(talk)
        events = speaker.ask(talk, said, conversation_id)
        if wait:
            events = patiently(lambda: speaker.ask(talk, said, conversation_id), screen.say)
        begun: list[ReplyStarted] = []

        def hear(event: ReplyEvent) -> None:
            if isinstance(event, ReplyStarted):
                begun.append(event)
            print_event(screen, event, shown)

        try:
            with screen.text():
                reply = (await heard(events, hear)).reply
        except asyncio.CancelledError:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # the next Ctrl-C quits at once, whatever is running then
            screen.say("interrupted; settling what it cost (Ctrl-C again leaves at once)")
            for reply_begun in begun:  # one that has not begun is cut short with all that runs
                with suppress(TextLLMError):
                    await talk.cancel_reply(speaker.caller, reply_begun.response_id)
            raise
    if extract:
        block = first_fenced_block(reply.text)
        if block is None:
            at = f"`textllm conversations messages {reply.conversation_id}` shows it"
            raise InvalidRequestError(f"The answer has no fenced block; {at}.")
        screen.delta(block)
        screen.end_text()
        screen.remarks(reply)
    elif shown is not Shown.EVENTS:
        screen.reply(reply, is_printed=shown is Shown.TEXT)
    finish(reply, screen)


def _format_of(path: Path) -> JsonSchemaFormat:
    """What the schema in a file asks for; its title is its name, as providers want one.

    Raises:
        BadParameter: there is none in it.
    """
    try:
        schema = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"'{path}' is not valid JSON in UTF-8.", param_hint="--schema") from error
    if not isinstance(schema, dict):
        raise typer.BadParameter(f"'{path}' must hold a JSON object, as a JSON Schema is one.", param_hint="--schema")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", str(schema.get("title") or "answer")).strip("_")[:MAX_NAME_CHARS]
    return JsonSchemaFormat(name=name or "answer", schema=schema)


def _question(text: str | None, *, reads_stdin: bool) -> str:
    """What was said on the command line, then what was piped in.

    Raises:
        InvalidRequestError: what was piped in is no text, or too much.
    """
    piped = _stdin() if reads_stdin and not sys.stdin.isatty() else ""
    return "\n\n".join(part for part in (text, piped) if part)


def _stdin() -> str:
    content = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(content) > MAX_STDIN_BYTES:
        raise InvalidRequestError.of("stdin", f"holds more than {MAX_STDIN_BYTES // 1_000_000} MB")
    try:
        return content.decode("utf-8-sig").removesuffix("\n")  # PowerShell begins with a byte order mark
    except UnicodeDecodeError as error:
        raise InvalidRequestError.of("stdin", f"is not UTF-8 text, from byte {error.start} on") from error
