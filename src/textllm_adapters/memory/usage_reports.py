"""Statistics in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from textllm_adapters.memory.store import MemoryStore
from textllm_core.records.conversations import Conversation
from textllm_core.records.usage_reports import DailyUsage, UsageOfConversation


@dataclass(frozen=True, slots=True)
class MemoryUsageReports:
    """`UsageReports` from a store in memory."""

    store: MemoryStore

    async def daily(self, tenant_id: str, user_id: str, first: date) -> Sequence[DailyUsage]:
        return [
            used
            for (tenant, user, day, _), used in self.store.daily_usage.items()
            if (tenant, user) == (tenant_id, user_id) and day >= first
        ]

    async def conversation_count(self, tenant_id: str, user_id: str, first: date) -> int:
        return len(self._spoken_in(tenant_id, user_id, first))

    async def newest_conversations(
        self, tenant_id: str, user_id: str, first: date, *, limit: int
    ) -> Sequence[UsageOfConversation]:
        found = sorted(self._spoken_in(tenant_id, user_id, first), key=lambda of: (of[0], of[1].updated_at, of[1].id))
        return [_usage(conversation) for _, conversation in reversed(found) if not conversation.is_deleted][:limit]

    def _spoken_in(self, tenant_id: str, user_id: str, first: date) -> Sequence[tuple[date, Conversation]]:
        """The conversations of the period, each with the day of its newest turn."""
        days = {
            kept.session.id: day
            for (tenant, user, day), kept in self.store.sessions.items()
            if (tenant, user) == (tenant_id, user_id) and day >= first
        }
        conversations = (kept.conversation for kept in self.store.conversations.values())
        return [(days[of.session_id], of) for of in conversations if of.session_id in days]


def _usage(conversation: Conversation) -> UsageOfConversation:
    return UsageOfConversation(
        conversation_id=conversation.id,
        title=conversation.title,
        messages=conversation.message_count,
        tokens_input=conversation.total_tokens_input,
        tokens_output=conversation.total_tokens_output,
        cost=conversation.total_cost,
    )
