"""Keeps `Engine` over a server: its settings, its database and its model are its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import msgspec

from textllm_adapters.settings import Settings
from textllm_cli.engine import Administration, Conversations, Files, Progress, Talk
from textllm_cli.remote.administration import RemoteAdministration
from textllm_cli.remote.client import open_client
from textllm_cli.remote.conversations import RemoteConversations
from textllm_cli.remote.files import RemoteFiles
from textllm_cli.remote.turns import RemoteTalk
from textllm_core.records.models import ModelList


class _Config(msgspec.Struct):
    config: Mapping[str, Any]


@asynccontextmanager
async def open_textllm(
    settings: Settings,
    *,
    model_progress: Progress | None = None,  # noqa: ARG001 - a server fetches its own model
    grace_s: float | None = None,  # noqa: ARG001 - nobody waits for what nobody hears
) -> AsyncIterator[Talk]:
    """What talks. Leaving it ends the replies that are still running."""
    async with open_client(settings) as client:
        talk = RemoteTalk(client)
        try:
            yield talk
        finally:
            await talk.cut_short()


@asynccontextmanager
async def open_conversations(settings: Settings) -> AsyncIterator[Conversations]:
    """What manages conversations."""
    async with open_client(settings) as client:
        yield RemoteConversations(client)


@asynccontextmanager
async def open_administration(settings: Settings) -> AsyncIterator[Administration]:
    """Sessions, usage and keys."""
    async with open_client(settings) as client:
        yield RemoteAdministration(client)


@asynccontextmanager
async def open_files(settings: Settings) -> AsyncIterator[Files]:
    """What users keep."""
    async with open_client(settings) as client:
        yield RemoteFiles(client)


async def config_in_force(settings: Settings) -> Mapping[str, Any]:
    """The server's settings; where it requires keys, it shows them to its operator's token alone."""
    async with open_client(settings) as client:
        return (await client.get("/config", _Config)).config


async def list_models(settings: Settings) -> ModelList:
    """The models that the server's settings name."""
    async with open_client(settings) as client:
        return await client.get("/v1/models", ModelList)


async def health(settings: Settings) -> Mapping[str, Any]:
    """How the server and its parts do."""
    async with open_client(settings) as client:
        return await client.call("GET", "/health", dict[str, Any], also=[HTTPStatus.SERVICE_UNAVAILABLE])
