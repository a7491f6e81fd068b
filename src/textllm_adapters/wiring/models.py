"""What answers, and what it costs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from textllm_adapters.clock import SystemClock
from textllm_adapters.settings import ModelPrice, Settings
from textllm_adapters.wiring.asking import ask_providers
from textllm_adapters.wiring.catalogue import Catalogue
from textllm_adapters.wiring.providers import Progress, Way, open_provider
from textllm_core.chat.routes import Route, Routes
from textllm_core.money import ZERO, Price, Rates
from textllm_core.policy import ChatPolicy, Retention
from textllm_core.pricing import Pricing
from textllm_core.steps import UNTRACED
from textllm_core.uploads import MEGABYTE

if TYPE_CHECKING:  # an adapter is imported once it is chosen, so that no one pays for the others
    from textllm_core.ports.llm import LLM
    from textllm_core.ports.tracer import Tracer
    from textllm_core.ports.transcript import Transcript

    Ahead = Callable[[Transcript], Awaitable[Transcript]]

_OWN: Final = Price(rates=Rates.of(ZERO, ZERO), source="embedded")


class Model(NamedTuple):
    """What answers, chosen together.

    Args:
        name: of the model that answers unless another is named.
        llm, transcript: of all providers; `routes`: where each model is.
        pricing: what they cost.
        learn: asks the servers of providers how large the contexts of their models are; OpenAI does not say. What they
            do not say either is known by the settings, or by what they refuse.
    """

    name: str
    llm: LLM
    transcript: Transcript | None
    pricing: Pricing
    routes: Routes | None = None
    learn: Callable[[], Coroutine[object, object, object]] | None = None


async def open_models(
    stack: AsyncExitStack,
    settings: Settings,
    progress: Progress | None,
    tracer: Tracer = UNTRACED,
    ahead: Ahead | None = None,
) -> Model:
    """The models of the settings, open until the stack is closed; nothing is asked of a provider yet.

    Args:
        ahead: gives each provider's side of conversations a way to have some made ahead.
    Raises:
        ConfigurationError: one could not be had.
    """
    catalogue, ways = Catalogue(settings), dict[str, Way]()
    for name, provider in settings.all_providers.items():
        prefix = catalogue.prefix(name)
        way = await open_provider(stack, settings, prefix, provider, progress, tracer)
        if ahead is not None and way.route.transcript is not None:
            way = way._replace(route=replace(way.route, transcript=await ahead(way.route.transcript)))
        ways[prefix] = way
    first = ways[catalogue.first]
    default = settings.model
    if not settings.models and first.own_model is not None:
        default = first.own_model
    routes = Routes(
        named=_named(settings, catalogue, ways),
        providers={name: ways[catalogue.prefix(name)].route for name in settings.providers},
        otherwise=None if settings.models else first.route,
    )
    from textllm_adapters.routing.several import SeveralLLMs

    # Also where there is one now: ids of one that was configured before are asked of nobody.
    llm = SeveralLLMs({prefix: way.route.llm for prefix, way in ways.items()}, first.route.llm)

    async def learn() -> None:
        takes = {
            name: take
            for name, provider in settings.all_providers.items()
            if (take := ways[catalogue.prefix(name)].learn) is not None and provider.may_tell_contexts
        }
        for found in await ask_providers(settings, takes):
            for model, tokens in found.contexts.items():
                takes[found.name](model, tokens)

    return Model(default, llm, _transcript_of(ways), pricing_of(settings, first.own_model), routes, learn)


async def open_transcript(stack: AsyncExitStack, settings: Settings) -> Transcript | None:
    """Where conversations are kept at providers, open until the stack is closed; None where nobody keeps any."""
    catalogue = Catalogue(settings)
    keeping = {catalogue.prefix(name): each for name, each in settings.all_providers.items() if each.kind == "openai"}
    ways = {
        prefix: await open_provider(stack, settings, prefix, provider, None, UNTRACED)
        for prefix, provider in keeping.items()
    }
    return _transcript_of(ways)


def _transcript_of(ways: Mapping[str, Way]) -> Transcript | None:
    """The conversations at all providers that keep some."""
    kept = {prefix: way.route.transcript for prefix, way in ways.items() if way.route.transcript is not None}
    first = next(iter(kept.values()), None)
    if first is None:
        return None
    from textllm_adapters.routing.several import SeveralTranscripts

    return SeveralTranscripts(kept, first)


def _named(settings: Settings, catalogue: Catalogue, ways: Mapping[str, Way]) -> dict[str, tuple[Route, ...]]:
    """The ways of the names under `models`."""

    def route(name: str, member: str, *, stage: int, weight: int) -> Route:
        model = settings.models[member]
        way = ways[catalogue.prefix(catalogue.provider_of(member))]
        return replace(
            way.route.of(model.model or member),
            name=name,
            context=model.context,
            stage=stage,
            weight=weight,
            hasty=way.hasty,
        )

    def routes(name: str) -> Iterator[Route]:
        for stage, each in enumerate((name, *settings.models[name].fallbacks)):
            for member, weight in (settings.models[each].weights or {each: 1}).items():
                yield route(each, member, stage=stage, weight=weight)

    return {name: tuple(routes(name)) for name in settings.models}


def own_model_of(settings: Settings) -> str | None:
    """The name of the model in this process, where it is what answers."""
    first = next(iter(settings.all_providers.values()))
    if first.kind != "embedded":
        return None
    from textllm_adapters.embedded.model_file import MEMBER

    return (first.model_file or settings.local_model or Path(MEMBER)).stem


def public_settings(settings: Settings) -> dict[str, object]:
    """The settings in force, without secrets; `model` is the name of what answers a turn that names none."""
    own = None if settings.models else own_model_of(settings)
    return settings.public() | ({} if own is None else {"model": own})


def pricing_of(settings: Settings, own_model: str | None = None) -> Pricing:
    """What models cost: by the operator's word, else by the bundled price list; one in this process is free."""
    from textllm_adapters.memory.prices import FixedPrices

    catalogue = Catalogue(settings)
    prices = {name: _stated(price) for name, price in settings.prices.items()}
    stated = {name: price for name, price in prices.items() if not name.endswith("*")}
    for name, model in settings.models.items():
        if model.weights:
            continue
        asked = catalogue.model_of(name)
        price = _stated(model.price) if model.price else prices.get(asked) or prices.get(name)
        if price is None and settings.providers[catalogue.provider_of(name)].kind == "embedded":
            price = _OWN
        if price is not None:
            stated[asked] = price
    if settings.pricing is not None:
        rates = Rates.of(settings.pricing.input_per_1k * 1000, settings.pricing.output_per_1k * 1000)
        for name in catalogue.asked_by(settings.model):
            stated[catalogue.model_of(name)] = Price(rates=rates, source="operator")
    if own_model is not None and not settings.providers:
        return Pricing({}, FixedPrices({own_model: stated.get(own_model, _OWN)}), only_model=own_model)
    from textllm_adapters.genai_prices.prices import GenaiPrices

    addresses = {
        catalogue.prefix(name): provider.base_url or "https://api.openai.com/v1"
        for name, provider in settings.all_providers.items()
    }
    patterns = {f"{name}/": _OWN for name, each in settings.providers.items() if each.kind == "embedded"}
    return Pricing(
        stated,
        GenaiPrices(SystemClock(), addresses),
        unpriced_is_free=settings.unpriced == "free",
        patterns=patterns | {name[:-1]: price for name, price in prices.items() if name.endswith("*")},
    )


