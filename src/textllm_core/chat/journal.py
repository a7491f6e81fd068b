"""Writes what resumable replies say to where other processes can read it."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from textllm_core.chat.reply_log import ReplyLog
from textllm_core.errors import StorageUnavailableError
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.records.journal import JournalEntry
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import ReplyStarted, TextDelta

WRITE_EVERY_S: Final = 0.25  # what a reader in another process is behind by
_AT_ONCE: Final = 100  # exchanges in one statement, between which others have their turn


@dataclass(slots=True)
class _Writing:
    hold: Hold
    log: ReplyLog
    early: ReplyStarted
    early_at: float  # by the clock of the loop
    is_begun: bool = False  # its first event is written, or about to be
    written: int = 0

    def unwritten(self) -> JournalEntry | None:
        """What the terminal event, which comes with the settlement, ends."""
        events = self.log.after(self.written)
        spoken = tuple(event for event in events if isinstance(event, ReplyStarted | TextDelta))
        return JournalEntry(self.hold, self.written + 1, spoken) if spoken else None


@dataclass(slots=True)
class JournalWriter:
    """Writes the logs of all resumable exchanges of a process together, four times a second."""

    journal: ReplyJournal
    begin_within_s: float
    _open: dict[str, _Writing] = field(default_factory=dict)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)  # an older write must not come after a newer one

    def open(self, hold: Hold, log: ReplyLog, early: ReplyStarted, *, since: float) -> None:
        """Keep the exchange's journal, until it is closed.

        Args:
            early: what is told of the reply where the model does not begin in time.
            since: when its caller began to wait, by the clock of the loop.
        """
        self._open[hold.response_id] = _Writing(hold, log, early, since + self.begin_within_s)

    def close(self, hold: Hold) -> None:
        """Write no more of the exchange; nothing where it is not resumable."""
        self._open.pop(hold.response_id, None)

    async def stop(self, hold: Hold) -> None:
        """Close the journal of an exchange of which nothing is to be left; nothing of it is written after this."""
        writing = self._open.get(hold.response_id)
        self.close(hold)
        if writing is not None and writing.is_begun:
            async with self._turn:
                pass

    async def begin(self, started: ReplyStarted) -> None:
        """Write the first event before anyone is told of it, so that whoever knows of the reply can resume it.

        Nothing of a reply that is not resumable, or that was begun early.
        """
        writing = self._open.get(started.response_id)
        if writing is not None and writing.is_begun:
            async with self._turn:  # in which that is done, or fails
                pass
        if writing is not None and not writing.is_begun:
            writing.is_begun = True
            with suppress(StorageUnavailableError):  # then it is part of the next write
                await self.journal.write([JournalEntry(writing.hold, 1, (started,))])
                writing.written = 1

    async def write_out(self, response_id: str) -> None:
        """Write what is left of an exchange that is about to be settled; nothing where it is not resumable.

        Raises:
            StorageUnavailableError
        """
        if (writing := self._open.get(response_id)) is not None:
            await self._write_all([writing])

    async def write(self) -> None:
        """Write what there is of all open exchanges, and begin those whose callers have waited long enough."""
        if not self._open:
            return
        with suppress(StorageUnavailableError):  # what is not written yet is part of the next write
            await self._write_all(list(self._open.values()))
            await self._begin_early()

    async def _begin_early(self) -> None:
        now = asyncio.get_running_loop().time()
        async with self._turn:
            late = [writing for writing in self._open.values() if not writing.is_begun and writing.early_at <= now]
            for writing in late:
                writing.is_begun = True
            try:
                for start in range(0, len(late), _AT_ONCE):
                    batch = late[start : start + _AT_ONCE]
                    await self.journal.write([JournalEntry(writing.hold, 1, (writing.early,)) for writing in batch])
                    for writing in batch:
                        writing.written = 1
                        writing.log.append(writing.early)
            finally:
                for writing in late:
                    writing.is_begun = bool(writing.written)

    async def _write_all(self, writings: list[_Writing]) -> None:
        async with self._turn:
            unwritten = [(writing, entry) for writing in writings if (entry := writing.unwritten()) is not None]
            for start in range(0, len(unwritten), _AT_ONCE):
                batch = unwritten[start : start + _AT_ONCE]
                await self.journal.write([entry for _, entry in batch])
                for writing, entry in batch:
                    writing.written += len(entry.events)
