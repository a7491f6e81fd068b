"""Conversations that are made for one turn, as the copy in which another response follows a past one."""

from contextlib import suppress
from datetime import datetime

from msgspec.structs import replace

from textllm_core.chat.exchange import Exchange
from textllm_core.chat.replay import remembered_failure
from textllm_core.errors import ConversationBusyError, ConversationNotFoundError
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.records.messages import Turn
from textllm_core.tenancy import Caller


async def counted(exchange: Exchange, caller: Caller, turn: Turn) -> Turn:
    """The turn, counted in the rate limit before anything is copied for it; a repeat of one that is settled is not.

    Raises:
        RateLimitedError: too many turns.
        TextLLMError: as `Ledger.replay`.
    """
    repeat = turn.idempotency and turn.idempotency.within(caller.user_id)
    if turn.allowance is not None or (repeat and await exchange.ledger.replay(caller.tenant_id, repeat) is not None):
        return turn
    assert turn.user_id is not None
    payer = turn.charged_id or caller.pays_for(turn.user_id) or turn.user_id
    return replace(turn, allowance=await exchange.admission.count(caller, payer))


async def take_back(
    conversations: ConversationRepository, caller: Caller, user_id: str, conversation_id: str, *, at: datetime
) -> None:
    """Erase a conversation in which nothing was said after all: refused turns may be many, and copies long.

    One in which a turn runs whose caller has left stays until it expires.
    """
    gone = remembered_failure(None, ConversationNotFoundError())
    with suppress(ConversationNotFoundError, ConversationBusyError):
        await conversations.erase(caller.tenant_id, user_id, conversation_id, at=at, remembered=gone)