def _stated(price: ModelPrice) -> Price:
    rates = Rates.of(price.input, price.output, cached_input=price.cached_input, cache_write=price.cache_write)
    return Price(rates=rates, source="operator")


def chat_policy(settings: Settings, model: Model) -> ChatPolicy:
    """The operator's rules of every turn."""
    return ChatPolicy(
        model=model.name,
        prompts=settings.prompts,
        max_input_chars=settings.max_input_length,
        max_history_items=settings.max_history_items,
        max_output_tokens=settings.max_output_tokens,
        rate_per_minute=settings.rate_limit_per_minute,
        daily_limit=settings.cost_limit_per_session,
        warn_at=settings.warn_at_cost,
        keep_messages=settings.store_messages,
        first_token_timeout_s=settings.first_token_timeout_s,
        silence_timeout_s=settings.upstream_timeout_s,
        max_file_bytes=settings.max_file_size_mb * MEGABYTE,
        max_document_chars=settings.max_document_chars,
        max_document_pages=settings.max_document_pages,
        max_conversations=settings.max_conversations_per_user,
        max_tool_calls=settings.max_tool_calls,
        retention=Retention(
            conversations=_days(settings.conversation_days),
            deleted=_days(settings.retention_days),
            journals=timedelta(hours=settings.journal_hours),
            repeats=timedelta(hours=settings.idempotency_hours),
            revoked_keys=_days(settings.revoked_key_days),
            responses=timedelta(days=settings.response_days),
            ledger_months=settings.ledger_months,
        ),
    )


def _days(count: int | None) -> timedelta | None:
    return None if count is None else timedelta(days=count)
