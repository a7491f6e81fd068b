"""`textllm files`: what a user keeps."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from secrets import token_hex
from typing import Annotated

import typer

from textllm_cli.commands import options
from textllm_cli.engine import Files
from textllm_cli.interrupts import interruptibly
from textllm_cli.invocation import Invocation, invocation_of
from textllm_cli.render import Screen, reporting, table
from textllm_cli.uploads import name_file, upload_of
from textllm_core.errors import InvalidRequestError, TextLLMError
from textllm_core.file_links import FileView
from textllm_core.file_names import Folder
from textllm_core.files import MAX_LISTED
from textllm_core.records.files import StoredFile
from textllm_core.tenancy import Caller

app = typer.Typer(no_args_is_help=True, help="Keep files: upload, list, download and delete them.")

Key = Annotated[str, typer.Argument(metavar="KEY", help="The file's key, as `files list` shows it.")]


@app.command()
def upload(
    context: typer.Context,
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", exists=True, dir_okay=False, readable=True, help="The files.")
    ],
    as_json: options.Json = False,
    user: options.User = None,
) -> None:
    """Upload files; prints their keys.

    Example: textllm files upload report.pdf notes.txt
    """

    async def run(files: Files, screen: Screen) -> None:
        for number, sent in enumerate([upload_of(path) for path in paths]):
            try:
                file = await files.upload(Caller(), sent, user_id=invocation_of(context).user_id(user))
                screen.record(await _view(files, file), file.key)
            except TextLLMError as error:
                if len(paths) > 1:
                    name_file(error, paths[number], untried=paths[number + 1 :])
                raise

    _run(context, run, as_json=as_json)


@app.command("list")
def list_(
    context: typer.Context,
    folder: Annotated[
        Folder,
        typer.Option(
            "--folder",
            help="uploads: what `files upload` sent; documents: what `ask -f` and `/file` did; "
            "chat_images: what `ask -i` and `/image` did.",
        ),
    ] = "uploads",
    limit: Annotated[int, typer.Option("--limit", min=1, max=MAX_LISTED, metavar="N", help="How many.")] = 100,
    after: Annotated[str | None, typer.Option("--after", metavar="KEY", help="Go on behind this file.")] = None,
    as_json: options.Json = False,
    user: options.User = None,
) -> None:
    """List a user's files in one folder, newest first.

    Example: textllm files list --folder documents
    """

    async def run(files: Files, screen: Screen) -> None:
        user_id = invocation_of(context).user_id(user)
        page = await files.list(Caller(), user_id=user_id, folder=folder, limit=limit, after=after)
        views = [await _view(files, file) for file in page.files]
        rows = [_cells(file) for file in page.files]
        screen.record({"data": views, "has_more": page.has_more}, table(("key", "uploaded", "type", "bytes"), rows))
        if page.has_more:
            screen.say(f"there are more; --after {page.files[-1].key} shows them")

    _run(context, run, as_json=as_json)


@app.command()
def download(
    context: typer.Context,
    key: Key,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="Where to: a file, or a folder for its name; - is stdout. Left out: its name here.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Download a file. A file that is there already is replaced only where -o names it.

    Example: textllm files download LLM/uploads/cli/20260314_092653_5a1b2c3d_report.pdf -o report.pdf
    """

    async def run(files: Files, screen: Screen) -> None:
        file = await files.get(Caller(), key)
        pieces = files.read(file)
        if output == "-":
            await _print(pieces)
            return
        target = _target(output, file.name)
        await _save(pieces, target)
        screen.record(await _view(files, file), str(target))

    _run(context, run, as_json=as_json)


@app.command()
def delete(context: typer.Context, key: Key, as_json: options.Json = False) -> None:
    """Delete a file.

    Example: textllm files delete LLM/uploads/cli/20260314_092653_5a1b2c3d_report.pdf
    """

    async def run(files: Files, screen: Screen) -> None:
        await files.delete(Caller(), key)
        screen.record({"success": True, "key": key}, f"deleted {key}")

    _run(context, run, as_json=as_json)


def _run(context: typer.Context, call: Callable[[Files, Screen], Awaitable[None]], *, as_json: bool) -> None:
    async def run(invocation: Invocation, screen: Screen) -> None:
        settings = invocation.settings()
        async with invocation.engine(settings).open_files(settings) as files:
            await call(files, screen)

    with reporting(as_json=as_json) as screen:
        interruptibly(run(invocation_of(context), screen))


async def _view(files: Files, file: StoredFile) -> FileView:
    return FileView.of(file, await files.link(Caller(), file))


def _target(output: str | None, name: str) -> Path:
    """Where a file of this name goes.

    Raises:
        InvalidRequestError: nothing can be written there, or would replace a file that `output` does not name.
    """
    path = Path(output or "")
    try:
        folder = path if path.is_dir() or (output or "").endswith(os.sep) else path.parent
        if not folder.is_dir():
            raise InvalidRequestError(f"There is no folder {folder}.")
        if folder is path:
            path /= name
            if path.exists():
                raise InvalidRequestError(f"{path} is there already; say where to with -o.")
        elif path.exists() and not path.is_file():
            raise InvalidRequestError(f"{path} is no regular file; -o - writes to stdout.")
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


async def _save(pieces: AsyncGenerator[bytes, None], target: Path) -> None:
    """All of them, or nothing.

    Raises:
        InvalidRequestError: the target cannot be written.
    """
    partial = target.with_name(f".{token_hex(8)}.part")
    try:
        try:
            with partial.open("xb") as file:
                async with aclosing(pieces):
                    async for piece in pieces:
                        await asyncio.to_thread(file.write, piece)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(target, error) from error


def _unwritable(path: Path, error: OSError) -> InvalidRequestError:
    return InvalidRequestError(f"{path} cannot be written: {error.strerror}.")


async def _print(pieces: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(pieces):
        async for piece in pieces:
            await asyncio.to_thread(sys.stdout.buffer.write, piece)
    sys.stdout.buffer.flush()


def _cells(file: StoredFile) -> tuple[str, ...]:
    return file.key, f"{file.created_at:%Y-%m-%d %H:%M}", file.content_type, f"{file.size:,}"
