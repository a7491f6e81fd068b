"""`textllm ask`: one question, one answer."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from textllm_cli.commands import options
from textllm_cli.invocation import Invocation, invocation_of
from textllm_cli.render import Screen, reporting
from textllm_cli.speaking import Said, Speaker, ask_once
from textllm_cli.uploads import upload_of
from textllm_core.errors import InvalidRequestError
from textllm_core.records.messages import TurnOptions

MAX_STDIN_BYTES: Final = 16_000_000


def ask(
    context: typer.Context,
    text: Annotated[
        str | None, typer.Argument(metavar="TEXT", help="The question; what is piped in comes after it.")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--image", "-i", metavar="IMAGE", exists=True, dir_okay=False, help="Ask about an image, or several."
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", metavar="FILE", exists=True, dir_okay=False, help="Ask about a document."),
    ] = None,
    conversation: options.ConversationId = None,
    latest: options.Continue = False,
    model: options.Model = None,
    prompt: options.Prompt = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print the answer once it is whole.")] = False,
    raw: options.Raw = False,
    as_json: options.Json = False,
    user: options.User = "cli",
) -> None:
    """Ask one question and print the answer."""
    options.only_one(conversation, latest)
    images, files = images or [], files or []
    if len(files) > 1 or (images and files):
        raise typer.BadParameter("give one document, or images alone; what comes next can go on with --continue")
    speaker = Speaker(user, conversation, latest, TurnOptions(model=model, prompt=prompt))
    with reporting(as_json=as_json, raw=raw) as screen:
        question = _question(text)
        if not question:
            raise typer.BadParameter("say what to ask, or pipe it in", param_hint="TEXT")
        said = Said(question, [upload_of(path) for path in images], next(map(upload_of, files), None))
        asyncio.run(_ask(invocation_of(context), speaker, said, screen, is_streamed=not no_stream))


async def _ask(invocation: Invocation, speaker: Speaker, said: Said, screen: Screen, *, is_streamed: bool) -> None:
    settings = invocation.settings()
    if sys.stderr.isatty() and settings.resolved_provider == "embedded":
        for notice in invocation.wiring.notices(settings):
            screen.say(notice)
    is_streamed = is_streamed and settings.stream_responses and not screen.as_json
    async with invocation.wiring.open_textllm(settings, model_progress=screen.model_progress, grace_s=0) as textllm:
        await ask_once(textllm, speaker, said, screen, is_streamed=is_streamed)


def _question(text: str | None) -> str:
    """What was said on the command line, then what was piped in.

    Raises:
        InvalidRequestError: what was piped in is no text, or too much.
    """
    piped = "" if sys.stdin.isatty() else _stdin()
    return "\n\n".join(part for part in (text, piped) if part)


def _stdin() -> str:
    content = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(content) > MAX_STDIN_BYTES:
        raise InvalidRequestError.of("stdin", f"holds more than {MAX_STDIN_BYTES // 1_000_000} MB")
    try:
        return content.decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise InvalidRequestError.of("stdin", f"is not UTF-8 text, from byte {error.start} on") from error
