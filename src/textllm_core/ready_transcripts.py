"""Transcripts that are made ahead, so that the first turn of a conversation waits for the provider once, not twice."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from textllm_core.cancellation import carried_through
from textllm_core.errors import StorageUnavailableError, TextLLMError
from textllm_core.ids import new_id
from textllm_core.ports.clock import Clock
from textllm_core.ports.erasures import Erasures
from textllm_core.ports.transcript import Transcript
from textllm_core.records.erasures import Erasure
from textllm_core.records.messages import Message
from textllm_core.records.model import ReadBlob

NOBODY: Final = "*"  # whose they are: no tenant and no user is called so
_IDLE: Final = timedelta(minutes=10)  # what nobody takes by then is given up: conversations begin too seldom here
# Only a process that died, or stood still, leaves one on the list until then. Long enough that no clock of another
# process is that much ahead; short of the hour beyond which erasures count as put off by a wrong clock.
_FORESEEN: Final = timedelta(minutes=30)
# By then the turn that took it has long written down that it has it, and whatever becomes of it follows from that.
_SETTLES: Final = timedelta(minutes=1)
_ROUND: Final = timedelta(seconds=30)  # how often it is looked for what has aged: many are struck off the list at once
_MAKING_S: Final = 10.0  # a provider that takes longer than that is no help
_GIVING_UP_S: Final = 3.0  # at the end of a process; what is left then, is left to others


class _Ready(NamedTuple):
    """One that is at hand, or was, and since when."""

    foreseen: Erasure
    since: datetime


class ReadyTranscripts:
    """A `Transcript` that has empty ones at hand while it is `kept`; as many as were lately asked for at once.

    Before one is at hand, it is on the list of erasures, for a time by which it was taken or given up: whatever dies
    when, nothing is left at the provider. Who takes one writes that down, as with any other; it is struck off the list
    a while afterwards. If the process dies in between, it is erased under a conversation that goes on, whose side is
    then made anew from our own copy: where there is none (`keeps_messages`), nothing may be made ahead.

    Args:
        most: how many it has at a time.

    Attributes:
        behind: where they are made.
    """

    def __init__(self, transcript: Transcript, erasures: Erasures, clock: Clock, *, most: int) -> None:
        self.behind = transcript
        self._erasures = erasures
        self._clock = clock
        self._most = most
        self._ready: list[_Ready] = []  # oldest first
        self._taken: list[_Ready] = []  # oldest first, and still on the list
        self._ordered = 0  # that are to be made
        self._making = 0  # that are being made
        self._order = asyncio.Event()
        self._looked_at = clock.now()
        self._is_kept = False

    def keeps(self, provider_id: str) -> bool:
        """Keeps `Transcript.keeps`."""
        return self.behind.keeps(provider_id)

    async def create(self, messages: Sequence[Message], *, read: ReadBlob | None = None) -> str:
        """Keeps `Transcript.create`."""
        if messages or not self._is_kept:
            return await self.behind.create(messages, read=read)
        now = self._clock.now()
        newest = self._ready.pop() if self._ready and _is_fresh(self._ready[-1], now) else None
        if len(self._ready) + self._ordered + self._making < self._most:
            self._ordered += 1
            self._order.set()
        if newest is None:
            return await self.behind.create(())
        self._taken.append(newest._replace(since=now))
        return newest.foreseen.provider_id

    async def add(self, transcript_id: str, turn: Sequence[Message], *, read: ReadBlob | None = None) -> bool:
        """Keeps `Transcript.add`."""
        return await self.behind.add(transcript_id, turn, read=read)

    async def messages(self, transcript_id: str) -> Sequence[Message]:
        """Keeps `Transcript.messages`."""
        return await self.behind.messages(transcript_id)

    async def erase(self, transcript_id: str) -> int:
        """Keeps `Transcript.erase`."""
        return await self.behind.erase(transcript_id)

    async def erase_reply(self, provider_response_id: str) -> int:
        """Keeps `Transcript.erase_reply`."""
        return await self.behind.erase_reply(provider_response_id)

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Makes transcripts ahead while the block runs, and gives up at its end what nobody took."""
        keeping = asyncio.create_task(self._keep())
        self._is_kept = True
        try:
            yield
        finally:
            self._is_kept = False
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
            with suppress(TimeoutError, StorageUnavailableError):  # what is left is on the list
                async with asyncio.timeout(_GIVING_UP_S):
                    await self._erasures.done(*(taken.foreseen for taken in self._taken))
                    await asyncio.gather(*(self._give_up(ready) for ready in self._ready))

    async def _keep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_ROUND.total_seconds()):
                    await self._order.wait()
            await carried_through(self.tidy())

    async def tidy(self) -> None:
        """Make what was asked for, and look after what has aged."""
        self._order.clear()
        ordered, self._ordered = self._ordered, 0
        self._making += ordered
        try:
            made = await asyncio.gather(*(self._make() for _ in range(ordered)))
            await self._put_by([transcript_id for transcript_id in made if transcript_id is not None])
        finally:
            self._making -= ordered
        now = self._clock.now()
        if abs(now - self._looked_at) < _ROUND:  # a clock may be set back
            return
        self._looked_at = now
        settled = [taken for taken in self._taken if abs(now - taken.since) >= _SETTLES]
        aged = [ready for ready in self._ready if not _is_fresh(ready, now)]
        self._ready = [ready for ready in self._ready if ready not in aged]
        with suppress(StorageUnavailableError):  # what stays on the list is erased by and by, as it says
            await self._erasures.done(*(taken.foreseen for taken in settled))
            self._taken = [taken for taken in self._taken if taken not in settled]
            await asyncio.gather(*(self._give_up(ready) for ready in aged))

    async def _make(self) -> str | None:
        try:
            async with asyncio.timeout(_MAKING_S):
                return await self.behind.create(())
        except (TextLLMError, TimeoutError):  # a turn that then asks for itself says why
            return None

    async def _put_by(self, made: Sequence[str]) -> None:
        now = self._clock.now()
        ready = [_Ready(_foreseen(transcript_id), now) for transcript_id in made]
        try:
            await self._erasures.foresee([each.foreseen for each in ready], at=now + _FORESEEN)
        except StorageUnavailableError:
            with suppress(TextLLMError):
                await asyncio.gather(*(self.behind.erase(transcript_id) for transcript_id in made))
        else:
            self._ready += ready

    async def _give_up(self, ready: _Ready) -> None:
        with suppress(TextLLMError):  # it is on the list, and erased when its time comes
            await self.behind.erase(ready.foreseen.provider_id)
            await self._erasures.done(ready.foreseen)


def made_now(transcript: Transcript) -> Transcript:
    """The same, but it makes each transcript once it is asked for: the provider has lost one that was made ahead, and
    may have lost all of them.
    """
    return transcript.behind if isinstance(transcript, ReadyTranscripts) else transcript


def _is_fresh(ready: _Ready, now: datetime) -> bool:
    """Whether it is surely not erased yet; one from the future is listed as put off by a wrong clock, and erased."""
    return timedelta(0) <= now - ready.since < _IDLE


def _foreseen(transcript_id: str) -> Erasure:
    return Erasure(
        tenant_id=NOBODY,
        user_id=NOBODY,
        id=new_id("ready"),
        kind="ready",
        provider_id=transcript_id,
        attempts=0,
    )
