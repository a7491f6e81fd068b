"""What users used, by day, model and conversation."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Annotated

from msgspec import Meta

from textllm_core.fields import Answered, EstimatedUsd, TokensRead, TokensWritten, Usd
from textllm_core.money import ZERO
from textllm_core.wire import Record


class UsageOfDay(Record, frozen=True):
    """What was used in a UTC day. Here as everywhere in this module: `messages` are turns that were answered, `cost` is
    USD, `estimated_cost` the part of it whose usage the provider did not state, and exchanges that failed but were
    billed count in tokens and cost alone.
    """

    day: Annotated[date, Meta(description="A UTC day.")]
    messages: Answered
    tokens_input: TokensRead
    tokens_output: TokensWritten
    cost: Usd
    estimated_cost: EstimatedUsd


class UsageOfModel(Record, frozen=True):
    """What one model, by the name the provider gave, was used for."""

    model: Annotated[str, Meta(description="By the name that the provider gave it.")]
    messages: Answered
    tokens_input: TokensRead
    tokens_output: TokensWritten
    cost: Usd
    estimated_cost: EstimatedUsd


class UsageOfConversation(Record, frozen=True):
    """What one conversation used in the period; with no id, what is left of the period beside those that have a row."""

    conversation_id: Annotated[
        str | None,
        Meta(
            description="The conversation. Null, in the last row: all others together, such as deleted ones, those of "
            "responses and completions below /v1 that name none, and what was used in days whose entries have gone."
        ),
    ]
    title: Annotated[str | None, Meta(description="Its title.")]
    messages: Answered
    tokens_input: TokensRead
    tokens_output: TokensWritten
    cost: Usd
    estimated_cost: EstimatedUsd


class UsageReport(Record, frozen=True):
    """What one user used in a period, in deleted and erased conversations too.

    Args:
        total_conversations: those in which the user spoke in the period; deleted ones count, erased ones do not.
        by_day: oldest first, without the days on which nothing was used.
        by_model: dearest first.
    """

    total_conversations: Annotated[
        int, Meta(description="Conversations in which the user spoke in these days: deleted ones too, erased ones not.")
    ]
    total_messages: Answered
    total_tokens_input: TokensRead
    total_tokens_output: TokensWritten
    total_cost: Usd
    estimated_cost: EstimatedUsd
    by_day: Annotated[
        Sequence[UsageOfDay], Meta(description="By UTC day, oldest first, without the days on which nothing was used.")
    ]
    by_model: Annotated[
        Sequence[UsageOfModel], Meta(description="By model, by the name the provider gave it; dearest first.")
    ]


class DailyUsage(Record, frozen=True):
    """All settled exchanges of a user with one model in one UTC day, that of their start.

    Args:
        model: as the provider names it; what differs only after the 255th character is one model.
        messages: turns that were answered.
        cost: USD.
        estimated_cost: the part of it whose usage the provider did not state.
    """

    day: date
    model: str
    messages: int
    input_tokens: int
    output_tokens: int
    cost: Decimal
    estimated_cost: Decimal = ZERO
