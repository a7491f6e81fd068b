"""What answers, and what it costs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from textllm_adapters.clock import SystemClock
from textllm_adapters.settings import ModelPrice, Settings
from textllm_core.errors import InvalidRequestError
from textllm_core.money import ZERO, Price, Rates
from textllm_core.policy import ChatPolicy, Retention
from textllm_core.pricing import FREE, Pricing
from textllm_core.records.models import ListedModel, ModelList
from textllm_core.records.models import ModelPrice as ListedPrice
from textllm_core.steps import UNTRACED
from textllm_core.uploads import MEGABYTE

if TYPE_CHECKING:  # an adapter is imported once it is chosen, so that no one pays for the others
    from textllm_core.ports.llm import LLM
    from textllm_core.ports.tracer import Tracer
    from textllm_core.ports.transcript import Transcript


Progress = Callable[[int, int], None]


class Model(NamedTuple):
    """What answers, chosen together: who keeps the history, what it costs, and how many tokens it may write."""

    name: str
    llm: LLM
    transcript: Transcript | None
    pricing: Pricing
    longest_reply: int = sys.maxsize


async def open_model(
    stack: AsyncExitStack, settings: Settings, progress: Progress | None, tracer: Tracer = UNTRACED
) -> Model:
    """The model of the settings, open until the stack is closed.

    Raises:
        ConfigurationError: it could not be had.
    """
    if settings.resolved_provider == "embedded":
        return await _open_embedded(stack, settings, progress)
    return await open_openai(stack, settings, tracer)


async def _open_embedded(stack: AsyncExitStack, settings: Settings, progress: Progress | None) -> Model:
    from textllm_adapters.embedded.llm import LONGEST_REPLY, open_embedded
    from textllm_adapters.memory.prices import FixedPrices

    path = settings.local_model or await fetch_model(settings, progress)
    llm = await stack.enter_async_context(open_embedded(path))
    price = settings.prices.get(llm.model)
    priced = _stated(price) if price else Price(rates=Rates.of(ZERO, ZERO), source="embedded")
    return Model(llm.model, llm, None, Pricing({}, FixedPrices({llm.model: priced})), LONGEST_REPLY)


async def open_openai(stack: AsyncExitStack, settings: Settings, tracer: Tracer = UNTRACED) -> Model:
    """OpenAI's, or that of a server with its API; nothing is asked of it yet."""
    from textllm_adapters.openai.client import open_client

    pricing = pricing_of(settings)
    client = await stack.enter_async_context(
        open_client(
            settings.openai_api_key.reveal() if settings.openai_api_key else "none",
            settings.openai_base_url,
            silence_timeout_s=max(settings.first_token_timeout_s, settings.upstream_timeout_s),
            tracer=tracer,
        )
    )
    if settings.llm_api == "chat_completions":
        from textllm_adapters.openai.chat_completions import ChatCompletionsLLM

        return Model(settings.model, ChatCompletionsLLM(client), None, pricing)
    from textllm_adapters.openai.conversations import OpenAITranscript
    from textllm_adapters.openai.responses import ResponsesLLM

    transcript = OpenAITranscript(client) if settings.llm_api == "conversations" else None
    return Model(settings.model, ResponsesLLM(client, reads_files=_reads_files(settings)), transcript, pricing)


def _reads_files(settings: Settings) -> bool:
    """Whether a PDF goes to the model as it is.

    Other servers speak the Responses API, but hardly one takes files as they are; those with conversations do.
    """
    if settings.resolved_provider == "embedded" or settings.llm_api == "chat_completions":
        return False
    return settings.llm_api == "conversations" or settings.openai_base_url is None


def models_of(settings: Settings) -> ModelList:
    """The models that the settings name: the one that answers unless another is named, and those with a price."""
    is_embedded = settings.resolved_provider == "embedded"
    pricing = None if is_embedded else pricing_of(settings)
    default = settings.model
    if is_embedded:
        from textllm_adapters.embedded.model_file import MEMBER

        default = (settings.local_model or Path(MEMBER)).stem

    def price_of(name: str) -> ListedPrice | None:
        if pricing is None:
            stated = settings.prices.get(name)
            return ListedPrice.of(_stated(stated) if stated else FREE)
        try:
            return ListedPrice.of(pricing.price(name))
        except InvalidRequestError:
            return None

    names = [default] if is_embedded else list(dict.fromkeys([default, *settings.prices]))
    return ModelList(
        data=[
            ListedModel(
                id=name,
                owned_by=settings.resolved_provider,
                is_default=name == default,
                price=price_of(name),
                reads_images=not is_embedded,
                reads_files=_reads_files(settings),
            )
            for name in names
        ]
    )


async def list_models(settings: Settings) -> ModelList:
    """As `models_of`; as a call, since a server in this place has to be asked."""
    return models_of(settings)


def pricing_of(settings: Settings) -> Pricing:
    """What models cost: by the operator's word, else by the bundled price list."""
    from textllm_adapters.genai_prices.prices import GenaiPrices

    return Pricing(_stated_prices(settings), GenaiPrices(SystemClock()), unpriced_is_free=settings.unpriced == "free")


def _stated_prices(settings: Settings) -> dict[str, Price]:
    stated = {model: _stated(price) for model, price in settings.prices.items()}
    if settings.pricing is not None:
        rates = Rates.of(settings.pricing.input_per_1k * 1000, settings.pricing.output_per_1k * 1000)
        stated[settings.model] = Price(rates=rates, source="operator")
    return stated


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
        max_output_tokens=min(settings.max_output_tokens, model.longest_reply),
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
        retention=Retention(
            deleted=None if settings.retention_days is None else timedelta(days=settings.retention_days),
            journals=timedelta(hours=settings.journal_hours),
            repeats=timedelta(hours=settings.idempotency_hours),
            revoked_keys=None if settings.revoked_key_days is None else timedelta(days=settings.revoked_key_days),
            responses=timedelta(days=settings.response_days),
        ),
    )


async def fetch_model(settings: Settings, progress: Progress | None = None) -> Path:
    """The file of the embedded demonstration model, fetched where it is missing or damaged.

    Raises:
        ConfigurationError: it could not be had; the text says the ways out.
    """
    from textllm_adapters.embedded.model_file import ensure_model

    return await asyncio.to_thread(ensure_model, settings.data_dir, progress=progress)
