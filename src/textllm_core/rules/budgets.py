"""Pure decisions about money: may this turn start, and how much is promised to it."""

from datetime import date
from decimal import ROUND_FLOOR, Decimal
from typing import Final

from msgspec import Struct

from textllm_core.errors import BudgetExceededError
from textllm_core.money import ZERO, Price, exact
from textllm_core.records.ledger import Demand
from textllm_core.records.sessions import end_of

MIN_OUTPUT_TOKENS: Final = 16  # the least the Responses API accepts


class ToolBound(Struct, frozen=True, kw_only=True):
    """What tools that run on the provider's servers may add to a turn at most.

    Args:
        calls: of all of them together.
        tokens: that one call adds to what the model reads; `listed`: those by which the tools tell what they do.
        price: USD for a call, of the dearest one.
    """

    calls: int
    tokens: int
    listed: int
    price: Decimal

    def read(self, input_tokens: int, *, written: int, calls: int) -> int:
        """What the model reads in all: it is asked once more after each call, with all that was there before."""
        each = input_tokens + self.listed
        return (calls + 1) * each + self.tokens * (calls * (calls + 1) // 2) + calls * written


NO_TOOLS: Final = ToolBound(calls=0, tokens=0, listed=0, price=ZERO)


def _most(price: Price, *, input_tokens: int, output_tokens: int, tools: ToolBound, calls: int) -> Decimal:
    """USD that a turn costs at most which makes so many calls."""
    read = tools.read(input_tokens, written=output_tokens, calls=calls)
    return price.dearest_input(read) + price.output(output_tokens, input_tokens=read) + calls * tools.price


def demand(
    price: Price, *, input_tokens: int, max_output_tokens: int, limit: Decimal, tools: ToolBound = NO_TOOLS
) -> Demand:
    """The demand of a turn with at most so many input tokens and a reply of at most so many tokens.

    Args:
        tools: the shortest reply makes one call of them, where it may make any.
    """
    shortest = min(MIN_OUTPUT_TOKENS, max_output_tokens)
    one = min(1, tools.calls)
    return Demand(
        least=_most(price, input_tokens=input_tokens, output_tokens=shortest, tools=tools, calls=one),
        most=_most(price, input_tokens=input_tokens, output_tokens=max_output_tokens, tools=tools, calls=tools.calls),
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


def affordable(
    price: Price, *, held: Decimal, input_tokens: int, max_output_tokens: int, tools: ToolBound
) -> tuple[int, int]:
    """How many calls of tools the turn may make, and how long the reply may be, in tokens, so that the whole turn costs
    at most what is held for it.

    Calls are what is cut first, to one: a reply without its end is worth less than one that had to do with fewer.
    """
    calls = min(1, tools.calls)
    for more in range(tools.calls, 1, -1):
        if _most(price, input_tokens=input_tokens, output_tokens=max_output_tokens, tools=tools, calls=more) <= held:
            calls = more
            break
    longest = affordable_output_tokens(
        price, held=held, input_tokens=input_tokens, max_output_tokens=max_output_tokens, tools=tools, calls=calls
    )
    return calls, longest


def affordable_output_tokens(
    price: Price,
    *,
    held: Decimal,
    input_tokens: int,
    max_output_tokens: int,
    tools: ToolBound = NO_TOOLS,
    calls: int = 0,
) -> int:
    """How long the reply may be, in tokens, that makes so many calls, so that the whole turn costs at most what is held
    for it."""
    rates = price.rates_for(tools.read(input_tokens, written=max_output_tokens, calls=calls))
    dearest = max(rates.input, rates.cached_input, rates.cache_write)
    per_million = rates.output + calls * dearest  # what is written is read again after each call
    if per_million == 0:
        return max_output_tokens
    read = tools.read(input_tokens, written=0, calls=calls)
    left = held - exact(read * dearest / 1_000_000) - calls * tools.price
    affordable = int((left * 1_000_000 / per_million).to_integral_value(ROUND_FLOOR))
    return max(min(affordable, max_output_tokens), min(MIN_OUTPUT_TOKENS, max_output_tokens))
