"""The books in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from msgspec.structs import replace

from textllm_adapters.memory.store import (
    KeptConversation,
    KeptEnd,
    KeptEstimate,
    KeptHold,
    KeptRepeat,
    KeptSession,
    Key,
    MemoryStore,
)
from textllm_core.errors import (
    ConversationBusyError,
    ConversationNotFoundError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
    ServiceUnavailableError,
)
from textllm_core.ids import new_id
from textllm_core.money import ZERO, exact
from textllm_core.records.conversations import Conversation
from textllm_core.records.journal import JournalEnd
from textllm_core.records.ledger import GIVEN_UP, AlreadySettledError, Hold, Replay, Reservation, Settled, Settlement
from textllm_core.records.messages import Idempotency, Message
from textllm_core.records.sessions import Session, day_of
from textllm_core.records.usage_reports import DailyUsage
from textllm_core.rules.bookkeeping import Before, Moves, booked, change, corrected, settled
from textllm_core.rules.budgets import grant
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
        of_day = (asked.tenant_id, asked.payer_id or asked.user_id, day)
        today = store.sessions.get(of_day) or _opened(asked)
        spent, reserved, session = today.session.total_cost, today.reserved, today.session
        amount = exact(grant(asked.demand, spent=spent, reserved=reserved, day=day))

        conversation = kept.conversation
        before = change(
            session_id=conversation.session_id,
            title=conversation.title,
            message_count=conversation.message_count,
            asked_title=asked.title,
            new_session_id=session.id,
        )
        store.sessions[of_day] = KeptSession(
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
            before=before,
            repeat=repeat,
            is_resumable=asked.is_resumable,
        )
        return hold

    async def ask(self, hold: Hold, *, transcript_id: str | None) -> Hold:
        kept = self.store.holds.get(_key(hold))
        if kept is None:
            raise ServiceUnavailableError(GIVEN_UP)
        asked = replace(kept.hold, is_asked=True, transcript_id=transcript_id)
        self.store.holds[_key(hold)] = replace(kept, hold=asked)
        return asked

    async def pend(self, hold: Hold, *, provider_response_id: str | None, model: str) -> Hold:
        kept = self.store.holds.get(_key(hold))
        if kept is None:
            return replace(hold, provider_response_id=provider_response_id, reported_model=model)
        named = replace(kept.hold, provider_response_id=provider_response_id, reported_model=model)
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
        kept, moves = store.conversations[_conversation_key(hold)], settled(end)
        conversation = replace(
            _moved(kept.conversation, moves),
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
        session = replace(_spent(today.session, moves), last_activity=end.at)
        store.sessions[_session_key(hold)] = KeptSession(session, today.reserved - hold.amount)
        self._add_to_day(hold, end.model, moves)
        store.entries[_key(hold)] = _ended(_pending(hold, end.model), end)
        replay = Replay(end.remembered, conversation.message_count, session.total_cost)
        if ended.repeat is not None:
            store.repeats[ended.repeat.key] = replace(ended.repeat, replay=replay)
        if ended.is_resumable:
            store.ends[_key(hold)] = KeptEnd(JournalEnd(end.end_number, replay), end.at)
        if end.messages:
            store.replies[_key(hold)] = end.messages[-1].id
        if end.open_until is not None:
            open_hold = replace(hold, message=None, provider_response_id=hold.provider_response_id or named)
            store.estimates[_key(hold)] = KeptEstimate(open_hold, end.at, end.open_until)
        return Settled(message_number=conversation.message_count, spent=session.total_cost)

    async def correct(self, hold: Hold, settlement: Settlement) -> Settled | None:
        store, entry = self.store, self.store.entries.get(_key(hold))
        end = None if entry is None else corrected(entry, settlement)
        if entry is None or end is None:
            return None
        new, old = settled(end), booked(entry)
        kept = store.conversations.get(_conversation_key(hold))
        if kept is not None:
            conversation = _moved(kept.conversation, new - old)
            if end.summary is not None:
                conversation = replace(conversation, summary=end.summary.replace("\0", ""))
            reply_id = store.replies.get(_key(hold))
            messages = tuple(_corrected(each, end) if each.id == reply_id else each for each in kept.messages)
            store.conversations[_conversation_key(hold)] = replace(kept, conversation=conversation, messages=messages)
        today = store.sessions[_session_key(hold)]
        session = _spent(today.session, new - old)
        store.sessions[_session_key(hold)] = replace(today, session=session)
        self._add_to_day(hold, entry.model, -old)
        self._add_to_day(hold, end.model, new)
        store.entries[_key(hold)] = _ended(entry, end)
        store.estimates.pop(_key(hold), None)
        return Settled(message_number=0 if kept is None else conversation.message_count, spent=session.total_cost)

    async def estimated(self, *, at: datetime, next_at: datetime, limit: int) -> Sequence[Hold]:
        estimates = self.store.estimates
        for key in [key for key, kept in estimates.items() if kept.until <= at]:
            del estimates[key]
        due = sorted((kept for kept in estimates.values() if kept.next_at <= at), key=_due_of)[:limit]
        for kept in due:
            estimates[_key(kept.hold)] = replace(kept, next_at=next_at)
        return [kept.hold for kept in due]

    def _add_to_day(self, hold: Hold, named: str, moves: Moves) -> None:
        day, model = day_of(hold.created_at), named.replace("\0", "")[:255]
        key = (hold.tenant_id, hold.payer_id or hold.user_id, day, model)
        used = self.store.daily_usage.get(key) or DailyUsage(day, model, 0, 0, 0, ZERO)
        self.store.daily_usage[key] = replace(
            used,
            messages=used.messages + moves.answered,
            input_tokens=used.input_tokens + moves.input_tokens,
            output_tokens=used.output_tokens + moves.output_tokens,
            cost=used.cost + moves.cost,
            estimated_cost=used.estimated_cost + moves.estimated_cost,
        )

    async def release(self, hold: Hold, *, transcripts: Sequence[str] = (), unless_asked: bool = False) -> None:
        store = self.store
        ended = store.holds.get(_key(hold))
        if ended is None or (unless_asked and ended.hold.is_asked):
            return
        hold = store.holds.pop(_key(hold)).hold
        for made in transcripts:
            store.to_erase(hold.tenant_id, hold.user_id, "transcript", made, at=hold.created_at)
        kept = store.conversations[_conversation_key(hold)]
        is_running = kept.turn_id == hold.response_id
        unmade = ended.made_conversation and is_running
        if unmade:
            del store.conversations[_conversation_key(hold)]
        elif is_running:
            conversation = _undone(kept.conversation, ended.before)
            store.conversations[_conversation_key(hold)] = replace(
                kept, conversation=conversation, turn_id=None, turn_until=None
            )
        was_counted = ended.before is not None and ended.before.session_id != hold.session_id
        today = store.sessions[_session_key(hold)]
        session = replace(today.session, conversation_count=today.session.conversation_count - (unmade or was_counted))
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
    return hold.tenant_id, hold.payer_id or hold.user_id, day_of(hold.created_at)


def _lease_of(kept: KeptHold) -> datetime:
    return kept.lease_until


def _undone(conversation: Conversation, before: Before | None) -> Conversation:
    if before is None:
        return conversation
    given = before.given_title and before.given_title.replace("\0", "")
    title = None if conversation.title == given else conversation.title
    return replace(conversation, session_id=before.session_id, title=title)


def _due_of(kept: KeptEstimate) -> datetime:
    return kept.next_at


def _moved(conversation: Conversation, moves: Moves) -> Conversation:
    return replace(
        conversation,
        message_count=conversation.message_count + moves.answered,
        total_tokens_input=conversation.total_tokens_input + moves.input_tokens,
        total_tokens_output=conversation.total_tokens_output + moves.output_tokens,
        total_cost=conversation.total_cost + moves.cost,
    )


def _spent(session: Session, moves: Moves) -> Session:
    return replace(
        session, total_cost=session.total_cost + moves.cost, total_tokens=session.total_tokens + moves.total_tokens
    )


def _ended(entry: LedgerEntry, end: Settlement) -> LedgerEntry:
    return replace(
        entry,
        model=end.model,
        status=end.status,
        estimated=end.estimated,
        answered=end.answered,
        usage=end.usage,
        cost=exact(end.cost),
        price_source=end.price_source,
        service_tier=end.service_tier,
        settled_at=end.at,
        time_to_first_token_ms=entry.time_to_first_token_ms or end.time_to_first_token_ms,
    )


def _corrected(reply: Message, end: Settlement) -> Message:
    if not end.messages:
        return replace(reply, estimated=end.estimated)
    return replace(reply, content=end.messages[-1].content, status=end.messages[-1].status, estimated=end.estimated)


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
    if kept.revision != asked.revision or kept.turn_id is not None:
        raise ConversationBusyError
    return kept


def _opened(asked: Reservation) -> KeptSession:
    session = Session(
        id=new_id("sess"),
        user_id=asked.payer_id or asked.user_id,
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
        payer_id=hold.payer_id,
    )
