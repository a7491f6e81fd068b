"""Settles the exchanges whose process died, or lost the storage, before it could."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Final

from textllm_core.chat.remains import OUTCOME_WITHIN_S, Remains, remains
from textllm_core.chat.replay import remembered_failure, remembered_reply, reply_to
from textllm_core.chat.running import LEASE
from textllm_core.errors import ProviderError, TextLLMError
from textllm_core.ids import new_id
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.llm import LLM
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.records.conversations import Thread
from textllm_core.records.journal import END_OF_LOST
from textllm_core.records.ledger import Hold
from textllm_core.records.messages import (
    InputFile,
    InputImage,
    Message,
    OutputText,
    Refusal,
    ReplyStarted,
    TextDelta,
    files_of,
)
from textllm_core.records.model import ModelEnded
from textllm_core.track_usage import Outcome, TrackUsage
from textllm_core.usage import Usage, estimated_tokens

RECOVER_EVERY_S: Final = 3.0  # see `LEASE`
_BATCH: Final = 100
_ASKED_AGAIN: Final = timedelta(seconds=15)  # a reply that is still being written takes some seconds more
_INTERRUPTED: Final = "The service was interrupted before this reply was complete."


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Settle abandoned exchanges, by the provider's word or else by an estimate, which its word corrects later.

    Any number of processes may run it at once: an exchange is leased to one of them at a time.
    """

    llm: LLM
    ledger: Ledger
    journal: ReplyJournal
    conversations: ConversationRepository
    track_usage: TrackUsage
    clock: Clock

    async def __call__(self) -> int:
        """How many exchanges were settled, or corrected.

        Raises:
            StorageUnavailableError: what is not settled yet stays for the next run.
        """
        done, now = 0, self.clock.now()
        while holds := await self.ledger.abandoned(at=now, lease_until=now + LEASE, limit=_BATCH):
            for hold, ended in zip(holds, await self._provider_says(holds), strict=True):
                done += await self._settle(hold, ended)
        holds = await self.ledger.estimated(at=now, next_at=now + _ASKED_AGAIN, limit=_BATCH)
        for hold, ended in zip(holds, await self._provider_says(holds), strict=True):
            done += ended is not None and ended.is_final and await self._correct(hold, ended)
        return done

    async def _settle(self, hold: Hold, ended: ModelEnded | None) -> bool:
        if not hold.is_asked:
            await self.ledger.release(hold, unless_asked=True)
            return True
        thread = await self.conversations.thread(hold.tenant_id, hold.conversation_id)
        heard = await self._heard(hold)
        estimate = Usage(input_tokens=hold.input_estimate, output_tokens=estimated_tokens(heard))
        left, is_aside = remains(ended, heard, estimate), hold.kind == "summary"
        keeps_messages = thread is None or thread.keeps_messages
        is_kept = left.is_kept and not is_aside and (hold.message is not None or not keeps_messages)
        # Where ours is the record, what is in doubt is made anew from it, unless the exchange took no part. A provider
        # whose reader is gone may write the reply to its end, and yet not keep it in its conversation.
        known = hold.transcript_id or (thread.transcript_id if thread else None)
        is_dropped = keeps_messages and not is_aside
        charge = await self.track_usage(
            hold,
            Outcome(
                status=left.status,
                usage=left.usage,
                model=hold.reported_model or hold.model,
                estimated=left.estimated,
                service_tier=ended.service_tier if ended else None,
                messages=(hold.message, self._reply(left, ended)) if is_kept and hold.message else (),
                answered=is_kept,
                last_image=hold.message.last_image if is_kept and hold.message else None,
                transcript_id=None if is_dropped else known,
                transcripts=(known,) if known else (),
                context_tokens=_context(hold, left, thread) if is_kept else thread.context_tokens if thread else 0,
                remember=await self._memory(hold, left, ended) or _interrupted,
                summary=left.text.strip() or None if is_aside and left.status == "completed" else None,
                end_number=END_OF_LOST,
                recovered=True,
                is_open=left.is_open,
            ),
        )
        return charge is not None

    async def _correct(self, hold: Hold, ended: ModelEnded) -> bool:
        left = remains(ended, "", Usage(input_tokens=hold.input_estimate))
        is_summary = hold.kind == "summary" and left.status == "completed"
        outcome = Outcome(
            status=left.status,
            usage=left.usage,
            model=hold.reported_model or hold.model,
            estimated=left.estimated,
            service_tier=ended.service_tier,
            messages=(self._reply(left, ended),) if left.text else (),
            transcript_id=None,
            context_tokens=0,
            summary=left.text.strip() or None if is_summary else None,
            remember=await self._memory(hold, left, ended),
            end_number=END_OF_LOST,
            recovered=True,
        )
        return await self.track_usage.correct(hold, outcome) is not None

    def _reply(self, left: Remains, ended: ModelEnded | None) -> Message:
        is_refusal = ended is not None and ended.finish_reason == "refusal"
        return Message(
            id=new_id("msg"),
            role="assistant",
            content=(Refusal(left.text) if is_refusal else OutputText(left.text),),
            created_at=self.clock.now(),
            status="completed" if left.status == "completed" else "incomplete",
            estimated=left.estimated,
        )

    async def _memory(self, hold: Hold, left: Remains, ended: ModelEnded | None) -> Callable[[Decimal], bytes] | None:
        """What a repeat, or a reader who resumes, is told: the provider's own reply; None where it gave none."""
        if ended is None or ended.content_filtered or ended.status not in ("completed", "incomplete"):
            return None
        finish_reason, model, files = ended.finish_reason, hold.reported_model or hold.model, await self._files(hold)
        begun = ReplyStarted(hold.response_id, hold.conversation_id, hold.user_id, hold.session_id, model)

        def remember(cost: Decimal) -> bytes:
            reply = reply_to(
                hold,
                model=model,
                text=left.text,
                finish_reason=finish_reason,
                usage=left.usage,
                cost=cost,
                estimated=left.estimated,
            )
            return remembered_reply(begun, reply, files)

        return remember

    async def _files(self, hold: Hold) -> tuple[InputImage | InputFile, ...]:
        """The images and documents of its turn, for links."""
        if hold.message is not None:
            return files_of(hold.message.content)
        if hold.kind not in ("image", "document"):
            return ()
        said = await self.conversations.last_messages(hold.tenant_id, hold.user_id, hold.conversation_id, limit=None)
        turns = (message for message in said if message.role == "user" and message.created_at == hold.created_at)
        return next((files_of(message.content) for message in turns), ())

    async def _heard(self, hold: Hold) -> str:
        """What is known to have been read of the reply."""
        page = await self.journal.read(hold.tenant_id, hold.user_id, hold.response_id, after=0)
        return "".join(event.text for event in page.events if isinstance(event, TextDelta)) if page else ""

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


def _interrupted(_cost: Decimal) -> bytes:
    return remembered_failure(None, ProviderError(_INTERRUPTED))


def _context(hold: Hold, left: Remains, thread: Thread | None) -> int:
    """An upper bound of the tokens that the conversation has now."""
    if left.status == "completed" and not left.estimated:
        return left.usage.total_tokens
    said = hold.message.text_for_model if hold.message else ""
    past = max(hold.input_estimate, thread.context_tokens if thread else 0)
    return past + len(said.encode()) + len(left.text.encode())
