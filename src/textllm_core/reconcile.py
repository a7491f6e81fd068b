"""Settles the exchanges whose process died, or lost the storage, before it could."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from textllm_core.chat.messages import TextDelta
from textllm_core.chat.replay import remembered_failure
from textllm_core.chat.running import LEASE
from textllm_core.errors import ProviderError, TextLLMError
from textllm_core.ports.clock import Clock
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Hold, Ledger
from textllm_core.ports.llm import LLM, ModelEnded
from textllm_core.ports.reply_journal import ReplyJournal
from textllm_core.track_usage import Outcome, TrackUsage
from textllm_core.usage import Usage, estimated_tokens

_GRACE: Final = timedelta(minutes=10)
_BATCH: Final = 100
_END_OF_LOST: Final = 2**31 - 1  # the last events of a dead process may have been read, and are numbered by nobody
_INTERRUPTED: Final = "The service was interrupted before this reply was complete."


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Settle abandoned exchanges by the provider's word.

    Where it has none, they are estimated: at once if it keeps no responses that could be asked for, else ten minutes
    after their start. Any number of processes may run it at once: an exchange is leased to one of them at a time.
    """

    llm: LLM
    ledger: Ledger
    journal: ReplyJournal
    conversations: ConversationRepository
    track_usage: TrackUsage
    clock: Clock

    async def __call__(self) -> int:
        """How many exchanges were settled.

        Raises:
            StorageUnavailableError: what is not settled yet stays for the next run.
        """
        now = self.clock.now()
        holds = await self.ledger.abandoned(at=now, lease_until=now + LEASE, limit=_BATCH)
        return sum([await self._settle(hold) for hold in holds])

    async def _settle(self, hold: Hold) -> bool:
        ended = await self._provider_says(hold)
        is_over = ended is not None and ended.is_over
        if not is_over and hold.provider_response_id and self.clock.now() - hold.created_at < _GRACE:
            return False
        thread = await self.conversations.thread(hold.tenant_id, hold.conversation_id)
        estimate = await self._estimate(hold)
        usage, estimated = ended.charged(estimate) if ended else (estimate, True)
        known = thread.transcript_id if thread else None
        # In doubt now, unless it took no part: where ours is the record, it is made anew from it.
        is_dropped = thread is not None and thread.keeps_messages and hold.kind != "summary"
        charge = await self.track_usage(
            hold,
            Outcome(
                status="failed",
                usage=usage,
                model=hold.model,
                estimated=estimated,
                service_tier=ended.service_tier if ended else None,
                transcript_id=None if is_dropped else known,
                transcripts=(known,) if known else (),
                context_tokens=thread.context_tokens if thread else 0,
                remember=lambda _cost: remembered_failure(None, ProviderError(_INTERRUPTED)),
                end_number=_END_OF_LOST,
                recovered=True,
            ),
        )
        return charge is not None

    async def _estimate(self, hold: Hold) -> Usage:
        """Tokens of what was certainly sent, and of what is known to have been received."""
        page = await self.journal.read(hold.tenant_id, hold.user_id, hold.response_id, after=0)
        deltas = [event.text for event in page.events if isinstance(event, TextDelta)] if page else []
        return Usage(input_tokens=hold.input_estimate, output_tokens=estimated_tokens(*deltas))

    async def _provider_says(self, hold: Hold) -> ModelEnded | None:
        if hold.provider_response_id is None:
            return None
        try:
            return await self.llm.outcome(hold.provider_response_id)
        except TextLLMError:  # asked again at the next run, until the grace is over
            return None
