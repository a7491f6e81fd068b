"""Asks each provider once how it is, for an operator who checks the settings; nothing that costs anything."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from textllm_adapters.wiring.catalogue import Catalogue
from textllm_adapters.wiring.providers import address_of, open_api_client
from textllm_core.errors import ProviderError
from textllm_core.records.models import ProviderFound
from textllm_core.steps import UNTRACED

if TYPE_CHECKING:
    from textllm_adapters.openai.listing import Listing
    from textllm_adapters.settings import ProviderSettings, Settings

_MOST_LISTED = 20  # names of a server's models that are told


async def ask_providers(settings: Settings, only: Collection[str] | None = None) -> Sequence[ProviderFound]:
    """What each provider says, in the order of the settings; one in this process is not asked.

    Args:
        only: the names of those that are asked; None: all.
    """
    named = [(name, each) for name, each in settings.all_providers.items() if only is None or name in only]
    asked = [(name, each) for name, each in named if each.kind != "embedded"]
    return await asyncio.gather(*(_ask(settings, name, provider) for name, provider in asked))


async def _ask(settings: Settings, name: str, provider: ProviderSettings) -> ProviderFound:
    from textllm_adapters.openai.listing import Listing, listing, served_context

    wanted = list(dict.fromkeys(_wanted(settings, name)))
    async with AsyncExitStack() as stack:
        client, before = await open_api_client(stack, settings, provider, UNTRACED)
        path = "/models" + (f"?api-version={provider.api_version}" if provider.api_version else "")
        try:
            if before is not None:
                await before()
            found = await listing(client, path)
        except ProviderError as error:
            found = Listing(str(error))
        context = None
        if found.fault is None and provider.base_url is not None and provider.may_tell_contexts:
            root = provider.base_url.rstrip("/").removesuffix("/v1")
            beside, _ = await open_api_client(stack, settings, provider, UNTRACED, address=root)
            context = await served_context(beside)
    return _told(name, provider, found, wanted, context)


def _wanted(settings: Settings, name: str) -> Iterator[str]:
    """The models of a provider that the settings name, as it calls them."""
    catalogue = Catalogue(settings)
    for asked in [name for name, model in settings.models.items() if not model.weights] or (settings.model,):
        if catalogue.provider_of(asked) == name:
            prefix = catalogue.prefix(name)
            yield catalogue.model_of(asked).removeprefix(f"{prefix}/" if prefix else "")


def _told(
    name: str, provider: ProviderSettings, found: Listing, wanted: Sequence[str], context: int | None
) -> ProviderFound:
    if found.fault is not None:
        return ProviderFound(name=name, is_well=False, notes=(found.fault,))
    if found.models is None:
        address = address_of(provider)
        if address is not None and urlsplit(address).path in ("", "/"):
            what = "check it (OPENAI_BASE_URL, or base_url): for most servers it ends in /v1"
            return ProviderFound(name=name, is_well=False, notes=(f"{address} lists no models; {what}.",))
        return ProviderFound(name=name, is_well=True, notes=(f"{address} is there, and lists no models.",))
    notes, contexts = [], {}
    listed = found.models
    for model in wanted if provider.kind != "azure" else ():  # whose list is of models, not of deployments
        is_any = context is not None  # llama.cpp's server answers to every name
        if not is_any and model not in listed and f"models/{model}" not in listed and f"{model}:latest" not in listed:
            known = ", ".join(list(listed)[:_MOST_LISTED]) or "none"
            notes.append(f"It does not list the model {model}; it lists {known}.")
            continue
        told = context or listed.get(model)
        if told is not None:
            contexts[model] = told
    return ProviderFound(name=name, is_well=not notes, notes=notes, contexts=contexts)
