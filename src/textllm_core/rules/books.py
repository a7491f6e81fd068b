"""The decisions of the books: what each step of an exchange makes of the accounts it touches. No storage.

A ledger reads the accounts while no one else can move them, asks one of these, and writes what comes back.
"""

from collections.abc import Sequence
from datetime import date, datetime

from msgspec import Struct
from msgspec.structs import replace

from textllm_core.errors import (
    ConversationBusyError,
    ConversationNotFoundError,
    IdempotencyInProgressError,
    IdempotencyMismatchError,
)
from textllm_core.ids import new_id
from textllm_core.money import ZERO, exact
from textllm_core.records.accounts import ConversationAccount, SessionAccount
from textllm_core.records.ledger import Hold, Replay, Reservation, Settled, Settlement
from textllm_core.records.messages import Idempotency
from textllm_core.records.sessions import day_of
from textllm_core.records.usage_reports import DailyUsage
from textllm_core.rules.bookkeeping import Before, Moves, booked, change, settled
from textllm_core.rules.budgets import grant
from textllm_core.usage import LedgerEntry, Usage

MAX_MODEL_CHARS = 255  # of a model's name where it is part of a key


class Opening(Struct, frozen=True):
    """An exchange that may begin; what a release has to put back in a conversation that was there already.

    `last_activity`: likewise, of its session; None: that is made.
    """

    conversation: ConversationAccount
    session: SessionAccount
    hold: Hold
    before: Before | None
    last_activity: datetime | None


class Closing(Struct, frozen=True):
    """An exchange that ended; `dropped`: what the conversation does not go on with on the provider's side."""

    conversation: ConversationAccount
    session: SessionAccount
    settled: Settled
    dropped: Sequence[str]


def replayed(fingerprint: str, replay: Replay | None, idempotency: Idempotency, *, response_id: str) -> Replay:
    """What the exchange that has the key, with this fingerprint and id, came to; `replay` is None while it runs.

    Raises:
        IdempotencyInProgressError, IdempotencyMismatchError: as `Ledger.replay`.
    """
    if fingerprint != idempotency.fingerprint:
        raise IdempotencyMismatchError
    if replay is None:
        raise IdempotencyInProgressError(response_id=response_id)
    return replay


def opening(
    asked: Reservation, conversation: ConversationAccount | None, session: SessionAccount | None, *, has_entry: bool
) -> Opening:
    """Take the conversation, which is made where there is none, and promise money of the session, made likewise.

    Args:
        has_entry: the conversation has an entry in the session; it only matters where its newest turn was in another.
    Raises:
        ConversationNotFoundError, ConversationBusyError, BudgetExceededError: as `Ledger.reserve`.
    """
    known = _taken(asked, conversation)
    today = session or SessionAccount(id=new_id("sess"), last_activity=asked.at)
    amount = exact(grant(asked.demand, spent=today.total_cost, reserved=today.reserved, day=day_of(asked.at)))
    before = change(
        session_id=known.session_id,
        title=known.title,
        message_count=known.message_count,
        asked_title=asked.title,
        new_session_id=today.id,
        has_entry=has_entry,
    )
    given_title = before and before.given_title
    return Opening(
        conversation=replace(
            known,
            session_id=today.id,
            title=_storable(given_title) if given_title else known.title,
            turn_id=asked.response_id,
            turn_until=asked.lease_until,
        ),
        session=replace(
            today,
            is_active=True,
            is_reopened=today.is_reopened or not today.is_active,
            last_activity=asked.at,
            reserved=today.reserved + amount,
            conversation_count=today.conversation_count + (before is not None and before.was_counted),
        ),
        hold=asked.granted(amount, session_id=today.id),
        before=None if asked.revision is None else before,
        last_activity=None if session is None else session.last_activity,
    )


def _taken(asked: Reservation, conversation: ConversationAccount | None) -> ConversationAccount:
    if conversation is None and asked.revision is None:
        return ConversationAccount(updated_at=asked.at)
    if conversation is None or conversation.is_deleted:
        raise ConversationNotFoundError
    if conversation.revision != asked.revision or conversation.turn_id is not None:  # a dead one is settled first
        raise ConversationBusyError
    return conversation


def closing(
    conversation: ConversationAccount, session: SessionAccount, hold: Hold, settlement: Settlement, *, was_ended: bool
) -> Closing:
    """End the exchange: every counter moves, and the conversation is free for the next.

    Args:
        was_ended: the session was ended while the exchange ran, so that it says nothing of whether that is active.
    """
    end, moves = settlement, settled(settlement)
    after = replace(
        _moved(conversation, moves),
        updated_at=end.at,
        last_image_url=end.last_image or conversation.last_image_url,
        summary=_summary(conversation, end),
        title=None if _is_unsaid(conversation, end) else conversation.title,
        revision=conversation.revision + 1,
        last_message=conversation.last_message + len(end.messages),
    )
    if conversation.turn_id == hold.response_id:
        after = replace(
            after,
            transcript_id=end.transcript_id,
            context_tokens=end.context_tokens,
            open_calls=end.open_calls,
            turn_id=None,
            turn_until=None,
        )
    reserved = session.reserved - hold.amount
    is_reopened = session.is_reopened and was_ended
    paid = replace(_spent(session, moves), reserved=reserved, last_activity=end.at, is_reopened=is_reopened)
    return Closing(
        conversation=after,
        session=paid,
        settled=Settled(message_number=after.message_count, spent=paid.total_cost),
        dropped=[known for known in end.transcripts if known != after.transcript_id],
    )


