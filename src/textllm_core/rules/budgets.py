"""Pure decisions about money: may this turn start, and how much is promised to it."""

from datetime import date
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from textllm_core.errors import BudgetExceededError
from textllm_core.money import Price
from textllm_core.records.ledger import Demand
from textllm_core.records.sessions import end_of

MIN_OUTPUT_TOKENS: Final = 16  # the least the Responses API accepts


def demand(price: Price, *, input_tokens: int, max_output_tokens: int, limit: Decimal) -> Demand:
    """The demand of a turn with at most so many input tokens and a reply of at most so many tokens."""
    input_cost = price.dearest_input(input_tokens)
    shortest = min(MIN_OUTPUT_TOKENS, max_output_tokens)
    return Demand(
        least=input_cost + price.output(shortest, input_tokens=input_tokens),
        most=input_cost + price.output(max_output_tokens, input_tokens=input_tokens),
        limit=limit,
    )


def grant(wanted: Demand, *, spent: Decimal, reserved: Decimal, day: date) -> Decimal:
    """USD to hold for the turn: what it may cost at most, or all that is left of the day's budget.

    Adapters call this while no one else can move `spent` and `reserved`.
    Raises:
        BudgetExceededError: not even the shortest reply fits.
    """
    left = wanted.limit - spent - reserved
    if left < wanted.least:
        fits_later = wanted.limit - spent >= wanted.least
        raise BudgetExceededError(limit=wanted.limit, spent=spent, resets_at=end_of(day), reserved=fits_later)
    return min(wanted.most, left)


def affordable_output_tokens(price: Price, *, held: Decimal, input_tokens: int, max_output_tokens: int) -> int:
    """How long the reply may be, in tokens, so that the whole turn costs at most what is held for it."""
    per_million = price.rates_for(input_tokens).output
    if per_million == 0:
        return max_output_tokens
    left = held - price.dearest_input(input_tokens)
    affordable = int((left * 1_000_000 / per_million).to_integral_value(ROUND_FLOOR))
    return max(min(affordable, max_output_tokens), min(MIN_OUTPUT_TOKENS, max_output_tokens))
