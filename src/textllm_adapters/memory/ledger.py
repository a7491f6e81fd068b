"""The books in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from msgspec.structs import replace

from textllm_adapters.memory.store import KeptConversation, KeptEnd, KeptHold, KeptRepeat, KeptSession, Key, MemoryStore
from textllm_core.budgets import grant
from textllm_core.chat.messages import Idempotency
from textllm_core.conversations import Conversation
from textllm_core.errors import (
    ConversationBusyError,
    ConversationNotFoundError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
)
from textllm_core.ids import new_id
from textllm_core.money import ZERO, exact
from textllm_core.ports.ledger import AlreadySettledError, Hold, Replay, Reservation, Settled, Settlement
from textllm_core.ports.reply_journal import JournalEnd
from textllm_core.ports.usage_reports import DailyUsage
from textllm_core.sessions import Session, day_of
from textllm_core.usage import LedgerEntry, Usage


@dataclass(frozen=True, slots=True)
class MemoryLedger:
    """A `Ledger` that is gone with its process."""

    store: MemoryStore

    async def replay(self, tenant_id: str, idempotency: Idempotency) -> Replay | None:
        first = self.store.repeats.get((tenant_id, idempotency.scope, idempotency.key))
        if first is None:
            return None
        if first.fingerprint != idempotency.fingerprint:
            raise IdempotencyMismatchError
        if first.replay is None:
            raise IdempotencyInProgressError
        return first.replay

    async def reserve(self, reservation: Reservation) -> Hold:
        asked, store, day = reservation, self.store, day_of(reservation.at)
        key = (asked.tenant_id, asked.user_id, asked.conversation_id)
        kept = store.conversations.get(key)
        if kept is not None and kept.turn_id == asked.response_id:  # asked again: it got its hold the first time
            return store.holds[asked.tenant_id, asked.user_id, asked.response_id].hold
        if asked.idempotency is not None:
            replay = await self.replay(asked.tenant_id, asked.idempotency)
            if replay is not None:
                raise AlreadySettledError(replay)
        kept = _made(asked) if asked.revision is None and kept is None else _taken(kept, asked)
        today = store.sessions.get((asked.tenant_id, asked.user_id, day)) or _opened(asked)
        spent, reserved, session = today.session.total_cost, today.reserved, today.session
        amount = exact(grant(asked.demand, spent=spent, reserved=reserved, day=day))

        conversation = kept.conversation
        store.sessions[asked.tenant_id, asked.user_id, day] = KeptSession(
            session=replace(
                session,
                is_active=True,
                last_activity=asked.at,
                conversation_count=session.conversation_count + (conversation.session_id != session.id),
            ),
            reserved=reserved + amount,
        )
        store.conversations[key] = replace(
            kept,
            conversation=replace(conversation, session_id=session.id, title=_title(conversation, asked)),
            turn_id=asked.response_id,
            turn_until=asked.lease_until,
        )
        hold = asked.granted(amount, session_id=session.id)
        if (repeat := _repeat(asked)) is not None:
            store.repeats[repeat.key] = repeat
        store.holds[_key(hold)] = KeptHold(
            hold,
            asked.lease_until,
            made_conversation=asked.revision is None,
            repeat=repeat,
            is_resumable=asked.is_resumable,
        )
        return hold

    async def pend(self, hold: Hold, *, provider_response_id: str | None, model: str) -> Hold:
        kept = self.store.holds.get(_key(hold))
        if kept is None:
            return replace(hold, provider_response_id=provider_response_id)
        named = replace(kept.hold, provider_response_id=provider_response_id)
        self.store.holds[_key(hold)] = replace(kept, hold=named)
        self.store.entries[_key(hold)] = _pending(named, model)
        return named

    async def renew(self, holds: Sequence[Hold], *, lease_until: datetime) -> None:
        for hold in holds:
            if (kept := self.store.holds.get(_key(hold))) is not None:
                self._lease(kept, lease_until)

    def _lease(self, kept: KeptHold, lease_until: datetime) -> None:
        self.store.holds[_key(kept.hold)] = replace(kept, lease_until=lease_until)
        conversation = self.store.conversations[_conversation_key(kept.hold)]
        if conversation.turn_id == kept.hold.response_id:
            self.store.conversations[_conversation_key(kept.hold)] = replace(conversation, turn_until=lease_until)

    async def settle(self, hold: Hold, settlement: Settlement) -> Settled | None:
        store, end = self.store, settlement
        ended = store.holds.pop(_key(hold), None)
        if ended is None:
            return None
        named = hold.provider_response_id
        hold = replace(ended.hold, provider_response_id=ended.hold.provider_response_id or named)
        kept = store.conversations[_conversation_key(hold)]
        conversation = replace(
            kept.conversation,
            message_count=kept.conversation.message_count + end.answered,
            total_tokens_input=kept.conversation.total_tokens_input + end.usage.input_tokens,
            total_tokens_output=kept.conversation.total_tokens_output + end.usage.output_tokens,
            total_cost=kept.conversation.total_cost + exact(end.cost),
            updated_at=end.at,
            last_image_url=end.last_image or kept.conversation.last_image_url,
            summary=kept.conversation.summary if end.summary is None else end.summary.replace("\0", ""),
        )
        messages = (*kept.messages, *end.messages)
        kept = replace(kept, conversation=conversation, messages=messages, revision=kept.revision + 1)
        if kept.turn_id == hold.response_id:
            kept = replace(
                kept,
                transcript_id=end.transcript_id,
                context_tokens=end.context_tokens,
                turn_id=None,
                turn_until=None,
            )
        store.conversations[_conversation_key(hold)] = kept
        for known in end.transcripts:
            if known != kept.transcript_id:
                store.to_erase(hold.tenant_id, hold.user_id, "transcript", known, at=end.at)
        today = store.sessions[_session_key(hold)]
        session = replace(
            today.session,
            total_cost=today.session.total_cost + exact(end.cost),
            total_tokens=today.session.total_tokens + end.usage.total_tokens,
            last_activity=end.at,
        )
        store.sessions[_session_key(hold)] = KeptSession(session, today.reserved - hold.amount)
        self._add_to_day(hold, end)
        store.entries[_key(hold)] = replace(
            _pending(hold, end.model),
            status=end.status,
            estimated=end.estimated,
            answered=end.answered,
            usage=end.usage,
            cost=exact(end.cost),
            price_source=end.price_source,
            service_tier=end.service_tier,
            settled_at=end.at,
            time_to_first_token_ms=end.time_to_first_token_ms,
        )
        replay = Replay(end.remembered, conversation.message_count, session.total_cost)
        if ended.repeat is not None:
            store.repeats[ended.repeat.key] = replace(ended.repeat, replay=replay)
        if ended.is_resumable:
            store.ends[_key(hold)] = KeptEnd(JournalEnd(end.end_number, replay), end.at)
        return Settled(message_number=conversation.message_count, spent=session.total_cost)

    def _add_to_day(self, hold: Hold, end: Settlement) -> None:
        day, model = day_of(hold.created_at), end.model.replace("\0", "")[:255]
        key = (hold.tenant_id, hold.user_id, day, model)
        used = self.store.daily_usage.get(key) or DailyUsage(day, model, 0, 0, 0, ZERO)
        self.store.daily_usage[key] = replace(
            used,
            messages=used.messages + end.answered,
            input_tokens=used.input_tokens + end.usage.input_tokens,
            output_tokens=used.output_tokens + end.usage.output_tokens,
            cost=used.cost + exact(end.cost),
            estimated_cost=used.estimated_cost + (exact(end.cost) if end.estimated else ZERO),
        )

    async def release(self, hold: Hold, *, transcripts: Sequence[str] = ()) -> None:
        store = self.store
        ended = store.holds.pop(_key(hold), None)
        if ended is None:
            return
        hold = ended.hold
        for made in transcripts:
            store.to_erase(hold.tenant_id, hold.user_id, "transcript", made, at=hold.created_at)
        kept = store.conversations[_conversation_key(hold)]
        is_running = kept.turn_id == hold.response_id
        unmade = ended.made_conversation and is_running
        if unmade:
            del store.conversations[_conversation_key(hold)]
        elif is_running:
            store.conversations[_conversation_key(hold)] = replace(kept, turn_id=None, turn_until=None)
        today = store.sessions[_session_key(hold)]
        session = replace(today.session, conversation_count=today.session.conversation_count - unmade)
        store.sessions[_session_key(hold)] = KeptSession(session, today.reserved - hold.amount)
        store.entries.pop(_key(hold), None)
        if ended.repeat is not None:
            del store.repeats[ended.repeat.key]

    async def forget_repeats(self, *, before: datetime) -> None:
        repeats = self.store.repeats
        for kept in [kept for kept in repeats.values() if kept.replay is not None and kept.reserved_at < before]:
            del repeats[kept.key]

    async def abandoned(self, *, at: datetime, lease_until: datetime, limit: int) -> Sequence[Hold]:
        dead = sorted((kept for kept in self.store.holds.values() if kept.lease_until < at), key=_lease_of)[:limit]
        for kept in dead:
            self._lease(kept, lease_until)
        return [kept.hold for kept in dead]

    async def entry(self, tenant_id: str, response_id: str) -> LedgerEntry | None:
        found = (entry for key, entry in self.store.entries.items() if (key[0], key[2]) == (tenant_id, response_id))
        return next(found, None)

    async def entries(self, tenant_id: str, user_id: str) -> Sequence[LedgerEntry]:
        found = [
            entry for (tenant, user, _), entry in self.store.entries.items() if (tenant, user) == (tenant_id, user_id)
        ]
        return sorted(found, key=lambda entry: (entry.created_at, entry.response_id))


def _repeat(asked: Reservation) -> KeptRepeat | None:
    idempotency = asked.idempotency
    if idempotency is None:
        return None
    key = asked.tenant_id, idempotency.scope, idempotency.key
    return KeptRepeat(key, idempotency.fingerprint, asked.response_id, asked.at)


def _key(hold: Hold) -> Key:
    return hold.tenant_id, hold.user_id, hold.response_id


def _conversation_key(hold: Hold) -> Key:
    return hold.tenant_id, hold.user_id, hold.conversation_id


def _session_key(hold: Hold) -> tuple[str, str, date]:
    return hold.tenant_id, hold.user_id, day_of(hold.created_at)


def _lease_of(kept: KeptHold) -> datetime:
    return kept.lease_until


def _made(asked: Reservation) -> KeptConversation:
    conversation = Conversation(
        id=asked.conversation_id,
        user_id=asked.user_id,
        session_id=None,
        created_at=asked.at,
        updated_at=asked.at,
        message_count=0,
        total_tokens_input=0,
        total_tokens_output=0,
        total_cost=ZERO,
        title=None,
        summary=None,
        tags=(),
        metadata={},
        is_deleted=False,
    )
    return KeptConversation(conversation, keeps_messages=asked.keeps_messages)


def _title(conversation: Conversation, asked: Reservation) -> str | None:
    if conversation.title is not None or conversation.message_count or asked.title is None:
        return conversation.title
    return asked.title.replace("\0", "")


def _taken(kept: KeptConversation | None, asked: Reservation) -> KeptConversation:
    if kept is None or kept.conversation.is_deleted:
        raise ConversationNotFoundError
    if kept.revision != asked.revision or (kept.turn_until is not None and kept.turn_until >= asked.at):
        raise ConversationBusyError
    return kept


def _opened(asked: Reservation) -> KeptSession:
    session = Session(
        id=new_id("sess"),
        user_id=asked.user_id,
        created_at=asked.at,
        last_activity=asked.at,
        total_tokens=0,
        total_cost=ZERO,
        conversation_count=0,
        is_active=True,
    )
    return KeptSession(session, ZERO)


def _pending(hold: Hold, model: str) -> LedgerEntry:
    return LedgerEntry(
        tenant_id=hold.tenant_id,
        user_id=hold.user_id,
        response_id=hold.response_id,
        conversation_id=hold.conversation_id,
        session_id=hold.session_id,
        kind=hold.kind,
        model=model,
        provider_response_id=hold.provider_response_id,
        status="pending",
        estimated=False,
        answered=False,
        usage=Usage(),
        cost=ZERO,
        price_source="",
        service_tier=None,
        created_at=hold.created_at,
        settled_at=None,
        time_to_first_token_ms=None,
    )
