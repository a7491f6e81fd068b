"""What a batch may cost: each turn is begun only if all that it may cost still fits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from textllm_core.errors import ConfigurationError
from textllm_core.money import ZERO
from textllm_core.records.models import ModelList, ModelPrice

_OVERHEAD_TOKENS: Final = 256  # around messages, and room for what a provider adds
_IMAGE_TOKENS: Final = 24_600  # the most that one image makes at the dearest model
_TOKENS_A_BYTE: Final = 4  # of a file: a PDF says more than it has bytes, since its pages are looked at, too
_LEAST_FILE_TOKENS: Final = 10_000
_MILLION: Final = 1_000_000
_LONG_INPUT_TOKENS: Final = 128_000  # from about here on some models charge more for all of a request
_LONG_INPUT_FACTOR: Final = 2  # at most


class PurseEmptyError(Exception):
    """What is left does not pay for all that the turn may cost."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much a turn may have the model read, in tokens at most, and write."""

    input_tokens: int
    output_tokens: int

    @classmethod
    def of(
        cls, *, text: str, instructions_bytes: int, past_tokens: int, files: list[int], images: int, output_tokens: int
    ) -> Size:
        """A token is at least a byte of text.

        Args:
            past_tokens: of the conversation that it goes on with.
            files: how many bytes each has.
        """
        of_files = sum(max(_LEAST_FILE_TOKENS, _TOKENS_A_BYTE * size) for size in files)
        read = len(text.encode("utf-8", "replace")) + instructions_bytes + past_tokens + of_files
        return cls(read + images * _IMAGE_TOKENS + _OVERHEAD_TOKENS, output_tokens)


@dataclass(slots=True)
class Purse:
    """Money for a batch, in USD.

    Args:
        limit: what may be spent; None: all that it takes.
        spent: what is spent, or may be.
    """

    limit: Decimal | None
    prices: Mapping[str, ModelPrice]
    default_model: str
    spent: Decimal = ZERO
    _promised: Decimal = ZERO
    _freed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @classmethod
    def over(cls, limit: Decimal | None, models: ModelList, spent: Decimal) -> Purse:
        """Money for models at their prices."""
        default = next((model.id for model in models.data if model.is_default), "")
        prices = {model.id: model.price for model in models.data if model.price is not None}
        return cls(limit, prices, default, spent)

    def price_of(self, model: str | None) -> ModelPrice:
        """
        Raises:
            ConfigurationError: nobody knows it.
        """
        name = model or self.default_model
        if name not in self.prices:
            raise ConfigurationError(
                f"--max-cost: nobody here knows what {name!r} costs, so that it cannot be kept. State it under "
                "`prices`, or leave --max-cost out."
            )
        return self.prices[name]

    def most(self, model: str | None, size: Size) -> Decimal:
        """USD that a turn may cost at most; 0 where nobody set a limit."""
        if self.limit is None:
            return ZERO
        price = self.price_of(model)
        factor = _LONG_INPUT_FACTOR if size.input_tokens > _LONG_INPUT_TOKENS else 1
        return factor * (price.input * size.input_tokens + price.output * size.output_tokens) / _MILLION

    @asynccontextmanager
    async def promised(self, amount: Decimal) -> AsyncIterator[None]:
        """Money for one attempt, while the block runs.

        Who waits for money that others may give back waits here.
        Raises:
            PurseEmptyError: there is not enough, and nobody can give any back.
        """
        async with self._freed:
            while self.limit is not None and self.spent + self._promised + amount > self.limit:
                if not self._promised:
                    raise PurseEmptyError
                await self._freed.wait()
            self._promised += amount
        try:
            yield
        finally:
            async with self._freed:
                self._promised -= amount
                self._freed.notify_all()
