"""Writes what resumable replies say to where other processes can read it."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from textllm_core.chat.reply_log import ReplyLog
from textllm_core.errors import StorageUnavailableError
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.records.journal import JournalEntry
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import ReplyCompleted, ReplyFailed, ReplyStarted

WRITE_EVERY_S: Final = 0.25  # what a reader in another process is behind by
_AT_ONCE: Final = 100  # exchanges in one write, for whose end one of them that is settled waits


@dataclass(slots=True)
class _Writing:
    hold: Hold
    log: ReplyLog
    early: ReplyStarted
    early_at: float  # by the clock of the loop
    is_written: bool  # else nobody can resume it: there is nothing to it but its early beginning
    is_begun: bool = False  # its first event is written, or about to be
    is_left: bool = False  # the rest of it is written with its settlement, or is not wanted
    written: int = 0
    under_way: asyncio.Future[None] | None = None  # a write of it, in a round

    def unwritten(self) -> JournalEntry | None:
        """What the terminal event, which comes with the settlement, ends."""
        if not self.is_written:
            return None
        events = self.log.after(self.written)
        spoken = tuple(event for event in events if not isinstance(event, ReplyCompleted | ReplyFailed))
        return JournalEntry(self.hold, self.written + 1, spoken) if spoken else None

    async def settled_down(self) -> None:
        """Wait for a write of it that is under way: none that is older may come after a newer one."""
        while self.under_way is not None:
            await asyncio.wait([self.under_way])


@dataclass(slots=True)
class JournalWriter:
    """Writes the logs of all resumable exchanges of a process together, four times a second, and begins streams.

    What is written of an exchange in any case takes along what there is of its journal: the first event goes with
    `Ledger.pend`, the last ones with `Ledger.settle`. So a short reply costs no write of its own.
    """

    journal: ReplyJournal
    begin_within_s: float
    _open: dict[str, _Writing] = field(default_factory=dict)

    def open(self, hold: Hold, log: ReplyLog, early: ReplyStarted, *, since: float, is_written: bool = True) -> None:
        """Keep the exchange's journal, until it is closed.

        Args:
            early: what is told of the reply where the model does not begin in time.
            since: when its caller began to wait, by the clock of the loop.
            is_written: False: it is not resumable; it is begun in time, and nothing of it is written.
        """
        self._open[hold.response_id] = _Writing(hold, log, early, since + self.begin_within_s, is_written)

    def close(self, hold: Hold) -> None:
        """Write no more of the exchange; nothing where it is not resumable."""
        if (writing := self._open.pop(hold.response_id, None)) is not None:
            writing.is_left = True

    async def stop(self, hold: Hold) -> None:
        """Close the journal of an exchange of which nothing is to be left; nothing of it is written after this."""
        writing = self._open.get(hold.response_id)
        self.close(hold)
        if writing is not None:
            await writing.settled_down()

    async def beginning(self, started: ReplyStarted) -> JournalEntry | None:
        """The first event, to be written before anyone is told of it: who knows of the reply can resume it.

        None of a reply that is not resumable, or that was begun early.
        """
        writing = self._open.get(started.response_id)
        if writing is None:
            return None
        await writing.settled_down()
        if writing.is_begun:
            return None
        writing.is_begun = True
        return JournalEntry(writing.hold, 1, (started,)) if writing.is_written else None

    def begun(self, entry: JournalEntry) -> None:
        """Say that the first event is written."""
        if (writing := self._open.get(entry.hold.response_id)) is not None:
            writing.written = 1

    async def rest(self, hold: Hold) -> JournalEntry | None:
        """What is left to be written, with the exchange's settlement; the rounds write no more of it.

        None where nothing is, or the exchange is not resumable.
        """
        if (writing := self._open.get(hold.response_id)) is None:
            return None
        writing.is_left = True
        await writing.settled_down()
        return writing.unwritten()

    async def write(self) -> None:
        """Write what there is of all open exchanges, and begin those whose callers have waited long enough."""
        writings, now = list(self._open.values()), asyncio.get_running_loop().time()
        with suppress(StorageUnavailableError):  # what is not written yet is part of the next write
            for start in range(0, len(writings), _AT_ONCE):
                await self._write(writings[start : start + _AT_ONCE])
            late = [writing for writing in writings if not writing.is_begun and writing.early_at <= now]
            for start in range(0, len(late), _AT_ONCE):
                await self._begin_early(late[start : start + _AT_ONCE])

    async def _write(self, writings: Sequence[_Writing]) -> None:
        """Write what there is of them."""
        unwritten = [
            (writing, entry)
            for writing in writings
            if not writing.is_left and (entry := writing.unwritten()) is not None
        ]
        await self._put(unwritten)

    async def _begin_early(self, writings: Sequence[_Writing]) -> None:
        """Begin those of them that have not begun meanwhile."""
        late = [writing for writing in writings if not (writing.is_begun or writing.is_left or writing.log.length)]
        for writing in late:
            writing.is_begun = True
            if not writing.is_written:
                writing.log.append(writing.early)
        kept = [writing for writing in late if writing.is_written]
        try:
            await self._put([(writing, JournalEntry(writing.hold, 1, (writing.early,))) for writing in kept])
            for writing in kept:
                writing.log.append(writing.early)
        finally:
            for writing in kept:
                writing.is_begun = bool(writing.written)

    async def _put(self, entries: Sequence[tuple[_Writing, JournalEntry]]) -> None:
        if not entries:
            return
        done = asyncio.get_running_loop().create_future()
        for writing, _ in entries:
            writing.under_way = done
        try:
            await self.journal.write([entry for _, entry in entries])
            for writing, entry in entries:
                writing.written += len(entry.events)
        finally:
            for writing, _ in entries:
                writing.under_way = None
            done.set_result(None)
