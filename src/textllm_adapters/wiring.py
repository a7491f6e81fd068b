"""The composition root: the one place that knows which adapter keeps which port."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from textllm_adapters.clock import SystemClock
from textllm_adapters.settings import Settings, load_settings
from textllm_core.api_keys import AnyApiKey, Authenticate, IssueApiKey, ListApiKeys, RevokeApiKey
from textllm_core.application import Books, Conversations, Files, TextLLM
from textllm_core.audit import AuditBooks
from textllm_core.chat.attachments import Attachments
from textllm_core.chat.cancel_reply import CancelReply
from textllm_core.chat.chat_with_document import ChatWithDocument
from textllm_core.chat.chat_with_image import ChatWithImage
from textllm_core.chat.exchange import Exchange
from textllm_core.chat.resume_reply import ResumeReply
from textllm_core.chat.running import RunningExchanges
from textllm_core.chat.send_message import SendMessage
from textllm_core.chat.summarize_conversation import SummarizeConversation
from textllm_core.chat.wind_down import WindDown
from textllm_core.conversations import GetConversation
from textllm_core.errors import ConfigurationError, InvalidRequestError, StorageUnavailableError
from textllm_core.events import UNHEARD
from textllm_core.files import FilePolicy
from textllm_core.health import CheckHealth
from textllm_core.money import ZERO, Price, Rates
from textllm_core.policy import ChatPolicy
from textllm_core.pricing import Pricing
from textllm_core.reconcile import Reconcile
from textllm_core.report_usage import ReportUsage
from textllm_core.retention import ForgetReplies
from textllm_core.sessions import EndSession, GetSession, ListSessions, TodaysSession
from textllm_core.track_usage import TrackUsage

if TYPE_CHECKING:  # an adapter is imported once it is chosen, so that no one pays for the others
    from sqlalchemy.ext.asyncio import AsyncEngine

    from textllm_adapters.settings import Secret
    from textllm_core.ports.blob_store import BlobStore
    from textllm_core.ports.health_probe import HealthProbe
    from textllm_core.ports.llm import LLM
    from textllm_core.ports.rate_limiter import RateLimiter
    from textllm_core.ports.telemetry import Telemetry
    from textllm_core.ports.transcript import Transcript

__all__ = [
    "Settings",
    "check",
    "database_revision",
    "fetch_model",
    "load_settings",
    "notices",
    "open_books",
    "open_conversations",
    "open_files",
    "open_textllm",
    "upgrade_database",
]

Progress = Callable[[int, int], None]

_RETRY_S: Final = 0.5
_MEGABYTE: Final = 1024 * 1024
_STORAGE_PREFIX: Final = "LLM/"  # what the keys of all files begin with


@asynccontextmanager
async def open_textllm(
    settings: Settings,
    *,
    model_progress: Progress | None = None,
    database_patience_s: float = 0.0,
    grace_s: float | None = None,
    telemetry: Telemetry = UNHEARD,
) -> AsyncIterator[TextLLM]:
    """Build the application of one process. On exit let running replies end, then close what was opened.

    Args:
        model_progress: called with bytes so far and in all, from another thread, where the embedded model is fetched.
        database_patience_s: how long to wait for a database that does not answer yet.
        grace_s: how long running replies may take to end on exit, before they are cut short and settled; None:
            `stream_drain_s`.
        telemetry: is told what happens.
    Raises:
        ConfigurationError: the settings do not allow it; the text says what to do.
        StorageUnavailableError: the database does not answer.
    """
    check(settings)
    async with AsyncExitStack() as stack:
        engine = await _open_database(stack, settings, patience_s=database_patience_s)
        model = await _open_model(stack, settings, model_progress)
        rate_limiter = _rate_limiter(engine)
        from textllm_adapters.documents.document_reader import ChildDocumentReader
        from textllm_adapters.sql.conversation_repository import SqlConversationRepository
        from textllm_adapters.sql.health_probe import SqlHealthProbe
        from textllm_adapters.sql.ledger import SqlLedger
        from textllm_adapters.sql.reply_journal import SqlReplyJournal

        clock = SystemClock()
        ledger = SqlLedger(engine)
        conversations = SqlConversationRepository(engine)
        track_usage = TrackUsage(ledger, model.pricing, clock, telemetry)
        policy = _chat_policy(settings, model)
        journal = SqlReplyJournal(engine)
        blobs, storage_probe = await _open_blob_store(stack, settings)
        files = await _files(settings, engine, blobs, rate_limiter)
        of_turns = files.of_turns(conversations)
        running = RunningExchanges(
            journal,
            clock,
            max_detached=settings.max_detached_streams,
            drain_s=settings.stream_drain_s,
            telemetry=telemetry,
        )
        exchange = Exchange(
            llm=model.llm,
            transcript=model.transcript,
            ledger=ledger,
            conversations=conversations,
            journal=journal,
            rate_limiter=rate_limiter,
            track_usage=track_usage,
            clock=clock,
            policy=policy,
            running=running,
            attachments=Attachments(blobs),
        )
        reconcile = Reconcile(model.llm, ledger, journal, conversations, track_usage, clock)
        managed = _conversations(engine, model.transcript, running, files, keeps_messages=settings.store_messages)
        await stack.enter_async_context(_in_background(reconcile))
        await stack.enter_async_context(_in_background(managed.erase_at_provider))
        stack.push_async_callback(running.drain, settings.stream_drain_s if grace_s is None else grace_s)
        resume_reply = ResumeReply(running, journal, of_turns, clock, policy)
        yield TextLLM(
            send_message=SendMessage(exchange, policy),
            chat_with_image=ChatWithImage(exchange, of_turns, policy),
            chat_with_document=ChatWithDocument(exchange, of_turns, ChildDocumentReader(), policy),
            summarize_conversation=SummarizeConversation(exchange, GetConversation(conversations, of_turns), policy),
            resume_reply=resume_reply,
            cancel_reply=CancelReply(running, journal, resume_reply),
            wind_down=WindDown(running),
            conversations=managed,
            books=_books(stack, settings, engine),
            files=files,
            track_usage=track_usage,
            reconcile=reconcile,
            forget_replies=ForgetReplies(ledger, journal, clock),
            check_health=CheckHealth([SqlHealthProbe(engine), storage_probe]),
        )


@asynccontextmanager
async def open_books(settings: Settings) -> AsyncIterator[Books]:
    """Open what needs the database alone, for operators and reports; nothing is asked of a model.

    Raises:
        ConfigurationError, StorageUnavailableError: as `open_textllm`.
    """
    async with AsyncExitStack() as stack:
        yield _books(stack, settings, await _open_database(stack, settings, patience_s=0.0))


def _books(stack: AsyncExitStack, settings: Settings, engine: AsyncEngine) -> Books:
    from textllm_adapters.sql.api_key_repository import SqlApiKeyRepository
    from textllm_adapters.sql.audit import SqlAudit
    from textllm_adapters.sql.session_repository import SqlSessionRepository
    from textllm_adapters.sql.usage_reports import SqlUsageReports

    clock, sessions, api_keys = SystemClock(), SqlSessionRepository(engine), SqlApiKeyRepository(engine)
    patient_engine = _engine(settings, command_timeout_s=None)  # an audit takes its time; it connects if it is used
    stack.push_async_callback(patient_engine.dispose)
    return Books(
        get_session=GetSession(sessions),
        todays_session=TodaysSession(sessions, clock),
        list_sessions=ListSessions(sessions, clock),
        end_session=EndSession(sessions),
        report_usage=ReportUsage(SqlUsageReports(engine), clock),
        audit=AuditBooks(SqlAudit(patient_engine)),
        issue_api_key=IssueApiKey(api_keys, clock),
        list_api_keys=ListApiKeys(api_keys),
        revoke_api_key=RevokeApiKey(api_keys, clock),
        authenticate=Authenticate(api_keys, clock),
        any_api_key=AnyApiKey(api_keys),
    )


@asynccontextmanager
async def open_files(settings: Settings) -> AsyncIterator[Files]:
    """Open what needs the database and the store of files; nothing is asked of a model.

    Raises:
        ConfigurationError, StorageUnavailableError: as `open_textllm`.
    """
    async with AsyncExitStack() as stack:
        engine = await _open_database(stack, settings, patience_s=0.0)
        blobs, _ = await _open_blob_store(stack, settings)
        yield await _files(settings, engine, blobs, _rate_limiter(engine))


async def _files(settings: Settings, engine: AsyncEngine, blobs: BlobStore, rate_limiter: RateLimiter) -> Files:
    from textllm_adapters.filesystem.secrets import shared_secret
    from textllm_adapters.sql.file_repository import SqlFileRepository

    quota_mb = settings.max_storage_mb_per_tenant
    policy = FilePolicy(
        max_file_bytes=settings.max_file_size_mb * _MEGABYTE,
        max_tenant_bytes=None if quota_mb is None else quota_mb * _MEGABYTE,
        link_expires_in_s=settings.s3.url_expiration_s,
        # Beside the files themselves: who can serve them through our own links can read it, too.
        link_secret=await asyncio.to_thread(shared_secret, settings.data_dir / "link.secret"),
        rate_per_minute=settings.rate_limit_per_minute,
    )
    return Files.over(SqlFileRepository(engine), blobs, rate_limiter, SystemClock(), policy)


def _rate_limiter(engine: AsyncEngine) -> RateLimiter:
    if engine.dialect.name == "postgresql":
        from textllm_adapters.postgres.rate_limiter import PostgresRateLimiter

        return PostgresRateLimiter(engine)
    from textllm_adapters.sqlite.rate_limiter import SqliteRateLimiter

    return SqliteRateLimiter(engine)


@asynccontextmanager
async def open_conversations(settings: Settings) -> AsyncIterator[Conversations]:
    """Open what manages conversations: the database, the store of files, and the provider's side of them; no model.

    On exit let go on for a while what is being erased there.

    Raises:
        ConfigurationError, StorageUnavailableError: as `open_textllm`.
    """
    from textllm_adapters.sql.reply_journal import SqlReplyJournal

    async with AsyncExitStack() as stack:
        engine = await _open_database(stack, settings, patience_s=0.0)
        transcript = None
        if settings.resolved_provider == "openai":
            transcript = (await _open_openai(stack, settings)).transcript
        running = RunningExchanges(SqlReplyJournal(engine), SystemClock())
        stack.push_async_callback(running.drain, settings.stream_drain_s)
        blobs, _ = await _open_blob_store(stack, settings)
        files = await _files(settings, engine, blobs, _rate_limiter(engine))
        yield _conversations(engine, transcript, running, files, keeps_messages=settings.store_messages)


def _conversations(
    engine: AsyncEngine, transcript: Transcript | None, running: RunningExchanges, files: Files, *, keeps_messages: bool
) -> Conversations:
    from textllm_adapters.sql.conversation_repository import SqlConversationRepository
    from textllm_adapters.sql.erasures import SqlErasures

    repository, erasures = SqlConversationRepository(engine), SqlErasures(engine)
    of_turns = files.of_turns(repository)
    return Conversations.over(
        repository, erasures, transcript, running, of_turns, SystemClock(), keeps_messages=keeps_messages
    )


@asynccontextmanager
async def _in_background(recover: Callable[[], Coroutine[Any, Any, int]]) -> AsyncIterator[None]:
    """Do once what an earlier process left undone, while the block does its work."""
    recovering = asyncio.create_task(recover())
    try:
        yield
    finally:
        recovering.cancel()
        with suppress(asyncio.CancelledError, StorageUnavailableError):  # the next process does it
            await recovering


class _Model(NamedTuple):
    """What answers, chosen together: who keeps the history, what it costs, and how many tokens it may write."""

    name: str
    llm: LLM
    transcript: Transcript | None
    pricing: Pricing
    longest_reply: int = sys.maxsize


async def _open_model(stack: AsyncExitStack, settings: Settings, progress: Progress | None) -> _Model:
    if settings.resolved_provider == "embedded":
        return await _open_embedded(stack, settings, progress)
    return await _open_openai(stack, settings)


async def _open_embedded(stack: AsyncExitStack, settings: Settings, progress: Progress | None) -> _Model:
    from textllm_adapters.embedded.llm import LONGEST_REPLY, open_embedded
    from textllm_adapters.memory.prices import FixedPrices

    path = settings.local_model or await fetch_model(settings, progress)
    llm = await stack.enter_async_context(open_embedded(path))
    free = Price(rates=Rates.of(ZERO, ZERO), source="embedded")
    return _Model(llm.model, llm, None, Pricing({}, FixedPrices({llm.model: free})), LONGEST_REPLY)


async def _open_openai(stack: AsyncExitStack, settings: Settings) -> _Model:
    from textllm_adapters.openai.client import open_client

    pricing = _pricing(settings)
    client = await stack.enter_async_context(
        open_client(
            settings.openai_api_key.reveal() if settings.openai_api_key else "none",
            settings.openai_base_url,
            silence_timeout_s=max(settings.first_token_timeout_s, settings.upstream_timeout_s),
        )
    )
    if settings.llm_api == "chat_completions":
        from textllm_adapters.openai.chat_completions import ChatCompletionsLLM

        return _Model(settings.model, ChatCompletionsLLM(client), None, pricing)
    from textllm_adapters.openai.conversations import OpenAITranscript
    from textllm_adapters.openai.responses import ResponsesLLM

    transcript = OpenAITranscript(client) if settings.llm_api == "conversations" else None
    # Other servers speak the Responses API, but hardly one takes files as they are; those with conversations do.
    reads_files = transcript is not None or settings.openai_base_url is None
    return _Model(settings.model, ResponsesLLM(client, reads_files=reads_files), transcript, pricing)


def _pricing(settings: Settings) -> Pricing:
    from textllm_adapters.genai_prices.prices import GenaiPrices

    return Pricing(_stated_prices(settings), GenaiPrices(SystemClock()), unpriced_is_free=settings.unpriced == "free")


def _stated_prices(settings: Settings) -> dict[str, Price]:
    stated = {
        model: Price(
            rates=Rates.of(price.input, price.output, cached_input=price.cached_input, cache_write=price.cache_write),
            source="operator",
        )
        for model, price in settings.prices.items()
    }
    if settings.pricing is not None:
        rates = Rates.of(settings.pricing.input_per_1k * 1000, settings.pricing.output_per_1k * 1000)
        stated[settings.model] = Price(rates=rates, source="operator")
    return stated


def _chat_policy(settings: Settings, model: _Model) -> ChatPolicy:
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
        max_file_bytes=settings.max_file_size_mb * _MEGABYTE,
        max_document_chars=settings.max_document_chars,
        max_document_pages=settings.max_document_pages,
    )


async def _open_database(stack: AsyncExitStack, settings: Settings, *, patience_s: float) -> AsyncEngine:
    from textllm_adapters.sql import migrations

    engine = _engine(settings)
    stack.push_async_callback(engine.dispose)
    if engine.dialect.name == "sqlite":
        await migrations.upgrade(engine)
        return engine
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            revision = await migrations.current_revision(engine)
            break
        except StorageUnavailableError:
            if asyncio.get_running_loop().time() >= deadline:
                raise
            await asyncio.sleep(_RETRY_S)
    if revision != migrations.head_revision():
        raise ConfigurationError(
            f"The database is at revision {revision or 'none'}, but this version needs {migrations.head_revision()}; "
            "run `textllm db upgrade`."
        )
    return engine


def _engine(settings: Settings, *, command_timeout_s: float | None = 4) -> AsyncEngine:
    if settings.database.startswith("postgresql"):
        from textllm_adapters.postgres.engine import open_engine as open_postgres

        try:
            return open_postgres(settings.database, command_timeout_s=command_timeout_s)
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                "DATABASE_URL names PostgreSQL, which needs the extra `postgres` (in the checkout: "
                "pip install -e '.[postgres]', or uv run --extra postgres textllm …)."
            ) from error
    from textllm_adapters.sqlite.engine import open_engine as open_sqlite

    return open_sqlite(settings.database)


async def _open_blob_store(stack: AsyncExitStack, settings: Settings) -> tuple[BlobStore, HealthProbe]:
    """Where files are kept, and what tells whether it answers.

    Raises:
        ConfigurationError
    """
    if not settings.s3.enabled:
        from textllm_adapters.filesystem.blob_store import open_blob_store as open_files
        from textllm_adapters.filesystem.health_probe import FilesystemHealthProbe

        files = await open_files(settings.data_dir / "files")
        return files, FilesystemHealthProbe(files)
    _require_s3_sdk()
    from textllm_adapters.s3.blob_store import open_blob_store
    from textllm_adapters.s3.health_probe import S3HealthProbe

    s3 = settings.s3
    bucket = await stack.enter_async_context(
        open_blob_store(
            bucket=s3.bucket or "",  # never: the settings refuse to be enabled without one
            prefix=_STORAGE_PREFIX,
            region=s3.region,
            endpoint=s3.endpoint,
            access_key=_revealed(s3.access_key_id),
            secret_key=_revealed(s3.secret_access_key),
            session_token=_revealed(s3.session_token),
        )
    )
    return bucket, S3HealthProbe(bucket)


def _revealed(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()


def _require_s3_sdk() -> None:
    if importlib.util.find_spec("aioboto3") is None:
        raise ConfigurationError(
            "S3_ENABLED needs the extra `s3` (in the checkout: pip install -e '.[s3]', or uv run --extra s3 textllm …)."
        )


def check(settings: Settings) -> None:
    """Find out, without opening anything, whether the settings can be kept.

    Raises:
        ConfigurationError: they cannot; the text says what to do.
    """
    if settings.s3.enabled:
        _require_s3_sdk()
    if settings.resolved_provider == "embedded":
        from textllm_adapters.embedded.llm import require_runtime

        require_runtime()
        return
    try:
        _pricing(settings).price(settings.model)
    except InvalidRequestError as error:
        raise ConfigurationError(
            f"model: no price is known for {settings.model!r}. State it under `prices` (USD for one million tokens), "
            "or set `unpriced: free` to let it answer at no cost."
        ) from error


def notices(settings: Settings) -> Sequence[str]:
    """What an operator should know about settings that can be used all the same."""
    if settings.resolved_provider == "embedded":
        if settings.local_model is not None:
            return ()
        return (
            "the embedded model is for demonstration: fluent, and often wrong. Set OPENAI_API_KEY for OpenAI's, "
            "or TEXTLLM_LOCAL_MODEL for another of your own.",
        )
    from textllm_adapters.openai.lifetimes import SHUTDOWNS

    day = SHUTDOWNS.get(settings.model)
    if day is None or settings.openai_base_url is not None:
        return ()
    return (f"OpenAI shuts {settings.model} down on {day:%Y-%m-%d}; choose another `model` in time.",)


async def upgrade_database(settings: Settings) -> str:
    """Bring the database to the tables of this version; returns the revision now in force.

    Raises:
        ConfigurationError, StorageUnavailableError
    """
    from textllm_adapters.sql import migrations

    engine = _engine(settings, command_timeout_s=None)
    try:
        await migrations.upgrade(engine)
    finally:
        await engine.dispose()
    return migrations.head_revision()


async def database_revision(settings: Settings) -> tuple[str | None, str]:
    """The revision the database is at, None for an empty one, and the one this version needs.

    Raises:
        ConfigurationError, StorageUnavailableError
    """
    from textllm_adapters.sql import migrations

    engine = _engine(settings)
    try:
        return await migrations.current_revision(engine), migrations.head_revision()
    finally:
        await engine.dispose()


async def fetch_model(settings: Settings, progress: Progress | None = None) -> Path:
    """The file of the embedded demonstration model, fetched where it is missing or damaged.

    Raises:
        ConfigurationError: it could not be had; the text says the ways out.
    """
    from textllm_adapters.embedded.model_file import ensure_model

    return await asyncio.to_thread(ensure_model, settings.data_dir, progress=progress)
