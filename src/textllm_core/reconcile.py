"""Settles the exchanges whose process died, or lost the storage, before it could."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from textllm_core.chat.remains import OUTCOME_WITHIN_S
from textllm_core.chat.running import LEASE, RunningExchanges
from textllm_core.chat.settlement import corrected, recovered, refused
from textllm_core.chat.track_usage import TrackUsage
from textllm_core.chat.turn_files import TurnFiles
from textllm_core.errors import ServiceUnavailableError, TextLLMError
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.llm import LLM
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.pricing import Pricing
from textllm_core.records.hosted import HostedItem, ToolStep
from textllm_core.records.journal import END_OF_LOST
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import TextDelta
from textllm_core.records.model import ModelEnded
from textllm_core.records.parts import InputFile, InputImage, file_keys, files_of
from textllm_core.records.stored_responses import ResponseFailure

RECOVER_EVERY_S: Final = 3.0  # see `LEASE`
_BATCH: Final = 100
_NEVER_BEGUN: Final = ResponseFailure(ServiceUnavailableError.code, "The worker ended before the model was asked.")
_ASKED_AGAIN: Final = timedelta(seconds=15)  # a reply that is still being written takes some seconds more


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Settle abandoned exchanges, by the provider's word or else by an estimate, which its word corrects later.

    Any number of processes may run it at once: an exchange is leased to one of them at a time.

    Args:
        running: what this very process carries out is left to it, however late it may seem to be: a clock jumps where
            a machine has slept, or was set.
    """

    llm: LLM
    ledger: Ledger
    journal: ReplyJournal
    conversations: ConversationRepository
    files: TurnFiles
    track_usage: TrackUsage
    pricing: Pricing
    clock: Clock
    running: RunningExchanges

    async def __call__(self) -> int:
        """How many exchanges were settled, or corrected.

        Raises:
            StorageUnavailableError: what is not settled yet stays for the next run.
        """
        done, now = 0, self.clock.now()
        while holds := await self.ledger.abandoned(at=now, lease_until=now + LEASE, limit=_BATCH):
            left = [of for of in holds if self.running.find(of.tenant_id, of.user_id, of.response_id) is None]
            for hold, ended in zip(left, await self._provider_says(left), strict=True):
                done += await self._settle(hold, ended)
        holds = await self.ledger.estimated(at=now, next_at=now + _ASKED_AGAIN, limit=_BATCH)
        for hold, ended in zip(holds, await self._provider_says(holds), strict=True):
            done += ended is not None and ended.is_final and await self._correct(hold, ended)
        return done

    async def _settle(self, hold: Hold, ended: ModelEnded | None) -> bool:
        if not hold.is_asked:
            why, at = ServiceUnavailableError(_NEVER_BEGUN.message).of_nothing(), self.clock.now()
            untold = refused(hold.response_id, why, number=END_OF_LOST, at=at)
            if await self.ledger.release(hold, unless_asked=True, failure=_NEVER_BEGUN, end=untold):
                await self._discard_files(hold)
            return True
        conversation = await self.conversations.state(hold.tenant_id, hold.conversation_id, user_id=hold.user_id)
        heard, tools, is_told = await self._heard(hold)
        files, now = await self._files(hold, ended), self.clock.now()
        end = recovered(
            hold, conversation, heard, ended, files, pricing=self.pricing, at=now, tools=tools, is_told=is_told
        )
        settled = await self.track_usage(hold, end, recovered=True)
        if settled is not None and not end.leaves_files:
            await self._discard_files(hold)
        return settled is not None

    async def _discard_files(self, hold: Hold) -> None:
        """Let go of what was stored for a turn that its conversation knows nothing of."""
        if hold.said and hold.kind in ("image", "document"):
            keys = [key for message in hold.said for key in file_keys(message.content)]
            await self.files.discard(hold.tenant_id, hold.user_id, keys)  # what stays is hidden, and swept

    async def _correct(self, hold: Hold, ended: ModelEnded) -> bool:
        if ended.usage is None:  # it failed; what was received of it was used all the same
            estimate = await self.ledger.entry(hold.tenant_id, hold.response_id, user_id=hold.user_id)
            if estimate is None or estimate.usage.output_tokens:
                return False
        files = await self._files(hold, ended)
        end = corrected(hold, ended, files, pricing=self.pricing, at=self.clock.now())
        return await self.track_usage.correct(hold, end) is not None

    async def _files(self, hold: Hold, ended: ModelEnded | None) -> tuple[InputImage | InputFile, ...]:
        """The images and documents of its turn, for links in its reply."""
        if ended is None or hold.kind not in ("image", "document"):
            return ()
        if hold.message is not None:
            return files_of(hold.message.content)
        said = await self.conversations.last_messages(hold.tenant_id, hold.user_id, hold.conversation_id, limit=None)
        turns = (message for message in said if message.role == "user" and message.created_at == hold.created_at)
        return next((files_of(message.content) for message in turns), ())

    async def _heard(self, hold: Hold) -> tuple[str, Sequence[HostedItem], bool]:
        """What is known to have been read of the reply, and what tools of the provider's are known to have done.

        And whether anybody may have been told of it: once the model has begun, or the journal says so.
        """
        page = await self.journal.read(hold.tenant_id, hold.user_id, hold.response_id, after=0)
        events = page.events if page else ()
        steps = {event.item.id or str(n): event.item for n, event in enumerate(events) if isinstance(event, ToolStep)}
        text = "".join(event.text for event in events if isinstance(event, TextDelta))
        return text, tuple(steps.values()), bool(events) or hold.reported_model is not None

    async def _provider_says(self, holds: Sequence[Hold]) -> Sequence[ModelEnded | None]:
        """What became of each at the provider; None where it does not say, or not in time."""
        return await asyncio.gather(*map(self._outcome, holds))

    async def _outcome(self, hold: Hold) -> ModelEnded | None:
        if hold.provider_response_id is None:
            return None
        try:
            async with asyncio.timeout(OUTCOME_WITHIN_S):
                return await self.llm.outcome(hold.provider_response_id)
        except (TextLLMError, TimeoutError):  # asked again, for as long as the exchange is open
            return None
