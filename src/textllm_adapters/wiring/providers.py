"""Opens a provider: how it is spoken to, and what goes there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from msgspec import structs

from textllm_adapters.settings import ProviderSettings, Settings, Supports
from textllm_adapters.wiring.catalogue import reads_files
from textllm_core.chat.routes import Route
from textllm_core.records.hosted import HostedTerms

if TYPE_CHECKING:  # an adapter is imported once it is chosen, so that no one pays for the others
    from textllm_adapters.openai.client import Client
    from textllm_adapters.openai.dialect import Dialect
    from textllm_core.ports.llm import LLM
    from textllm_core.ports.tracer import Tracer
    from textllm_core.ports.transcript import Transcript

Progress = Callable[[int, int], None]


class Way(NamedTuple):
    """An open provider.

    Args:
        route: to its models.
        hasty: `route.llm`, for a model that has others behind it: it tries once.
        own_model: the one model that it has; None: it is asked by name.
        before: is awaited before each call.
        learn: takes what it says of the context of a model, in tokens.
    """

    route: Route
    hasty: LLM
    own_model: str | None = None
    before: Callable[[], Awaitable[None]] | None = None
    learn: Callable[[str, int], None] | None = None


async def open_provider(
    stack: AsyncExitStack,
    settings: Settings,
    prefix: str,
    provider: ProviderSettings,
    progress: Progress | None,
    tracer: Tracer,
) -> Way:
    """The provider, open until the stack is closed; nothing is asked of it yet.

    Args:
        prefix: what stands before the names of its models and ids; empty: nothing.
    Raises:
        ConfigurationError: it could not be had.
    """
    timeouts = provider.timeouts
    if provider.kind == "embedded":
        from textllm_adapters.embedded.llm import LONGEST_REPLY, open_embedded

        path = provider.model_file or settings.local_model or await fetch_model(settings, progress)
        own = await stack.enter_async_context(open_embedded(path))
        way = Way(Route(llm=own, shortest_reply=1, longest_reply=LONGEST_REPLY), own, own.model)
    else:
        way = await _open_api(stack, settings, provider, tracer)
    route = replace(
        way.route,
        provider=prefix,
        hosted={
            kind: HostedTerms(price=tool.price, tokens=tool.tokens, allowed=tool.allowed, tenants=tool.tenants)
            for kind, tool in provider.hosted_tools.items()
        },
        first_token_timeout_s=timeouts.first_token_s,
        silence_timeout_s=timeouts.silence_s,
    )
    way = way._replace(route=route)
    return _named(way, prefix, provider) if prefix or provider.max_concurrency or provider.token_command else way


async def open_api_client(
    stack: AsyncExitStack,
    settings: Settings,
    provider: ProviderSettings,
    tracer: Tracer,
    *,
    address: str | None = None,
) -> tuple[Client, Callable[[], Awaitable[None]] | None]:
    """A client of a provider, open until the stack is closed; and what is to be awaited before each call, if anything.

    Args:
        address: left out, that of its API.
    """
    from textllm_adapters.openai.client import open_client

    silence_s = max(
        provider.timeouts.first_token_s or settings.first_token_timeout_s,
        provider.timeouts.silence_s or settings.upstream_timeout_s,
    )
    is_own = not settings.providers  # what the environment adds to calls is not for all providers
    has_key_header = provider.kind == "azure" and not provider.token_command
    client = await stack.enter_async_context(
        open_client(
            provider.api_key.reveal() if provider.api_key else "none",
            address or address_of(provider),
            headers=None if is_own else {name: text.reveal() for name, text in provider.headers.items()},
            key_header="api-key" if has_key_header else "Authorization",
            silence_timeout_s=silence_s,
            tracer=tracer,
        )
    )
    if not provider.token_command:
        return client, None
    from textllm_adapters.openai.tokens import CommandToken

    return client, CommandToken(client, provider.token_command).refresh


async def _open_api(stack: AsyncExitStack, settings: Settings, provider: ProviderSettings, tracer: Tracer) -> Way:
    client, before = await open_api_client(stack, settings, provider, tracer)
    from textllm_adapters.openai.deployments import Deployments

    deployments = Deployments(provider.deployments, provider.api_version)  # of Azure alone; for all others nothing
    if provider.speaks_chat:
        from textllm_adapters.openai.chat_completions import ChatCompletionsLLM
        from textllm_adapters.openai.dialect import Dialect

        dialect = _with(Dialect.of_chat(client.url.host), provider.supports)
        dialect = structs.replace(dialect, trusts_cost=provider.trusts_cost)
        chat = ChatCompletionsLLM(client, dialect=dialect, deployments=deployments)
        return Way(Route(llm=chat, shortest_reply=1), chat.trying_once(), before=before, learn=chat.learn)
    from textllm_adapters.openai.dialect import RESPONSES, Lessons
    from textllm_adapters.openai.http import ONCE
    from textllm_adapters.openai.responses import ResponsesLLM

    transcript: Transcript | None = None
    if provider.kind == "openai":
        from textllm_adapters.openai.conversations import OpenAITranscript

        transcript = OpenAITranscript(client)
    lessons = Lessons(_with(RESPONSES, provider.supports))
    llm = ResponsesLLM(client, reads_files=reads_files(provider), lessons=lessons, deployments=deployments)
    return Way(Route(llm=llm, transcript=transcript), replace(llm, retries=ONCE), before=before, learn=lessons.learn)


def _with(dialect: Dialect, supports: Supports) -> Dialect:
    """What a server takes, where its operator says so."""
    stated = {name: getattr(supports, name) for name in supports.__struct_fields__}
    return structs.replace(dialect, **{name: value for name, value in stated.items() if value is not None})


def _named(way: Way, prefix: str, provider: ProviderSettings) -> Way:
    """The same with the provider's name before all that it tells, and within its bounds."""
    from textllm_adapters.routing.one import NamedLLM, NamedTranscript, Places, always

    places = Places(provider.max_concurrency, prefix or "openai")
    before = way.before or always
    route, transcript = way.route, way.route.transcript
    if transcript is not None and prefix:
        transcript = NamedTranscript(transcript, prefix)
    named = replace(route, llm=NamedLLM(route.llm, prefix, places, before), transcript=transcript)
    return way._replace(route=named, hasty=NamedLLM(way.hasty, prefix, places, before))


def address_of(provider: ProviderSettings) -> str | None:
    """Up to what the paths of its API follow; of a resource of Azure alone, what Azure has there."""
    if provider.kind != "azure" or provider.base_url is None or urlsplit(provider.base_url).path not in ("", "/"):
        return provider.base_url
    return provider.base_url.rstrip("/") + ("/openai" if provider.api_version else "/openai/v1")


async def fetch_model(settings: Settings, progress: Progress | None = None) -> Path:
    """The file of the embedded demonstration model, fetched where it is missing or damaged.

    Raises:
        ConfigurationError: it could not be had; the text says the ways out.
    """
    from textllm_adapters.embedded.model_file import ensure_model

    return await asyncio.to_thread(ensure_model, settings.data_dir, progress=progress)
