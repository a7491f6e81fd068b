"""What can be told of settings before anything is opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final

from textllm_adapters.settings import Settings
from textllm_adapters.wiring.catalogue import Catalogue
from textllm_adapters.wiring.models import own_model_of, pricing_of
from textllm_adapters.wiring.storage import require_s3_sdk
from textllm_core.errors import ConfigurationError, InvalidRequestError

if TYPE_CHECKING:
    from textllm_adapters.settings.providers import HostedToolSettings
    from textllm_core.pricing import Pricing

_DEMONSTRATION: Final = (
    "the embedded model is for demonstration: fluent, and often wrong. Set OPENAI_API_KEY for OpenAI's, "
    "or TEXTLLM_LOCAL_MODEL for another of your own."
)


def check(settings: Settings) -> None:
    """Find out, without opening anything, whether the settings can be kept.

    Raises:
        ConfigurationError: they cannot; the text says what to do.
    """
    if settings.s3.enabled:
        require_s3_sdk()
    if any(provider.kind == "embedded" for provider in settings.all_providers.values()):
        from textllm_adapters.embedded.llm import require_runtime

        require_runtime()
    if own_model_of(settings) is None or settings.models:
        priced(settings)


def priced(settings: Settings) -> Pricing:
    """What models cost.

    Raises:
        ConfigurationError: what the operator's models cost, nobody knows; its text names them all.
    """
    pricing, catalogue = pricing_of(settings), Catalogue(settings)
    named = [name for name, model in settings.models.items() if not model.weights] or [settings.model]
    unpriced = [name for name in named if not _is_priced(pricing, catalogue, name)]
    if not unpriced:
        return pricing
    where = ", ".join(f"`models.{name}.price`" for name in unpriced) if settings.models else "`prices`"
    raise ConfigurationError(
        f"{'models' if settings.models else 'model'}: no price is known for {', '.join(map(repr, unpriced))}. "
        f"State it in {where} (USD for one million tokens), or set `unpriced: free` to let what has no price answer "
        "at no cost."
    )


def _is_priced(pricing: Pricing, catalogue: Catalogue, name: str) -> bool:
    try:
        pricing.price(catalogue.model_of(name))
    except InvalidRequestError:
        return False
    return True


def allowed_tools(settings: Settings) -> Sequence[str]:
    """Which tools on their own servers providers may use, and what a call costs: a sentence for each provider."""
    allowing = ((name, provider.hosted_tools) for name, provider in settings.all_providers.items())
    return [
        f"{name}: its own tools may be used: "
        + ", ".join(f"{kind} for {tool.price:f} USD a call{_limits(kind, tool)}" for kind, tool in tools.items())
        + f"; {settings.max_tool_calls} calls at most in one reply."
        for name, tools in allowing
        if tools
    ]


def _limits(kind: str, tool: HostedToolSettings) -> str:
    """What an operator should know of what requests may name."""
    if kind == "file_search" and not tool.is_limited:
        return " (with no vector store: name them in `allowed`)"
    return " (with any server: `allowed` names some)" if kind == "mcp" and not tool.is_limited else ""


def notices(settings: Settings, *, today: date | None = None) -> Sequence[str]:
    """What an operator should know about settings that can be used all the same.

    Args:
        today: left out, the day it is in UTC.
    """
    embedded = (each for each in settings.all_providers.values() if each.kind == "embedded")
    told = [_DEMONSTRATION for each in embedded if (each.model_file or settings.local_model) is None]
    return (*told, *_shutdowns(settings, today or datetime.now(UTC).date()))


def _shutdowns(settings: Settings, today: date) -> Iterator[str]:
    """Which of the models that can be asked OpenAI has shut down, or is about to."""
    from textllm_adapters.openai.lifetimes import shutdown_of

    catalogue, providers = Catalogue(settings), settings.all_providers
    for name in settings.models or (settings.model,):
        provider = providers[catalogue.provider_of(name)]
        if provider.kind in ("embedded", "azure") or catalogue.asked_by(name) != (name,):
            continue  # of another maker, which has days of its own; or of several, each of which has a name
        model = catalogue.own_name_of(name)
        if (day := shutdown_of(model, provider.base_url)) is None:
            continue
        where = f"models.{name}.model" if settings.models else "model"
        if day < today:
            yield f"OpenAI shut {model} down on {day:%Y-%m-%d}: it answers no more. Choose another `{where}`."
        else:
            yield f"OpenAI shuts {model} down on {day:%Y-%m-%d}; choose another `{where}` in time."
