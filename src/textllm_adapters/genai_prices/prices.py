"""The price list that comes with the genai-prices package; it is read from disk alone."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Final

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

from textllm_core.money import ZERO, Band, Price, Rates
from textllm_core.ports.clock import Clock

_SOURCE: Final = f"genai-prices {version('genai-prices')}"


@dataclass(frozen=True, slots=True)
class GenaiPrices:
    """Models as genai-prices has them: their text; what some add for images, audio or searches is left out.

    Args:
        addresses: of providers, by the name that stands before their models' names; by the empty one, of models without
            that, which else are OpenAI's. Where nobody is known to sell tokens, the model's name may say whose it is:
            `openai/gpt-4o`, `deepseek-chat`.
    """

    clock: Clock
    addresses: Mapping[str, str] = field(default_factory=dict)

    def price(self, model: str, *, service_tier: str | None = None) -> Price | None:
        """Keeps `Prices.price`."""
        day = self.clock.now().astimezone(UTC).date()
        name, slash, rest = model.partition("/")
        if slash and (address := self.addresses.get(name)) is not None:
            return _price(rest, service_tier, day, address)
        return _price(model, service_tier, day, self.addresses.get(""))


def _model(name: str, address: str | None) -> ModelInfo | None:
    snapshot = get_snapshot()
    # The snapshot's own lookup remembers each unknown name for ever.
    sellers = [each for each in snapshot.providers if address is not None and re.match(each.api_pattern, address)]
    for seller in sellers or [each for each in snapshot.providers if each.id == "openai"]:
        if (found := seller.find_model(name, all_providers=snapshot.providers)) is not None:
            return found
    if sellers or ":" in name:  # who sells others lists them; the latter is of a model that somebody has downloaded
        return None
    owner, slash, rest = name.partition("/")
    for seller in snapshot.providers:
        if slash and seller.id == owner:
            return seller.find_model(rest, all_providers=snapshot.providers)
        if not slash and seller.model_match is not None and seller.model_match.is_match(name):
            return seller.find_model(name)
    return None


@lru_cache(maxsize=1024)
def _price(model: str, service_tier: str | None, day: date, address: str | None = None) -> Price | None:
    info = _model(model, address)
    if info is None:
        return None
    context = {"service_tier": service_tier} if service_tier else None
    prices = info.get_prices(datetime.combine(day, time(), UTC), context)
    if prices.input_mtok is None or prices.output_mtok is None:
        return None
    tiered = [p for p in _text_prices(prices) if isinstance(p, TieredPrices)]
    return Price(
        rates=_rates(prices, 0),
        source=_SOURCE,
        bands=tuple(
            Band(above=start, rates=_rates(prices, start))
            for start in sorted({tier.start for price in tiered for tier in price.tiers})
        ),
    )


def _text_prices(prices: ModelPrice) -> Sequence[Decimal | TieredPrices | None]:
    return prices.input_mtok, prices.output_mtok, prices.cache_read_mtok, prices.cache_write_mtok


def _rates(prices: ModelPrice, above: int) -> Rates:
    """The rates of a request with more than `above` input tokens, where `above` is 0 or the start of a tier."""
    plain, output, cached_input, cache_write = (_amount(price, above) for price in _text_prices(prices))
    return Rates.of(plain or ZERO, output or ZERO, cached_input=cached_input, cache_write=cache_write)


def _amount(price: Decimal | TieredPrices | None, above: int) -> Decimal | None:
    if not isinstance(price, TieredPrices):
        return price
    return next((tier.price for tier in reversed(price.tiers) if tier.start <= above), price.base)
