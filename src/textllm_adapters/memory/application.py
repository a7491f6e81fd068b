"""The whole application in memory: for tests of what is built on it, with no network, no disk and no cost."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Final

from textllm_adapters.clock import SystemClock
from textllm_adapters.memory.api_key_repository import MemoryApiKeyRepository
from textllm_adapters.memory.audit import MemoryAudit
from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_adapters.memory.conversation_repository import MemoryConversationRepository
from textllm_adapters.memory.document_reader import MemoryDocumentReader
from textllm_adapters.memory.erasures import MemoryErasures
from textllm_adapters.memory.file_repository import MemoryFileRepository
from textllm_adapters.memory.ledger import MemoryLedger
from textllm_adapters.memory.ledger_upkeep import MemoryLedgerUpkeep
from textllm_adapters.memory.llm import ScriptedLLM, ScriptedReply
from textllm_adapters.memory.prices import FixedPrices
from textllm_adapters.memory.rate_limiter import MemoryRateLimiter
from textllm_adapters.memory.reply_journal import MemoryReplyJournal
from textllm_adapters.memory.schedule import MemorySchedule
from textllm_adapters.memory.session_repository import MemorySessionRepository
from textllm_adapters.memory.store import MemoryStore
from textllm_adapters.memory.stored_responses import MemoryStoredResponses
from textllm_adapters.memory.usage_reports import MemoryUsageReports
from textllm_core.application import Administration, Conversations, Files, Ports, TextLLM
from textllm_core.chat.running import RunningExchanges
from textllm_core.events import UNHEARD
from textllm_core.files import FilePolicy
from textllm_core.money import Price, Rates
from textllm_core.policy import ChatPolicy
from textllm_core.ports.blob_store import BlobStore
from textllm_core.ports.clock import Clock
from textllm_core.ports.llm import LLM
from textllm_core.ports.prices import Prices
from textllm_core.ports.rate_limiter import RateLimiter
from textllm_core.ports.telemetry import Telemetry
from textllm_core.ports.transcript import Transcript
from textllm_core.pricing import Pricing

SCRIPTED_POLICY: Final = ChatPolicy(
    model="scripted",
    prompts={},
    max_input_chars=10_000,
    max_history_items=100,
    max_output_tokens=4096,
    rate_per_minute=1000,
    daily_limit=Decimal(5),
    warn_at=Decimal(1),
    keep_messages=True,
    first_token_timeout_s=60,
    silence_timeout_s=120,
    outcome_pauses_s=(0.0, 0.0),  # what was scripted is there at once, or never
)
SCRIPTED_FILE_POLICY: Final = FilePolicy(
    max_file_bytes=20 * 1024 * 1024,
    max_tenant_bytes=None,
    link_expires_in_s=86_400,
    rate_per_minute=1000,
)
_LINK_SECRET: Final = b"scripted"
# USD for one million tokens.
SCRIPTED_PRICE: Final = Price(rates=Rates.of(Decimal(2), Decimal(8)), source="scripted")


@asynccontextmanager
async def open_in_memory(
    *replies: str | ScriptedReply,
    llm: LLM | None = None,
    store: MemoryStore | None = None,
    clock: Clock | None = None,
    policy: ChatPolicy = SCRIPTED_POLICY,
    price: Price = SCRIPTED_PRICE,
    blobs: BlobStore | None = None,
    file_policy: FilePolicy = SCRIPTED_FILE_POLICY,
    grace_s: float = 10.0,
    telemetry: Telemetry = UNHEARD,
) -> AsyncIterator[TextLLM]:
    """TextLLM whose model says `replies`, one a turn, and then echoes. On exit running replies may end.

    Args:
        llm: the model, anyone's; a `ScriptedLLM` says the replies after what it has to say already.
        store: where everything is kept; given again, it is all still there.
        clock: left out, the system's.
        price: what `policy.model` charges.
        blobs: where the bytes of files are; given again, they are all still there.
        grace_s: how long running replies may take to end on exit, before they are cut short and settled.
        telemetry: is told what happens.
    """
    llm, store, clock = llm or ScriptedLLM(), store or MemoryStore(), clock or SystemClock()
    if replies:
        if not isinstance(llm, ScriptedLLM):
            raise TypeError("Give replies, or a model that has its own; only a ScriptedLLM takes both.")
        llm.script(*(ScriptedReply(text=reply) if isinstance(reply, str) else reply for reply in replies))
    running = RunningExchanges(MemoryReplyJournal(store), clock, telemetry=telemetry)
    prices = FixedPrices({policy.model: price})
    ports = memory_ports(store, llm, prices, clock=clock, blobs=blobs or MemoryBlobStore(), telemetry=telemetry)
    try:
        yield TextLLM.over(ports, policy, file_policy, running)
    finally:
        await running.close(grace_s)


def memory_ports(
    store: MemoryStore, llm: LLM, prices: Prices, *, clock: Clock, blobs: BlobStore, telemetry: Telemetry = UNHEARD
) -> Ports:
    """Adapters of all ports over one memory."""
    return Ports(
        llm=llm,
        transcript=None,
        pricing=Pricing({}, prices),
        ledger=MemoryLedger(store),
        upkeep=MemoryLedgerUpkeep(store),
        conversations=MemoryConversationRepository(store),
        sessions=MemorySessionRepository(store),
        reports=MemoryUsageReports(store),
        audit=MemoryAudit(store),
        api_keys=MemoryApiKeyRepository(store),
        erasures=MemoryErasures(store),
        journal=MemoryReplyJournal(store),
        responses=MemoryStoredResponses(store),
        rate_limiter=MemoryRateLimiter(clock),
        files=MemoryFileRepository(store),
        blobs=blobs,
        documents=MemoryDocumentReader(),
        clock=clock,
        schedule=MemorySchedule(),
        link_secret=_LINK_SECRET,
        telemetry=telemetry,
    )


def memory_conversations(
    store: MemoryStore,
    clock: Clock,
    running: RunningExchanges,
    files: Files,
    transcript: Transcript | None = None,
    *,
    keeps_messages: bool = True,
    max_per_user: int = 10_000,
    max_input_chars: int = 10_000,
    telemetry: Telemetry = UNHEARD,
) -> Conversations:
    """The part of the application that manages conversations."""
    repository, erasures = MemoryConversationRepository(store), MemoryErasures(store)
    of_turns = files.of_turns(repository)
    return Conversations.over(
        repository,
        erasures,
        transcript,
        running,
        of_turns,
        clock,
        admit=files.admit,
        keeps_messages=keeps_messages,
        max_per_user=max_per_user,
        max_input_chars=max_input_chars,
        telemetry=telemetry,
    )


def memory_administration(store: MemoryStore, clock: Clock, models: Sequence[str] | None = None) -> Administration:
    """The part of the application that asks no model; `models`: the names that there are, None where any may be one."""
    return Administration.over(
        MemorySessionRepository(store),
        MemoryUsageReports(store),
        MemoryAudit(store),
        MemoryApiKeyRepository(store),
        clock,
        models,
    )


def memory_files(
    store: MemoryStore,
    blobs: BlobStore,
    rate_limiter: RateLimiter,
    clock: Clock,
    policy: FilePolicy = SCRIPTED_FILE_POLICY,
) -> Files:
    """The part of the application that keeps files."""
    return Files.over(MemoryFileRepository(store), blobs, rate_limiter, clock, policy, link_secret=_LINK_SECRET)
