"""What users used, by day, model and conversation."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from msgspec import Struct

from textllm_core.money import ZERO


class UsageOfDay(Struct, frozen=True):
    """What was used in a UTC day. Here as everywhere in this module: `messages` are turns that were answered, `cost` is
    USD, `estimated_cost` the part of it whose usage the provider did not state, and exchanges that failed but were
    billed count in tokens and cost alone.
    """

    day: date
    messages: int
    tokens_input: int
    tokens_output: int
    cost: Decimal
    estimated_cost: Decimal


class UsageOfModel(Struct, frozen=True):
    """What one model, by the name the provider gave, was used for."""

    model: str
    messages: int
    tokens_input: int
    tokens_output: int
    cost: Decimal
    estimated_cost: Decimal


class UsageOfConversation(Struct, frozen=True):
    """What one conversation used in its whole life."""

    conversation_id: str
    title: str | None
    messages: int
    tokens_input: int
    tokens_output: int
    cost: Decimal


class UsageReport(Struct, frozen=True):
    """What one user used in a period, in deleted and erased conversations too.

    Args:
        total_conversations: those in which the user spoke in the period; deleted ones count, erased ones do not.
        by_day: oldest first, without the days on which nothing was used.
        by_model: dearest first.
    """

    total_conversations: int
    total_messages: int
    total_tokens_input: int
    total_tokens_output: int
    total_cost: Decimal
    estimated_cost: Decimal
    by_day: Sequence[UsageOfDay]
    by_model: Sequence[UsageOfModel]


class DailyUsage(Struct, frozen=True):
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
