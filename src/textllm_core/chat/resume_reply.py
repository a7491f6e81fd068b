"""Reads a reply again, from where its reader lost it, in whatever process it runs."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from textllm_core.chat.replay import replayed_end
from textllm_core.chat.running import WATCH, Running, RunningExchanges
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.errors import NotFoundError, ProviderError, ServiceUnavailableError, StorageUnavailableError
from textllm_core.policy import ChatPolicy
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.records.journal import END_OF_LOST, JournalPage
from textllm_core.records.messages import ReplyEvent, ReplyFailed, ReplyStarted, TextDelta
from textllm_core.tenancy import Caller

_LOOK_EVERY_S: Final = 0.25  # as often as whoever runs it writes; see `journal.WRITE_EVERY_S`
_REFUSED: Final = "The model was not asked in the end, or has refused this turn; nothing of it is kept."
_PATIENCE_S: Final = 30.0  # with a storage that does not answer: a failover takes about so long


@dataclass(frozen=True, slots=True)
class Resumed:
    """A reply that is read on.

    Args:
        started: its first event, whether or not it is among `events`.
        is_over: nothing follows any more.
        events: those that follow, each with its number, then each new one as it comes. The last one is terminal, unless
            the process that reads it winds down: then they just end, and can be read on elsewhere.
    """

    started: ReplyStarted
    is_over: bool
    events: AsyncGenerator[tuple[int, ReplyEvent], None]


@dataclass(frozen=True, slots=True)
class ResumeReply:
    """Read a resumable reply of the caller's on, while it runs and for a while after its end."""

    running: RunningExchanges
    journal: ReplyJournal
    conversations: ConversationRepository
    files: TurnFiles
    clock: Clock
    policy: ChatPolicy

    async def __call__(self, caller: Caller, response_id: str, *, after: int = 0) -> Resumed:
        """What follows the event numbered `after`; 0 begins with the first.

        Raises:
            NotFoundError: the caller has no such reply, or has it no more, or its conversation is deleted.
            TextLLMError: the reply had failed before it began.
            ServiceUnavailableError: this process is about to end; another one has the reply, too.
            StorageUnavailableError
        """
        here = self.running.find(caller.tenant_id, caller.user_id, response_id)
        if here is not None and await here.log.begun() is not None:
            return Resumed(here.log.first, is_over=False, events=self._linked(caller, self._read_here(here, after)))
        page = await self._first_page(caller, response_id)
        started = page.events[0]
        assert isinstance(started, ReplyStarted)
        if page.end is not None:  # while it runs nothing is deleted
            of = started.conversation_id
            if await self.conversations.state(caller.tenant_id, of, user_id=page.user_id) is None:
                raise _not_here()
        is_over = page.end is not None and page.end.number <= after
        events = self._read_elsewhere(caller.tenant_id, page.user_id, response_id, after)
        return Resumed(started, is_over, self._linked(caller, events))

    async def _first_page(self, caller: Caller, response_id: str) -> JournalPage:
        """What there is so far, once there is anything."""
        while True:
            page = await self.journal.read(caller.tenant_id, caller.user_id, response_id, after=0)
            if page is None:
                raise _not_here()
            if page.events:
                return page
            if page.end is not None:
                end = replayed_end(page.end.replay, ())
                raise end.error if isinstance(end, ReplyFailed) else _not_here()
            if self.running.is_winding_down:
                raise ServiceUnavailableError("The service is shutting down; ask for this reply again.")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _linked(
        self, caller: Caller, events: AsyncGenerator[tuple[int, ReplyEvent], None]
    ) -> AsyncGenerator[tuple[int, ReplyEvent], None]:
        async with aclosing(events):
            async for number, event in events:
                yield number, await self.files.with_links(caller, event)

    async def _read_here(self, running: Running, after: int) -> AsyncGenerator[tuple[int, ReplyEvent], None]:
        self.running.joined(running)
        number = after
        try:
            async with aclosing(running.log.read(after=after)) as events:
                async for event in events:
                    number += 1
                    yield number, event
        finally:
            self.running.left(running)

    async def _read_elsewhere(
        self, tenant_id: str, user_id: str, response_id: str, after: int
    ) -> AsyncGenerator[tuple[int, ReplyEvent], None]:
        loop = asyncio.get_running_loop()
        number, watched_until, gives_up_at = after, 0.0, loop.time() + _PATIENCE_S
        while True:
            try:
                page = await self.journal.read(tenant_id, user_id, response_id, after=number)
                if page is not None and page.end is None and loop.time() >= watched_until:
                    await self.journal.watch(tenant_id, user_id, response_id, until=self.clock.now() + WATCH)
                    watched_until = loop.time() + WATCH.total_seconds() / 2
                ending = await self._ending(tenant_id, user_id, response_id, page, after=number)
            except StorageUnavailableError as error:
                if self.running.is_winding_down:
                    return
                if loop.time() < gives_up_at:
                    await asyncio.sleep(_LOOK_EVERY_S)
                    continue
                yield number + 1, ReplyFailed(response_id, error)
                return
            gives_up_at = loop.time() + _PATIENCE_S
            if page is None:  # it was there just now: a worker of an older version leaves nothing of a refusal
                yield number + 1, ReplyFailed(response_id, ProviderError(_REFUSED, may_have_run=False))
                return
            for event in page.events:
                number += 1
                yield number, event
            for numbered in ending:
                yield numbered
            if page.end is not None:
                return
            if self.running.is_winding_down:
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _ending(
        self, tenant_id: str, user_id: str, response_id: str, page: JournalPage | None, *, after: int
    ) -> list[tuple[int, ReplyEvent]]:
        """What follows the journal's events, and the one numbered `after`; nothing while the exchange runs.

        A reply that the provider itself has told after its process died begins with the text that the journal misses.
        Of that a reader may have seen the first words, of which nobody knows how many: they come again.
        """
        if page is None or page.end is None or page.end.number <= after:
            return []
        warnings = self.policy.warnings(page.end.replay.spent)
        end = replayed_end(page.end.replay, warnings, response_id=response_id)
        if page.end.number < END_OF_LOST or isinstance(end, ReplyFailed) or after == END_OF_LOST - 1:
            return [(page.end.number, end)]
        whole = await self.journal.read(tenant_id, user_id, response_id, after=0)
        heard = "".join(event.text for event in whole.events if isinstance(event, TextDelta)) if whole else ""
        unheard = end.reply.text[len(heard) :] if end.reply.text.startswith(heard) else ""
        return [*([(END_OF_LOST - 1, TextDelta(unheard))] if unheard else []), (END_OF_LOST, end)]


def _not_here() -> NotFoundError:
    return NotFoundError("No such reply, or not any more.")