def corrected_accounts(
    conversation: ConversationAccount | None, session: SessionAccount, entry: LedgerEntry, settlement: Settlement
) -> tuple[ConversationAccount | None, SessionAccount]:
    """Both with what the settlement says in the place of what the entry, an estimate, had moved."""
    moves = settled(settlement) - booked(entry)
    if conversation is not None:
        # A summary that comes late sums up what was said until then: since that, nothing may have been said or deleted.
        is_as_it_was = conversation.updated_at == entry.settled_at
        summary = _summary(conversation, settlement) if is_as_it_was else conversation.summary
        conversation = replace(_moved(conversation, moves), summary=summary)
    return conversation, _spent(session, moves)


def released(
    conversation: ConversationAccount,
    session: SessionAccount,
    hold: Hold,
    *,
    made_conversation: bool,
    before: Before | None,
    last_activity: datetime | None,
    has_others: bool,
) -> tuple[ConversationAccount | None, SessionAccount | None]:
    """Both as if the exchange had never been; None: it goes.

    So does a conversation that was made for the exchange, and a session in which no other has an entry, or a hold.

    Args:
        before, last_activity: as `opening` had them.
        has_others: other exchanges are running in the session that it was not ended under; it only matters where it was
            reopened.
    """
    is_counted = made_conversation or (before is not None and before.was_counted)
    freed = _freed(session, hold, last_activity, minus_conversations=int(is_counted))
    if freed is not None and freed.is_reopened and not has_others:  # so that nothing has come of its reopening
        freed = replace(freed, is_active=False, is_reopened=False)
    if conversation.turn_id != hold.response_id:
        return conversation, freed
    if made_conversation:
        return None, freed
    # No other exchange has touched it while this one is still the running one.
    conversation = replace(conversation, turn_id=None, turn_until=None)
    if before is not None:
        is_given = before.given_title is not None and conversation.title == _storable(before.given_title)
        title = None if is_given else conversation.title
        conversation = replace(conversation, session_id=before.session_id, title=title)
    return conversation, freed


def _freed(
    session: SessionAccount, hold: Hold, last_activity: datetime | None, *, minus_conversations: int
) -> SessionAccount | None:
    freed = replace(
        session,
        reserved=session.reserved - hold.amount,
        conversation_count=session.conversation_count - minus_conversations,
    )
    if not (freed.conversation_count or freed.reserved or freed.total_cost or freed.total_tokens):
        return None
    if last_activity is None or session.last_activity != hold.created_at:  # another exchange has moved it since
        return freed
    return replace(freed, last_activity=last_activity)


def pending_entry(hold: Hold, model: str) -> LedgerEntry:
    """The entry of an exchange that the provider took, and names a model for."""
    return LedgerEntry(
        tenant_id=hold.tenant_id,
        user_id=hold.user_id,
        payer_id=hold.payer_id,
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


def settled_entry(hold: Hold, end: Settlement) -> LedgerEntry:
    """The one entry of an exchange that ended."""
    pending = pending_entry(hold, end.model)
    return replace(corrected_entry(pending, end), time_to_first_token_ms=end.time_to_first_token_ms)


def corrected_entry(entry: LedgerEntry, end: Settlement) -> LedgerEntry:
    """The entry with what the settlement says; when its first text came is known since then."""
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
    )


def model_of_day(named: str) -> str:
    """The name under which a day's use of a model is added up."""
    return _storable(named)[:MAX_MODEL_CHARS]


def added(used: DailyUsage | None, day: date, model: str, moves: Moves) -> DailyUsage:
    """A day's use of a model, with what an exchange moves."""
    before = used or DailyUsage(day, model, 0, 0, 0, ZERO)
    return replace(
        before,
        messages=before.messages + moves.answered,
        input_tokens=before.input_tokens + moves.input_tokens,
        output_tokens=before.output_tokens + moves.output_tokens,
        cost=before.cost + moves.cost,
        estimated_cost=before.estimated_cost + moves.estimated_cost,
    )


def _moved(conversation: ConversationAccount, moves: Moves) -> ConversationAccount:
    return replace(
        conversation,
        message_count=conversation.message_count + moves.answered,
        total_tokens_input=conversation.total_tokens_input + moves.input_tokens,
        total_tokens_output=conversation.total_tokens_output + moves.output_tokens,
        total_cost=conversation.total_cost + moves.cost,
    )


def _spent(session: SessionAccount, moves: Moves) -> SessionAccount:
    return replace(
        session, total_cost=session.total_cost + moves.cost, total_tokens=session.total_tokens + moves.total_tokens
    )


def _is_unsaid(conversation: ConversationAccount, end: Settlement) -> bool:
    """Its title is words of a turn that it does not keep."""
    return end.unsaid is not None and not conversation.message_count and conversation.title == _storable(end.unsaid)


def _summary(conversation: ConversationAccount, end: Settlement) -> str | None:
    return conversation.summary if end.summary is None else _storable(end.summary)


def _storable(text: str) -> str:
    return text.replace("\0", "")  # which PostgreSQL cannot hold
