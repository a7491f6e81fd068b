"""Decimal USD: what a model charges, and what a reply cost."""

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from textllm_core.usage import Usage

ZERO: Final = Decimal(0)
_PER_MILLION: Final = Decimal(1_000_000)
_SMALLEST: Final = Decimal("1e-10")


class ChargedCalls(Struct, frozen=True):
    """Calls of a tool that runs on the provider's servers; `price`: USD for one."""

    count: int
    price: Decimal


class Rates(Struct, frozen=True, omit_defaults=True):
    """USD for one million tokens of each kind; of what is charged already, the calls of tools as well."""

    input: Decimal
    output: Decimal
    cached_input: Decimal
    cache_write: Decimal
    calls: Mapping[str, ChargedCalls] = {}

    @classmethod
    def of(
        cls, plain: Decimal, output: Decimal, *, cached_input: Decimal | None = None, cache_write: Decimal | None = None
    ) -> "Rates":
        """Rates where a kind of input that has no price of its own costs what plain input costs."""
        return cls(
            input=plain,
            output=output,
            cached_input=plain if cached_input is None else cached_input,
            cache_write=plain if cache_write is None else cache_write,
        )


class Band(Struct, frozen=True):
    """Rates of the whole request when its input has more than `above` tokens."""

    above: int
    rates: Rates


class Price(Struct, frozen=True, omit_defaults=True):
    """What a model charges. `source` says who stated it, so that a ledger entry can be recomputed.

    `calls`: USD for one call of each tool that runs on its provider's servers, of those that a turn offers.
    """

    rates: Rates
    source: str
    bands: tuple[Band, ...] = ()
    calls: Mapping[str, Decimal] = {}

    def rates_for(self, input_tokens: int) -> Rates:
        """The rates of a request with so many input tokens."""
        return max((b for b in self.bands if input_tokens > b.above), key=lambda b: b.above, default=self).rates

    def cost(self, usage: Usage) -> Decimal:
        """USD for `usage`, exact to the tenth decimal.

        Cached and cache-write tokens are parts of the input, reasoning tokens a part of the output. Calls of tools
        that have no price cost nothing beside their tokens.
        """
        rates = self.rates_for(usage.input_tokens)
        plain = usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens
        total = (
            plain * rates.input
            + usage.cached_tokens * rates.cached_input
            + usage.cache_write_tokens * rates.cache_write
            + usage.output_tokens * rates.output
        )
        calls = sum((count * self.calls.get(kind, ZERO) for kind, count in usage.tool_calls.items()), ZERO)
        return exact(total / _PER_MILLION + calls)

    def charged(self, usage: Usage) -> Rates:
        """What `cost` was computed with, for `usage`."""
        priced = {kind: ChargedCalls(n, self.calls[kind]) for kind, n in usage.tool_calls.items() if kind in self.calls}
        rates = self.rates_for(usage.input_tokens)
        return replace(rates, calls=priced) if priced else rates

    def dearest_input(self, tokens: int) -> Decimal:
        """An upper bound, in USD, of what so many input tokens cost, however they are cached."""
        rates = self.rates_for(tokens)
        return exact(tokens * max(rates.input, rates.cached_input, rates.cache_write) / _PER_MILLION)

    def output(self, tokens: int, *, input_tokens: int) -> Decimal:
        """USD for so many output tokens, of a request with so many input tokens."""
        return exact(tokens * self.rates_for(input_tokens).output / _PER_MILLION)


def exact(amount: Decimal) -> Decimal:
    """The amount as the books keep it: ten decimals, no trailing zeros, never in exponent form when whole."""
    rounded = amount.quantize(_SMALLEST, rounding=ROUND_HALF_EVEN).normalize()
    return rounded.quantize(Decimal(1)) if rounded == rounded.to_integral_value() else rounded
