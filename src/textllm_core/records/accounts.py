"""What the books move with every exchange; the fields are named as the columns that keep them."""

from datetime import datetime
from decimal import Decimal

from textllm_core.money import ZERO
from textllm_core.wire import Record


class ConversationAccount(Record, frozen=True, kw_only=True):
    """What the books keep of a conversation.

    Args:
        session_id, title, summary, last_image_url, message_count, total_tokens_input, total_tokens_output, total_cost,
            updated_at, is_deleted: as a `Conversation` has them; the image is its key.
        transcript_id, context_tokens, revision, open_calls: as a `ConversationState` has them.
        last_message: the number of the newest message that is kept.
        turn_id: the exchange that is running in it; turn_until: its lease, for workers of the last release.
    """

    updated_at: datetime
    session_id: str | None = None
    title: str | None = None
    summary: str | None = None
    last_image_url: str | None = None
    message_count: int = 0
    total_tokens_input: int = 0
    total_tokens_output: int = 0
    total_cost: Decimal = ZERO
    is_deleted: bool = False
    transcript_id: str | None = None
    context_tokens: int = 0
    open_calls: tuple[str, ...] | None = None
    revision: int = 0
    last_message: int = 0
    turn_id: str | None = None
    turn_until: datetime | None = None


class SessionAccount(Record, frozen=True, kw_only=True):
    """What the books keep of a session: as a `Session` has it.

    Args:
        reserved: the USD that its holds have together.
        is_reopened: it was ended, and active again only because turns are running that came later, of which none has
            come to its end.
    """

    id: str
    last_activity: datetime
    total_tokens: int = 0
    total_cost: Decimal = ZERO
    reserved: Decimal = ZERO
    conversation_count: int = 0
    is_active: bool = True
    is_reopened: bool = False
