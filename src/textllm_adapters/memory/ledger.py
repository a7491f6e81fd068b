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
from textllm_core.errors import ServiceUnavailableError
from textllm_core.ids import new_id
from textllm_core.money import ZERO
from textllm_core.records.conversations import Conversation
from textllm_core.records.erasures import ErasureKind
from textllm_core.records.journal import JournalEnd, JournalEntry, RefusedEnd
from textllm_core.records.ledger import (
    GIVEN_UP,
    WRONG_CLOCK_FROM,
    AlreadySettledError,
    Hold,
    Replay,
    Reservation,
    Settled,
    Settlement,
)
from textllm_core.records.messages import Idempotency, Message, reply_message_id
from textllm_core.records.sessions import Session, day_of
from textllm_core.records.stored_responses import ResponseFailure
from textllm_core.rules.bookkeeping import Moves, booked, corrected, of_money_alone, settled
from textllm_core.rules.books import (
    added,
    closing,
    corrected_accounts,
    corrected_entry,
    model_of_day,
    opening,
    pending_entry,
    released,
    replayed,
    settled_entry,
)
from textllm_core.usage import LedgerEntry


@dataclass(frozen=True, slots=True)
class MemoryLedger:
    """A `Ledger` that is gone with its process."""

    store: MemoryStore

    async def replay(self, tenant_id: str, idempotency: Idempotency) -> Replay | None:
        first = self.store.repeats.get((tenant_id, idempotency.scope, idempotency.key))
        if first is None:
            return None
        return replayed(first.fingerprint, first.replay, idempotency, response_id=first.response_id)

    async def reserve(self, reservation: Reservation) -> Hold:
        asked, store = reservation, self.store
        key = (asked.tenant_id, asked.user_id, asked.conversation_id)
        kept = store.conversations.get(key)
        if kept is not None and kept.turn_id == asked.response_id:  # asked again: it got its hold the first time
            return store.holds[asked.tenant_id, asked.user_id, asked.response_id].hold
        if asked.idempotency is not None:
            replay = await self.replay(asked.tenant_id, asked.idempotency)
            if replay is not None:
                raise AlreadySettledError(replay)
        of_day = (asked.tenant_id, asked.payer, day_of(asked.at))
        today = store.sessions.get(of_day)
        opened = opening(
            asked,
            None if kept is None else kept.account,
            None if today is None else today.account,
            has_entry=kept is not None and today is not None and self._has_entry(key, today.session.id),
        )
        store.sessions[of_day] = (today or _new_session(asked)).with_account(opened.session)
        store.conversations[key] = (kept or _new_conversation(asked)).with_account(opened.conversation)
        hold = opened.hold
        if (repeat := _repeat(asked)) is not None:
            store.repeats[repeat.key] = repeat
        store.holds[_key(hold)] = KeptHold(
            hold,
            asked.lease_until,
            made_conversation=asked.revision is None,
            before=opened.before,
            last_activity=opened.last_activity,
            repeat=repeat,
            is_resumable=asked.is_resumable,
        )
        if (stored := asked.stored_response) is not None:
            store.responses[_key(hold)] = stored
        return hold

    def _has_entry(self, conversation: Key, session_id: str) -> bool:
        kept = self.store.conversations[conversation].conversation
        return kept.session_id != session_id and any(  # else nobody needs to know
            (entry.tenant_id, entry.user_id, entry.conversation_id) == conversation and entry.session_id == session_id
            for entry in self.store.entries.values()
        )

    async def ask(self, hold: Hold, *, transcript_id: str | None) -> Hold:
        kept = self.store.holds.get(_key(hold))
        if kept is None:
            raise ServiceUnavailableError(GIVEN_UP)
        asked = replace(kept.hold, is_asked=True, transcript_id=transcript_id, model=hold.model, price=hold.price)
        self.store.holds[_key(hold)] = replace(kept, hold=asked)
        return asked

    async def pend(
        self, hold: Hold, *, provider_response_id: str | None, model: str, said: JournalEntry | None = None
    ) -> Hold:
        kept = self.store.holds.get(_key(hold))
        if kept is None:
            return replace(hold, provider_response_id=provider_response_id, reported_model=model)
        named = replace(kept.hold, provider_response_id=provider_response_id, reported_model=model)
        self.store.holds[_key(hold)] = replace(kept, hold=named)
        self.store.entries[_key(hold)] = pending_entry(named, model)
        self.store.say(said)
        return named

    async def renew(self, holds: Sequence[Hold], *, lease_until: datetime) -> None:
        for hold in holds:
            if (kept := self.store.holds.get(_key(hold))) is not None:
                self._lease(
                    replace(kept, hold=replace(kept.hold, thought=hold.thought, counted=hold.counted)), lease_until
                )

    def _lease(self, kept: KeptHold, lease_until: datetime) -> None:
        self.store.holds[_key(kept.hold)] = replace(kept, lease_until=lease_until)
        conversation = self.store.conversations[_conversation_key(kept.hold)]
        if conversation.turn_id == kept.hold.response_id:
            self.store.conversations[_conversation_key(kept.hold)] = replace(conversation, turn_until=lease_until)

    async def settle(self, hold: Hold, settlement: Settlement, *, said: JournalEntry | None = None) -> Settled | None:
        store, end = self.store, settlement
        ended = store.holds.pop(_key(hold), None)
        if ended is None:
            return None
        hold = replace(ended.hold, provider_response_id=ended.hold.provider_response_id or hold.provider_response_id)
        kept, today = store.conversations[_conversation_key(hold)], store.sessions[_session_key(hold)]
        closed = closing(kept.account, today.account, hold, end, was_ended=ended.was_ended)
        kept = replace(kept, messages=(*kept.messages, *end.messages))
        store.conversations[_conversation_key(hold)] = kept.with_account(closed.conversation)
        store.sessions[_session_key(hold)] = today.with_account(closed.session)
        for known in closed.dropped:
            store.to_erase(hold.tenant_id, hold.user_id, "transcript", known, at=end.at)
        self._add_to_day(hold, end.model, settled(end))
        store.entries[_key(hold)] = settled_entry(hold, end)
        replay = Replay(end.remembered, closed.settled.message_number, closed.settled.spent)
        if ended.repeat is not None:
            store.repeats[ended.repeat.key] = replace(ended.repeat, replay=replay)
        if ended.is_resumable:
            store.ends[_key(hold)] = KeptEnd(JournalEnd(end.end_number, replay), end.at)
            store.say(said)
        if end.is_untold:
            self._forget_response(hold)
        if end.messages:
            store.replies[_key(hold)] = end.messages[-1].id
        if end.open_until is not None:
            store.estimates[_key(hold)] = KeptEstimate(
                replace(hold, message=None, said_before=(), metadata=None), end.at, end.open_until
            )
        return closed.settled

    async def correct(self, hold: Hold, settlement: Settlement, *, said: JournalEntry | None = None) -> Settled | None:
        store, entry = self.store, self.store.entries.get(_key(hold))
        end = None if entry is None else corrected(entry, settlement)
        if entry is None or end is None:
            return None
        kept, today = store.conversations.get(_conversation_key(hold)), store.sessions.get(_session_key(hold))
        if today is None:  # it was too old to be kept, and the entry goes, too
            return None
        conversation, session = corrected_accounts(None if kept is None else kept.account, today.account, entry, end)
        store.sessions[_session_key(hold)] = today.with_account(session)
        if kept is not None and conversation is not None:
            reply_id = store.replies.get(_key(hold))
            if reply_id is None and entry.answered and kept.keeps_messages:
                reply_id, end = reply_message_id(hold.response_id), of_money_alone(end)
            messages = tuple(_corrected(each, end) if each.id == reply_id else each for each in kept.messages)
            kept = replace(kept, messages=messages).with_account(conversation)
            store.conversations[_conversation_key(hold)] = kept
            if end.remembered:
                self._remember_otherwise(hold, end, said)
        self._add_to_day(hold, entry.model, -booked(entry))
        self._add_to_day(hold, end.model, settled(end))
        store.entries[_key(hold)] = corrected_entry(entry, end)
        store.estimates.pop(_key(hold), None)
        return Settled(message_number=conversation.message_count if conversation else 0, spent=session.total_cost)

    def _remember_otherwise(self, hold: Hold, end: Settlement, said: JournalEntry | None) -> None:
        store = self.store
        for key, kept in store.repeats.items():
            if (key[0], kept.response_id) == (hold.tenant_id, hold.response_id) and kept.replay is not None:
                store.repeats[key] = replace(kept, replay=replace(kept.replay, remembered=end.remembered))
        if (ended := store.ends.get(_key(hold))) is not None:
            replay = replace(ended.end.replay, remembered=end.remembered)
            store.ends[_key(hold)] = replace(ended, end=JournalEnd(end.end_number, replay))
            store.say(said)

    async def estimated(self, *, at: datetime, next_at: datetime, limit: int) -> Sequence[Hold]:
        estimates = self.store.estimates
        for key in [key for key, kept in estimates.items() if kept.until <= at]:
            del estimates[key]
        latest = at + WRONG_CLOCK_FROM
        due = sorted((kept for kept in estimates.values() if not at < kept.next_at <= latest), key=_due_of)[:limit]
        for kept in due:
            estimates[_key(kept.hold)] = replace(kept, next_at=next_at)
        return [kept.hold for kept in due]

    def _add_to_day(self, hold: Hold, named: str, moves: Moves) -> None:
        day, model = day_of(hold.created_at), model_of_day(named)
        key = (hold.tenant_id, hold.payer, day, model)
        self.store.daily_usage[key] = added(self.store.daily_usage.get(key), day, model, moves)

    async def release(
        self,
        hold: Hold,
        *,
        transcripts: Sequence[str] = (),
        replies: Sequence[str] = (),
        unless_asked: bool = False,
        failure: ResponseFailure | None = None,
        end: RefusedEnd | None = None,
    ) -> bool:
        store = self.store
        ended = store.holds.get(_key(hold))
        if ended is None or (unless_asked and ended.hold.is_asked):
            return False
        hold = store.holds.pop(_key(hold)).hold
        erased: Sequence[tuple[ErasureKind, Sequence[str]]] = (("transcript", transcripts), ("reply", replies))
        for kind, made in erased:
            for name in made:
                store.to_erase(hold.tenant_id, hold.user_id, kind, name, at=hold.created_at)
        kept, today = store.conversations[_conversation_key(hold)], store.sessions[_session_key(hold)]
        conversation, session = released(
            kept.account,
            today.account,
            hold,
            made_conversation=ended.made_conversation,
            before=ended.before,
            last_activity=ended.last_activity,
            has_others=any(
                kept.hold.session_id == hold.session_id and not kept.was_ended for kept in store.holds.values()
            ),
        )
        if session is None:
            del store.sessions[_session_key(hold)]
        else:
            store.sessions[_session_key(hold)] = today.with_account(session)
        if conversation is None:
            del store.conversations[_conversation_key(hold)]
        else:
            store.conversations[_conversation_key(hold)] = kept.with_account(conversation)
        store.entries.pop(_key(hold), None)
        if store.spoken.pop(_key(hold), None) is not None and end is not None:
            store.ends[_key(hold)] = KeptEnd(JournalEnd(end.number, Replay(end.remembered, 0, ZERO)), end.at)
        self._forget_response(hold)
        if failure is not None and (stored := store.responses.get(_key(hold))) is not None:
            store.responses[_key(hold)] = replace(stored, failure=failure)
        if ended.repeat is not None:
            del store.repeats[ended.repeat.key]
        return True

    def _forget_response(self, hold: Hold) -> None:
        """Nobody was told of it, unless that was done before it began."""
        kept = self.store.responses.get(_key(hold))
        if kept is not None and not kept.is_background:
            del self.store.responses[_key(hold)]

    async def forget_repeats(self, *, before: datetime, limit: int) -> int:
        repeats = self.store.repeats
        old = [kept for kept in repeats.values() if kept.replay is not None and kept.reserved_at < before][:limit]
        for kept in old:
            del repeats[kept.key]
        return len(old)

    async def abandoned(self, *, at: datetime, lease_until: datetime, limit: int) -> Sequence[Hold]:
        holds, latest = self.store.holds.values(), at + WRONG_CLOCK_FROM
        dead = sorted((kept for kept in holds if not at <= kept.lease_until <= latest), key=_lease_of)[:limit]
        for kept in dead:
            self._lease(kept, lease_until)
        return [kept.hold for kept in dead]

    async def entry(self, tenant_id: str, response_id: str, *, user_id: str | None = None) -> LedgerEntry | None:
        found = (entry for key, entry in self.store.entries.items() if (key[0], key[2]) == (tenant_id, response_id))
        return next((entry for entry in found if user_id in (None, entry.user_id)), None)

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
    return hold.tenant_id, hold.payer, day_of(hold.created_at)


def _lease_of(kept: KeptHold) -> datetime:
    return kept.lease_until


def _due_of(kept: KeptEstimate) -> datetime:
    return kept.next_at


def _corrected(reply: Message, end: Settlement) -> Message:
    if not end.messages:
        return replace(reply, estimated=end.estimated)
    told = end.messages[-1]
    reply = replace(reply, content=told.content, status=told.status, finish_reason=told.finish_reason)
    return replace(reply, estimated=end.estimated)


def _new_conversation(asked: Reservation) -> KeptConversation:
    conversation = Conversation.begun(asked.conversation_id, asked.user_id, asked.at)
    return KeptConversation(conversation, keeps_messages=asked.keeps_messages, expires_at=asked.expires_at)


def _new_session(asked: Reservation) -> KeptSession:
    session = Session(
        id=new_id("sess"),
        user_id=asked.payer,
        created_at=asked.at,
        last_activity=asked.at,
        total_tokens=0,
        total_cost=ZERO,
        conversation_count=0,
        is_active=True,
    )
    return KeptSession(session, ZERO)
