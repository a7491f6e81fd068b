"""Tokens and entries of the ledger: what a reply used and what it cost."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal

from msgspec.structs import replace

from textllm_core.wire import Record

Kind = Literal["text", "image", "document", "summary"]
EntryStatus = Literal["pending", "completed", "incomplete", "failed", "cancelled"]


class Usage(Record, frozen=True):
    """Tokens of one reply as the provider counts them, and calls of tools that run on its servers.

    `cached_tokens` and `cache_write_tokens` are parts of `input_tokens`, `reasoning_tokens` of `output_tokens`.
    `tool_calls`: how many, by tool, such as `web_search`.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    tool_calls: Mapping[str, int] = {}

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class LedgerEntry(Record, frozen=True):
    """The truth about the money of one exchange; never changed once it is settled exactly.

    An estimate may be corrected once, by the provider's later word.

    Args:
        response_id: the id of the exchange and of its reply, ours.
        provider_response_id: the provider's name for it; None when it never told us one, or is to forget it.
        model: as the provider reports it, or as asked for when it never did.
        cost: USD. `price_source` and the counts allow to compute it again.
        estimated: the provider never stated the usage; counts and cost are our estimate.
        answered: the exchange counts as one of the conversation's answered turns.
        time_to_first_token_ms: None when no text came.
        payer_id: who was charged in the user's place; None: the user.
    """

    tenant_id: str
    user_id: str
    response_id: str
    conversation_id: str
    session_id: str
    kind: Kind
    model: str
    provider_response_id: str | None
    status: EntryStatus
    estimated: bool
    answered: bool
    usage: Usage
    cost: Decimal
    price_source: str
    service_tier: str | None
    created_at: datetime
    settled_at: datetime | None
    time_to_first_token_ms: int | None
    payer_id: str | None = None

    @property
    def payer(self) -> str:
        """Whose session and daily usage it counts in."""
        return self.payer_id or self.user_id


def estimate(counted: Usage | None, *, sent: int, heard: str, thought: int, calls: Mapping[str, int]) -> Usage:
    """Tokens of what was certainly sent and certainly received of a reply, and no less than was stated of it.

    Args:
        counted: what the provider has stated by then; None: nothing.
        sent: tokens of what was sent. thought: characters of reasoning that were received.
        calls: of tools that were heard of, by tool. The model is asked anew after each, with all that was there before.
    """
    stated = counted or Usage()
    return replace(
        stated,
        input_tokens=stated.input_tokens or sent * (1 + sum(calls.values())),
        output_tokens=max(stated.output_tokens, estimated_tokens(heard, characters=thought)),
        reasoning_tokens=max(stated.reasoning_tokens, thought // 4),
        tool_calls=calls,
    )


def estimated_tokens(*texts: str, characters: int = 0) -> int:
    """About how many tokens texts make, for entries whose usage the provider never stated: a token has 4 characters.

    `characters`: how many there were of texts that nobody kept.
    """
    return -(-(sum(map(len, texts)) + characters) // 4)
