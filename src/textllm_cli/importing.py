"""A file of exported conversations, checked as a whole before the first of them is taken in."""

import shutil
import sys
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Final

from msgspec.structs import asdict

from textllm_cli.engine import Conversations
from textllm_cli.render import Screen
from textllm_cli.speaking import pause
from textllm_cli.uploads import STDIN
from textllm_core.errors import InvalidRequestError, RateLimitedError, TextLLMError
from textllm_core.import_conversation import ExportedConversation, ImportedConversation, read_exported
from textllm_core.tenancy import Caller

_SPOOLED_BYTES: Final = 8 * 1024 * 1024  # of what is piped in; more of it waits on disk
_MOST_FAULTS_SHOWN: Final = 10


@contextmanager
def opened(source: Path) -> Iterator[IO[bytes]]:
    """The file, or what is piped in, which can be read twice then.

    Raises:
        InvalidRequestError: it cannot be opened.
    """
    try:
        file = source.open("rb") if source != STDIN else None
    except OSError as error:
        raise InvalidRequestError(f"{source} cannot be read: {error.strerror}.") from error
    if file is not None and file.seekable():
        with file:
            yield file
        return
    with SpooledTemporaryFile(_SPOOLED_BYTES) as spooled:
        shutil.copyfileobj(file or sys.stdin.buffer, spooled)
        if file is not None:
            file.close()
        yield spooled


def check(file: IO[bytes], *, max_bytes: int) -> int:
    """How many conversations there are in a file, all of which can be.

    Raises:
        InvalidRequestError: some cannot; its text says which, and why.
    """
    count, faults = 0, []
    for number, line in _lines(file, max_bytes=max_bytes):
        count += 1
        try:
            read_exported(line, max_bytes=max_bytes).checked()
        except TextLLMError as error:
            faults.append(f"  line {number}: {error}")
    if faults:
        more = len(faults) - _MOST_FAULTS_SHOWN
        rest = f"\n  and {more} more" if more > 0 else ""
        shown = "\n".join(faults[:_MOST_FAULTS_SHOWN])
        raise InvalidRequestError(
            f"Nothing was imported: {len(faults)} of {count} lines cannot be taken in.\n{shown}{rest}"
        )
    return count


async def take_in(
    manage: Conversations, file: IO[bytes], screen: Screen, *, count: int, max_bytes: int, user_id: str | None
) -> None:
    """Take in each of them; who imports too fast for a server waits.

    Raises:
        TextLLMError: one could not be; those before it are there.
    """
    new = 0
    for done, (number, line) in enumerate(_lines(file, max_bytes=max_bytes)):
        try:
            imported = await _patiently(manage, read_exported(line, max_bytes=max_bytes), user_id, screen)
        except TextLLMError as error:
            before = f" What stands before it is there, {done} in all; run it again to go on." if done else ""
            error.add_note(f"This is about line {number}.{before}")
            raise
        new += imported.is_new
        screen.record({"line": number} | asdict(imported), _in_words(imported))
        if not sys.stdout.isatty():  # which shows them themselves
            screen.progress("imported", done + 1, count)
    screen.say(f"{new} conversations imported, {count - new} were there already")


async def _patiently(
    manage: Conversations, exported: ExportedConversation, user_id: str | None, screen: Screen
) -> ImportedConversation:
    while True:
        try:
            return await manage.import_one(Caller(), exported, user_id=user_id)
        except RateLimitedError as refusal:
            screen.say(f"{refusal} Waiting for {refusal.retry_after_s} s.")
            await pause(refusal.retry_after_s)


def _in_words(imported: ImportedConversation) -> str:
    if not imported.is_new:
        hidden = f"; it is deleted, and `textllm conversations restore {imported.id}` shows it"
        return f"{imported.id} was there already{hidden if imported.is_deleted else ''}"
    if imported.id == imported.imported_from:
        return f"{imported.id} is imported"
    return f"{imported.id} is imported; its own id, {imported.imported_from}, is taken"


def _lines(file: IO[bytes], *, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, with their numbers; of one that is too long, enough to see that it is."""
    file.seek(0)
    number = 0
    while line := file.readline(max_bytes + 2):
        number += 1
        said = line.removesuffix(b"\n").removesuffix(b"\r").removesuffix(b"\x1a")  # an end of DOS
        if number == 1:
            said = said.removeprefix(BOM_UTF8)
        while not line.endswith(b"\n") and (line := file.readline(max_bytes + 2)):
            pass  # the rest of one that is too long
        if said.strip():
            yield number, said
