"""Builds applications out of adapters, opens them, and closes what was opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from textllm_adapters.settings import Settings, load_settings
from textllm_adapters.wiring.checks import check, priced
from textllm_adapters.wiring.models import Model, chat_policy, open_models, open_transcript, public_settings
from textllm_adapters.wiring.providers import Progress
from textllm_adapters.wiring.storage import (
    api_keys_of,
    close_database,
    conversations_of,
    engine_of,
    erasures_of,
    in_background,
    journal_of,
    ledger_of,
    open_blobs,
    open_clock,
    open_database,
    rate_limiter_of,
    responses_of,
    turnstile_of,
    upkeep_of,
)
from textllm_core.application import Adapters, Administration, Conversations, Files, Ports, TextLLM
from textllm_core.chat.running import RunningExchanges
from textllm_core.events import UNHEARD
from textllm_core.files import FilePolicy
from textllm_core.ready_transcripts import ReadyTranscripts
from textllm_core.reconcile import RECOVER_EVERY_S
from textllm_core.steps import UNTRACED
from textllm_core.uploads import MEGABYTE

if TYPE_CHECKING:  # an adapter is imported once it is chosen, so that no one pays for the others
    from pathlib import Path

    from sqlalchemy.ext.asyncio import AsyncEngine

    from textllm_core.ports.blob_store import BlobStore
    from textllm_core.ports.health_probe import HealthProbe
    from textllm_core.ports.transcript import Transcript


@asynccontextmanager
async def open_textllm(
    settings: Settings | None = None,
    *,
    model_progress: Progress | None = None,
    database_patience_s: float = 0.0,
    grace_s: float | None = None,
    serves: bool = False,
    **adapters: Unpack[Adapters],
) -> AsyncIterator[TextLLM]:
    """Build the application of one process. On exit let running replies end, then close what was opened.

    Who calls it afterwards is told so, by `ServiceUnavailableError`.

    Args:
        settings: left out, those of the person at this computer: `load_settings(is_personal=True)`.
        model_progress: called with bytes so far and in all, from another thread, where the embedded model is fetched.
        database_patience_s: how long to wait for a database that does not answer yet.
        grace_s: how long running replies may take to end on exit, before they are cut short and settled; None:
            `stream_drain_s`.
        serves: many begin conversations here, so that some are made ahead.
        adapters: of ports by their names in `Ports`, in the place of what the settings would choose; whoever gives one
            opens and closes it. With `llm` and no `transcript`, the history is sent with each turn; its model is called
            `settings.model`, and costs what `settings.prices` or `pricing` say.
    Raises:
        ConfigurationError: the settings do not allow it; the text says what to do.
        StorageUnavailableError: the database does not answer.
    """
    if settings is None:
        settings = load_settings(is_personal=True)
    if "llm" not in adapters:
        check(settings)
    telemetry = adapters.get("telemetry", UNHEARD)
    async with AsyncExitStack() as stack:
        engine = await open_database(stack, settings, patience_s=database_patience_s)
        clock, erasures = await open_clock(stack, engine), erasures_of(engine)

        async def ahead(transcript: Transcript) -> Transcript:
            if not serves or not settings.store_messages or not settings.ready_conversations:
                return transcript
            ready = ReadyTranscripts(transcript, erasures, clock, most=settings.ready_conversations)
            await stack.enter_async_context(ready.kept())
            return ready

        if "llm" in adapters:
            pricing, given = adapters.get("pricing") or priced(settings), adapters.get("transcript")
            model = Model(settings.model, adapters["llm"], await ahead(given) if given else None, pricing)
        else:
            model = await open_models(stack, settings, model_progress, adapters.get("tracer", UNTRACED), ahead)
        from textllm_adapters.documents.document_reader import ChildDocumentReader
        from textllm_adapters.filesystem.secrets import shared_secret
        from textllm_adapters.sql.audit import SqlAudit
        from textllm_adapters.sql.file_repository import SqlFileRepository
        from textllm_adapters.sql.health_probe import SqlHealthProbe
        from textllm_adapters.sql.schedule import SqlSchedule
        from textllm_adapters.sql.session_repository import SqlSessionRepository
        from textllm_adapters.sql.usage_reports import SqlUsageReports

        probes: list[HealthProbe] = [SqlHealthProbe(engine)]
        if "blobs" in adapters:
            blobs = adapters["blobs"]
        else:
            blobs, storage_probe = await open_blobs(stack, settings)
            probes.append(storage_probe)
        ports = Ports(
            llm=model.llm,
            transcript=model.transcript,
            routes=model.routes,
            pricing=model.pricing,
            ledger=ledger_of(engine),
            upkeep=upkeep_of(engine),
            conversations=conversations_of(engine),
            sessions=SqlSessionRepository(engine),
            reports=SqlUsageReports(engine),
            audit=SqlAudit(_patient(stack, settings)),
            api_keys=api_keys_of(engine),
            erasures=erasures,
            journal=journal_of(engine),
            responses=responses_of(engine),
            rate_limiter=rate_limiter_of(engine),
            turnstile=None if adapters.keys() & {"ledger", "rate_limiter"} else turnstile_of(engine),
            files=SqlFileRepository(engine),
            blobs=blobs,
            documents=ChildDocumentReader(),
            clock=clock,
            schedule=SqlSchedule(engine),
            link_secret=await asyncio.to_thread(shared_secret, _link_secret(settings)),
            probes=probes,
        )
        ports = replace(ports, **adapters)
        running = RunningExchanges(
            ports.journal,
            ports.clock,
            max_detached=settings.max_detached_streams,
            drain_s=settings.stream_drain_s,
            telemetry=telemetry,
        )
        textllm = TextLLM.over(ports, chat_policy(settings, model), _file_policy(settings), running)
        await stack.enter_async_context(in_background(textllm.reconcile, every_s=RECOVER_EVERY_S))
        await stack.enter_async_context(in_background(textllm.conversations.erase_at_provider))
        if serves and model.learn is not None:
            await stack.enter_async_context(in_background(model.learn))
        stack.push_async_callback(running.close, settings.stream_drain_s if grace_s is None else grace_s)
        yield textllm


@asynccontextmanager
async def try_out(
    settings: Settings, *, model_progress: Progress | None = None, database_patience_s: float = 0.0
) -> AsyncIterator[Administration]:
    """Open as much of what `open_textllm` opens as may fail to, for a process that only starts others.

    It is spared what they load and do. Arguments and errors are those of `open_textllm`.
    """
    check(settings)
    async with AsyncExitStack() as stack:
        engine = await open_database(stack, settings, patience_s=database_patience_s)
        if any(provider.kind == "embedded" for provider in settings.all_providers.values()):
            await open_models(
                stack, settings, model_progress
            )  # a client of OpenAI's opens always: it asks for nothing yet
        blobs, _ = await open_blobs(stack, settings)
        await _files(stack, settings, engine, blobs)
        yield await _administration(stack, settings, engine)


@asynccontextmanager
async def open_administration(settings: Settings) -> AsyncIterator[Administration]:
    """Open what needs the database alone, for operators and reports; nothing is asked of a model.

    Raises:
        ConfigurationError, StorageUnavailableError: as `open_textllm`.
    """
    async with AsyncExitStack() as stack:
        yield await _administration(stack, settings, await open_database(stack, settings, patience_s=0.0))


async def _administration(stack: AsyncExitStack, settings: Settings, engine: AsyncEngine) -> Administration:
    from textllm_adapters.sql.audit import SqlAudit
    from textllm_adapters.sql.session_repository import SqlSessionRepository
    from textllm_adapters.sql.usage_reports import SqlUsageReports

    return Administration.over(
        SqlSessionRepository(engine),
        SqlUsageReports(engine),
        SqlAudit(_patient(stack, settings)),
        api_keys_of(engine),
        await open_clock(stack, engine),
        tuple(settings.models) or None,
    )


def _patient(stack: AsyncExitStack, settings: Settings) -> AsyncEngine:
    """For an audit, which takes its time; it connects if it is used."""
    engine = engine_of(settings, command_timeout_s=None)
    stack.push_async_callback(close_database, engine)
    return engine


@asynccontextmanager
async def open_files(settings: Settings) -> AsyncIterator[Files]:
    """Open what needs the database and the store of files; nothing is asked of a model.

    Raises:
        ConfigurationError, StorageUnavailableError: as `open_textllm`.
    """
    async with AsyncExitStack() as stack:
        engine = await open_database(stack, settings, patience_s=0.0)
        blobs, _ = await open_blobs(stack, settings)
        yield await _files(stack, settings, engine, blobs)


async def _files(stack: AsyncExitStack, settings: Settings, engine: AsyncEngine, blobs: BlobStore) -> Files:
    from textllm_adapters.filesystem.secrets import shared_secret
    from textllm_adapters.sql.file_repository import SqlFileRepository

    secret = await asyncio.to_thread(shared_secret, _link_secret(settings))
    return Files.over(
        SqlFileRepository(engine),
        blobs,
        rate_limiter_of(engine),
        await open_clock(stack, engine),
        _file_policy(settings),
        link_secret=secret,
    )


def _link_secret(settings: Settings) -> Path:
    """Beside the files themselves: who can serve them through our own links can read it, too."""
    return settings.data_dir / "link.secret"


def _file_policy(settings: Settings) -> FilePolicy:
    quota_mb = settings.max_storage_mb_per_tenant
    return FilePolicy(
        max_file_bytes=settings.max_file_size_mb * MEGABYTE,
        max_tenant_bytes=None if quota_mb is None else quota_mb * MEGABYTE,
        link_expires_in_s=settings.s3.url_expiration_s,
        rate_per_minute=settings.rate_limit_per_minute,
    )


@asynccontextmanager
async def open_conversations(settings: Settings) -> AsyncIterator[Conversations]:
    """Open what manages conversations: the database, the store of files, and the provider's side of them; no model.

    On exit let go on for a while what is being erased there.

    Raises:
        ConfigurationError, StorageUnavailableError: as `open_textllm`.
    """
    async with AsyncExitStack() as stack:
        engine = await open_database(stack, settings, patience_s=0.0)
        transcript = await open_transcript(stack, settings)
        blobs, _ = await open_blobs(stack, settings)
        files, clock = await _files(stack, settings, engine, blobs), await open_clock(stack, engine)
        running = RunningExchanges(journal_of(engine), clock)
        stack.push_async_callback(running.close, settings.stream_drain_s)  # before what it needs is closed
        repository = conversations_of(engine)
        yield Conversations.over(
            repository,
            erasures_of(engine),
            transcript,
            running,
            files.of_turns(repository),
            clock,
            admit=files.admit,
            keeps_messages=settings.store_messages,
            max_per_user=settings.max_conversations_per_user,
            max_input_chars=settings.max_input_length,
        )


async def config_in_force(settings: Settings) -> Mapping[str, Any]:
    """The settings, without secrets."""
    return public_settings(settings)
