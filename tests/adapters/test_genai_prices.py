from datetime import UTC, date, datetime
from decimal import Decimal

import genai_prices
import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textllm_adapters.genai_prices.prices import GenaiPrices
from textllm_core.money import Price, exact
from textllm_core.usage import Usage


class Day:
    """A clock that stands still at noon."""

    def __init__(self, day: date) -> None:
        self._now = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self._now


TODAY = Day(date(2026, 11, 23))
PRICES = GenaiPrices(TODAY)
LISTED = {model.id: PRICES.price(model.id) for model in get_snapshot().find_provider(None, "openai", None).models}
PRICED = sorted(name for name, price in LISTED.items() if price is not None)
TIERS = [None, "default", "flex", "priority", "fast", "scale", "no such tier"]


def price_of(model: str, service_tier: str | None = None) -> Price:
    price = PRICES.price(model, service_tier=service_tier)
    assert price is not None
    return price


tokens = st.one_of(
    st.integers(0, 5_000), st.integers(127_990, 128_010), st.integers(271_990, 272_010), st.integers(0, 10**7)
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    input_tokens, output_tokens = draw(tokens), draw(tokens)
    cached = draw(st.integers(0, input_tokens))
    return Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached,
        cache_write_tokens=draw(st.integers(0, input_tokens - cached)),
    )


@pytest.mark.parametrize("model", PRICED)
@settings(max_examples=30, deadline=None)
@given(usage=usages(), tier=st.sampled_from(TIERS))
@example(usage=Usage(272_000, 1, 1, 1), tier="flex")
@example(usage=Usage(272_001, 1, 1, 1), tier="priority")
def test_a_cost_is_what_the_price_list_itself_computes(model: str, usage: Usage, tier: str | None) -> None:
    theirs = genai_prices.calc_price(
        genai_prices.Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=usage.output_tokens,
        ),
        model,
        provider_id="openai",
        genai_request_timestamp=TODAY.now(),
        price_context={"service_tier": tier} if tier else None,
    )
    assert price_of(model, tier).cost(usage) == exact(theirs.total_price)


def test_the_list_has_the_models_of_today() -> None:
    assert {"gpt-4o", "gpt-5-nano", "gpt-5.4", "gpt-6-luna", "gpt-6.1-sol"} <= set(PRICED)


def test_a_dated_snapshot_costs_what_its_model_costs() -> None:
    assert price_of("gpt-4o-2024-08-06").rates == price_of("gpt-4o").rates


def test_a_long_request_costs_more_as_a_whole() -> None:
    price = price_of("gpt-6-luna")
    assert price.rates_for(272_000).input * 2 == price.rates_for(272_001).input
    assert price.cost(Usage(input_tokens=272_001)) == Decimal("0.0544002")


def test_tiers_have_prices_of_their_own_and_unknown_ones_the_standard() -> None:
    assert price_of("gpt-6-luna", "flex").rates.output * 2 == price_of("gpt-6-luna").rates.output
    assert price_of("gpt-6-luna", "no such tier") == price_of("gpt-6-luna")


def test_a_price_that_changes_is_that_of_the_day() -> None:
    before, after = GenaiPrices(Day(date(2025, 6, 1))).price("o3"), GenaiPrices(Day(date(2025, 7, 1))).price("o3")
    assert before is not None
    assert after is not None
    assert before.rates.input > after.rates.input


@pytest.mark.parametrize("model", ["", "gpt-6.2-sol", "SmolLM2-135M", "whisper-1", "text-embedding-3-small"])
def test_what_has_no_text_price_is_unknown_and_never_free(model: str) -> None:
    assert PRICES.price(model) is None


def test_names_nobody_knows_are_not_remembered_by_the_list() -> None:
    snapshot = get_snapshot()
    before = len(snapshot._provider_cache), len(snapshot._provider_misses), len(snapshot._lookup_cache)
    for n in range(50):
        PRICES.price(f"made-up-{n}")
    assert (len(snapshot._provider_cache), len(snapshot._provider_misses), len(snapshot._lookup_cache)) == before


def test_the_source_names_the_list_and_its_version() -> None:
    assert price_of("gpt-4o").source == f"genai-prices {genai_prices.__version__}"


@pytest.mark.parametrize(
    ("address", "model", "is_priced"),
    [
        ("https://api.openai.com/v1", "gpt-4o", True),
        ("https://api.openai.com/v1", "claude-sonnet-4-5", False),
        ("https://api.groq.com/openai/v1", "llama-3.3-70b-versatile", True),
        ("https://openrouter.ai/api/v1", "openai/gpt-4o", True),
        ("https://us.openai.azure.com/openai/v1", "gpt-4o", True),
        ("http://127.0.0.1:4000/v1", "openai/gpt-4o", True),
        ("http://127.0.0.1:4000/v1", "deepseek-chat", True),
        ("http://127.0.0.1:11434/v1", "deepseek-r1:8b", False),
        ("http://127.0.0.1:11434/v1", "llama3.2", False),
    ],
)
def test_a_model_is_priced_by_who_sells_it(address: str, model: str, is_priced: bool) -> None:
    for name, addresses in ((model, {"": address}), (f"mine/{model}", {"mine": address})):
        assert (GenaiPrices(TODAY, addresses).price(name) is not None) == is_priced, name
