"""Statistics in memory."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from textllm_adapters.memory.store import KeptConversation, Key, MemoryStore
from textllm_core.money import exact
from textllm_core.records.conversations import Conversation
from textllm_core.records.sessions import day_of
from textllm_core.records.usage_reports import DailyUsage, UsageOfConversation
from textllm_core.rules.bookkeeping import NOTHING, Moves, booked
from textllm_core.rules.books import added
from textllm_core.usage import LedgerEntry


@dataclass(frozen=True, slots=True)
class MemoryUsageReports:
    """`UsageReports` from a store in memory."""

    store: MemoryStore

    async def daily(self, tenant_id: str, user_id: str | None, first: date) -> Sequence[DailyUsage]:
        found = [
            used
            for (tenant, user, day, _), used in self.store.daily_usage.items()
            if tenant == tenant_id and user_id in (None, user) and day >= first
        ]
        return found if user_id is not None else _together(found)

    async def conversation_count(self, tenant_id: str, user_id: str | None, first: date) -> int:
        return len(self._spoken_in(tenant_id, user_id, first))

    async def newest_conversations(
        self, tenant_id: str, user_id: str, first: date, *, limit: int
    ) -> tuple[Sequence[UsageOfConversation], UsageOfConversation]:
        moved: dict[Key, Moves] = defaultdict(lambda: NOTHING)
        for of in self.store.entries.values():
            if (of.tenant_id, of.payer) == (tenant_id, user_id) and _counts(of, first):
                moved[of.tenant_id, of.user_id, of.conversation_id] += booked(of)
        shown = [(kept.conversation, moves) for key, moves in moved.items() if (kept := self._shown(key)) is not None]
        newest = sorted(shown, key=lambda pair: (pair[0].updated_at, pair[0].id), reverse=True)[:limit]
        total = sum(map(_moves, await self.daily(tenant_id, user_id, first)), NOTHING)
        return [_used(of.id, of.title, moves) for of, moves in newest], _used(None, None, total)

    def _shown(self, key: Key) -> KeptConversation | None:
        kept = self.store.conversations.get(key)
        return None if kept is None or kept.conversation.is_deleted or kept.expires_at is not None else kept

    def _spoken_in(self, tenant_id: str, user_id: str | None, first: date) -> Sequence[Conversation]:
        days = {
            kept.session.id
            for (tenant, user, day), kept in self.store.sessions.items()
            if tenant == tenant_id and user_id in (None, user) and day >= first
        }
        conversations = (kept.conversation for kept in self.store.conversations.values())
        return [of for of in conversations if of.session_id in days]


def _together(days: Sequence[DailyUsage]) -> Sequence[DailyUsage]:
    """The same, in one row for each day and model."""
    used: dict[tuple[date, str], DailyUsage] = {}
    for row in days:
        used[row.day, row.model] = added(used.get((row.day, row.model)), row.day, row.model, _moves(row))
    return list(used.values())


def _counts(entry: LedgerEntry, first: date) -> bool:
    return entry.status != "pending" and day_of(entry.created_at) >= first


def _moves(used: DailyUsage) -> Moves:
    return Moves(
        answered=used.messages,
        input_tokens=used.input_tokens,
        output_tokens=used.output_tokens,
        cost=used.cost,
        estimated_cost=used.estimated_cost,
    )


def _used(conversation_id: str | None, title: str | None, moves: Moves) -> UsageOfConversation:
    return UsageOfConversation(
        conversation_id=conversation_id,
        title=title,
        messages=moves.answered,
        tokens_input=moves.input_tokens,
        tokens_output=moves.output_tokens,
        cost=exact(moves.cost),
        estimated_cost=exact(moves.estimated_cost),
    )
