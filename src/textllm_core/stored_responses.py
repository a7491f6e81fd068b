"""Responses that are asked for again: shown, deleted, cancelled."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from textllm_core.chat.cancel_reply import CancelReply
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.replay import error_of
from textllm_core.chat.respond import Respond
from textllm_core.chat.response_places import Places
from textllm_core.conversations import DeleteConversation
from textllm_core.errors import (
    Charge,
    ConversationBusyError,
    ConversationNotFoundError,
    InvalidRequestError,
    NotFoundError,
    TextLLMError,
)
from textllm_core.list_messages import ListedMessage
from textllm_core.ports.conversation_repository import ConversationRepository
from textllm_core.ports.ledger import Ledger
from textllm_core.ports.stored_responses import StoredResponses
from textllm_core.records.messages import reply_message_id
from textllm_core.records.response_turns import CANCELLED, KeptResponse
from textllm_core.records.stored_responses import ResponseFailure, StoredResponse
from textllm_core.tenancy import Caller

_FAILURE_PAUSES_S: Final = (0.05, 0.1, 0.3, 0.5)  # its failure is written down right behind the end of its events


async def _found(responses: StoredResponses, caller: Caller, response_id: str) -> StoredResponse:
    stored = await responses.get(caller.tenant_id, response_id)
    if stored is None or caller.user_id not in (None, stored.user_id):
        raise no_such_response()
    return stored


def no_such_response() -> NotFoundError:
    """The caller has none of this id."""
    return NotFoundError("No such response, or not any more.")


@dataclass(frozen=True, slots=True)
class GetResponse:
    """A response that is kept, as far as it is."""

    responses: StoredResponses
    conversations: ConversationRepository
    ledger: Ledger

    async def __call__(self, caller: Caller, response_id: str) -> KeptResponse:
        """
        Raises:
            NotFoundError: the caller has no such response, or not any more.
        """
        stored = await _found(self.responses, caller, response_id)
        entry = await self.ledger.entry(caller.tenant_id, response_id)
        key = caller.tenant_id, stored.user_id, stored.conversation_id
        found = await self.conversations.messages_of(*key, [reply_message_id(response_id)])
        return KeptResponse(stored=stored, entry=entry, reply=found[0] if found else None)

    async def why_not_told(self, caller: Caller, response_id: str) -> TextLLMError:
        """Why there are no events of a response: what it failed with before the model began, or that it has none.

        Raises:
            NotFoundError: as a call does.
        """
        kept = await self(caller, response_id)
        for pause in _FAILURE_PAUSES_S:
            if kept.is_over:
                break
            await asyncio.sleep(pause)
            kept = await self(caller, response_id)
        failure = kept.stored.failure
        if failure is None or failure.code == CANCELLED:
            return NotFoundError("This response has no events, or not any more.")
        error = error_of(failure.code, failure.message)
        if (entry := kept.entry) is not None:
            error.charge = Charge(entry.cost, entry.estimated, entry.usage)
        return error

    async def inputs(self, caller: Caller, response_id: str) -> Sequence[ListedMessage]:
        """What it answers, oldest first; nothing until it has ended, and where nothing was kept.

        Raises:
            NotFoundError: as a call does.
        """
        stored = await _found(self.responses, caller, response_id)
        key = caller.tenant_id, stored.user_id, stored.conversation_id
        found = await self.conversations.messages_of(*key, stored.message_ids)
        return [ListedMessage.of(message) for message in found]


@dataclass(frozen=True, slots=True)
class DeleteResponse:
    """Forget a response. With the last one of a conversation that was made for it, all goes that was said there."""

    get: GetResponse
    responses: StoredResponses
    delete_conversation: DeleteConversation

    async def __call__(self, caller: Caller, response_id: str) -> None:
        """
        Raises:
            NotFoundError: as `GetResponse`.
            ConversationBusyError: it is still running.
        """
        kept = await self.get(caller, response_id)
        if not kept.is_over:
            raise ConversationBusyError
        stored = kept.stored
        others = await self.responses.remove(caller.tenant_id, stored.user_id, response_id)
        if others == 0 and not stored.is_of_conversation:
            with suppress(ConversationNotFoundError, ConversationBusyError):  # it expires, if not now
                await self.delete_conversation(caller, stored.conversation_id, soft=False)


@dataclass(frozen=True, slots=True)
class CancelResponse:
    """Cut a response short that runs in the background; what it said by then stays, and is charged."""

    get: GetResponse
    responses: StoredResponses
    cancel_reply: CancelReply

    async def __call__(self, caller: Caller, response_id: str) -> KeptResponse:
        """What it came to; one that had ended is as it was.

        Raises:
            NotFoundError: as `GetResponse`.
            InvalidRequestError: it does not run in the background.
        """
        kept = await self.get(caller, response_id)
        if not kept.stored.is_background:
            raise InvalidRequestError("Only responses that run in the background can be cancelled; close its stream.")
        if kept.is_over:
            return kept
        with suppress(TextLLMError):  # what it failed with, it says itself
            await self.cancel_reply(caller, response_id)
        kept = await self.get(caller, response_id)
        if kept.entry is not None or kept.is_over:
            return kept
        # The model had not begun, and never will.
        failure = ResponseFailure(CANCELLED, "The response was cancelled before it began.")
        await self.responses.fail(caller.tenant_id, kept.stored.user_id, response_id, failure)
        return await self.get(caller, response_id)


@dataclass(frozen=True, slots=True)
class Responses:
    """Turns whose responses can be asked for again."""

    create: Respond
    get: GetResponse
    delete: DeleteResponse
    cancel: CancelResponse

    @classmethod
    def over(
        cls,
        exchange: Exchange,
        conversations: ConversationRepository,
        responses: StoredResponses,
        delete_conversation: DeleteConversation,
        cancel_reply: CancelReply,
    ) -> Self:
        """All of them over one set of adapters."""
        get = GetResponse(responses, conversations, exchange.ledger)
        places = Places(
            conversations=conversations,
            responses=responses,
            ledger=exchange.ledger,
            clock=exchange.clock,
            policy=exchange.policy,
        )
        return cls(
            create=Respond(
                exchange=exchange,
                places=places,
                conversations=conversations,
                responses=responses,
                clock=exchange.clock,
                policy=exchange.policy,
            ),
            get=get,
            delete=DeleteResponse(get, responses, delete_conversation),
            cancel=CancelResponse(get, responses, cancel_reply),
        )
