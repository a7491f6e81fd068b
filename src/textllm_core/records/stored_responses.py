"""Responses that can be asked for again: what is kept of one beside its messages and its entry in the ledger."""

from datetime import datetime

from textllm_core.records.conversations import ConversationState
from textllm_core.wire import Record


class ResponseFailure(Record, frozen=True):
    """Why a response failed: a code of ours, and what its caller was told."""

    code: str
    message: str


class AskedResponse(Record, frozen=True, kw_only=True):
    """What is kept of a response from its admission on, so that it can be asked for again.

    Args:
        message_ids: of the messages that it answers, oldest first.
        asked: JSON of what is told of the request, for whoever shows it: nothing here reads it.
        is_background: nobody waits for it.
        is_of_conversation: its conversation was named; else it was made for it and for those that follow.
    """

    message_ids: tuple[str, ...]
    asked: str
    is_background: bool = False
    is_of_conversation: bool = False


class StoredResponse(AskedResponse, frozen=True, kw_only=True):
    """A response that can be asked for again, for as long as its conversation is there.

    Args:
        id: that of its exchange and its reply.
        created_at: the time of its turn.
        failure: None: it did not fail, or not yet.
    """

    tenant_id: str
    user_id: str
    id: str
    conversation_id: str
    created_at: datetime
    failure: ResponseFailure | None = None


class FollowedResponse(Record, frozen=True, kw_only=True):
    """A response that another one is to follow, and what that needs to know of it.

    Args:
        conversation: that which it is of, as it is now.
        is_of_conversation: as `AskedResponse` has it.
        has_failed: it ended without a reply.
        is_last: nothing was said behind it in its conversation.
    """

    id: str
    conversation: ConversationState
    is_of_conversation: bool
    has_failed: bool
    is_last: bool
