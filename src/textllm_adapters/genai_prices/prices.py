"""The price list that comes with the genai-prices package; it is read from disk alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version
from typing import Final

from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelPrice, TieredPrices

from textllm_core.money import ZERO, Band, Price, Rates
from textllm_core.ports.clock import Clock

_SOURCE: Final = f"genai-prices {version('genai-prices')}"


@dataclass(frozen=True, slots=True)
class GenaiPrices:
    """OpenAI's models as genai-prices has them: their text; what some add for images, audio or searches is left out."""

    clock: Clock

    def price(self, model: str, *, service_tier: str | None = None) -> Price | None:
        """Keeps `Prices.price`."""
        return _price(model, service_tier, self.clock.now().astimezone(UTC).date())


@lru_cache(maxsize=1024)
def _price(model: str, service_tier: str | None, day: date) -> Price | None:
    snapshot = get_snapshot()
    # Asked for by provider first: the snapshot's own lookup remembers each unknown name for ever.
    provider = snapshot.find_provider(None, "openai", None)
    info = provider.find_model(model, all_providers=snapshot.providers)
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
