"""The core over memory adapters: no disk, no sockets, a clock that stands still."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.memory.application import SCRIPTED_FILE_POLICY, SCRIPTED_POLICY, memory_files
from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_adapters.memory.clock import FixedClock
from textllm_adapters.memory.conversation_repository import MemoryConversationRepository
from textllm_adapters.memory.document_reader import MemoryDocumentReader
from textllm_adapters.memory.ledger import MemoryLedger
from textllm_adapters.memory.llm import ScriptedLLM
from textllm_adapters.memory.prices import FixedPrices
from textllm_adapters.memory.rate_limiter import MemoryRateLimiter
from textllm_adapters.memory.reply_journal import MemoryReplyJournal
from textllm_adapters.memory.session_repository import MemorySessionRepository
from textllm_adapters.memory.store import MemoryStore
from textllm_adapters.memory.telemetry import MemoryTelemetry
from textllm_adapters.memory.tracer import MemoryTracer
from textllm_adapters.memory.transcript import MemoryTranscript
from textllm_core import Caller, ChatPolicy, Exchange, LedgerEntry, Reply, SendMessage, TextTurn, TrackUsage
from textllm_core.chat.attachments import Attachments
from textllm_core.chat.cancel_reply import CancelReply
from textllm_core.chat.chat_with_document import ChatWithDocument
from textllm_core.chat.chat_with_image import ChatWithImage
from textllm_core.chat.resume_reply import ResumeReply
from textllm_core.chat.running import RunningExchanges
from textllm_core.conversations import GetConversation
from textllm_core.files import FilePolicy
from textllm_core.money import Price, Rates
from textllm_core.ports.blob_store import BlobStore
from textllm_core.ports.ledger import Ledger
from textllm_core.pricing import Pricing
from textllm_core.reconcile import Reconcile
from textllm_core.records.messages import Message
from textllm_core.retention import ForgetReplies
from textllm_core.summarize_conversation import SummarizeConversation

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
GPT = Price(rates=Rates.of(Decimal("2.5"), Decimal(10), cached_input=Decimal("1.25")), source="test")
POLICY = replace(SCRIPTED_POLICY, model="gpt-4o", prompts={"default": "Be brief."})


@dataclass
class Bench:
    """One application over memory, open for inspection."""

    policy: ChatPolicy = POLICY
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: FixedClock = field(default_factory=lambda: FixedClock(NOON))
    transcript: MemoryTranscript | None = field(default_factory=MemoryTranscript)
    max_detached: int = 256
    drain_s: float = 120.0
    max_running: int = 16_384
    max_starting: int = 8
    start_timeout_s: float = 20.0
    blobs: BlobStore = field(default_factory=MemoryBlobStore)
    file_policy: FilePolicy = SCRIPTED_FILE_POLICY
    telemetry: MemoryTelemetry = field(default_factory=MemoryTelemetry)
    tracer: MemoryTracer = field(default_factory=MemoryTracer)
    ledger_type: Callable[[MemoryStore], Ledger] = MemoryLedger

    def __post_init__(self) -> None:
        self.llm = ScriptedLLM(transcript=self.transcript)
        self.ledger = self.ledger_type(self.store)
        self.conversations = MemoryConversationRepository(self.store)
        self.sessions = MemorySessionRepository(self.store)
        pricing = Pricing({}, FixedPrices({"gpt-4o": GPT}))
        self.track_usage = TrackUsage(self.ledger, pricing, self.clock, self.telemetry)
        self.journal = MemoryReplyJournal(self.store)
        self.running = RunningExchanges(
            self.journal,
            self.clock,
            max_detached=self.max_detached,
            drain_s=self.drain_s,
            max_running=self.max_running,
            max_starting=self.max_starting,
            start_timeout_s=self.start_timeout_s,
            telemetry=self.telemetry,
        )
        rate_limiter = MemoryRateLimiter(self.clock)
        self.files = memory_files(self.store, self.blobs, rate_limiter, self.clock, self.file_policy)
        self.exchange = Exchange(
            llm=self.llm,
            transcript=self.transcript,
            ledger=self.ledger,
            conversations=self.conversations,
            journal=self.journal,
            rate_limiter=rate_limiter,
            track_usage=self.track_usage,
            clock=self.clock,
            policy=self.policy,
            running=self.running,
            attachments=Attachments(self.blobs),
            tracer=self.tracer,
        )
        self.send_message = SendMessage(self.exchange, self.policy)
        of_turns = self.files.of_turns(self.conversations)
        self.chat_with_image = ChatWithImage(self.exchange, of_turns, self.policy)
        self.chat_with_document = ChatWithDocument(self.exchange, of_turns, MemoryDocumentReader(), self.policy)
        self.summarize = SummarizeConversation(
            self.exchange, GetConversation(self.conversations, of_turns), self.policy
        )
        self.resume_reply = ResumeReply(self.running, self.journal, of_turns, self.clock, self.policy)
        self.cancel_reply = CancelReply(self.running, self.journal, self.resume_reply)
        self.forget_replies = ForgetReplies(self.ledger, self.journal, rate_limiter, self.clock)
        self.reconcile = Reconcile(
            self.llm, self.ledger, self.journal, self.conversations, self.track_usage, self.clock
        )

    async def say(self, text: str, conversation_id: str | None = None, **options: Any) -> Reply:
        self.clock.advance(timedelta(seconds=1))
        return await self.send_message(Caller(), TextTurn(text, conversation_id, "ada", **options))

    async def entries(self) -> list[LedgerEntry]:
        """Ada's ledger, once nothing runs any more."""
        await self.running.drain(10)
        return list(await self.ledger.entries("default", "ada"))

    async def said(self, entry: LedgerEntry) -> Sequence[Message]:
        """All messages of the conversation of an entry."""
        key = entry.tenant_id, entry.user_id, entry.conversation_id
        return await self.conversations.last_messages(*key, limit=None)

    async def check_books(self) -> None:
        """Nothing is held, nothing runs, and all counters follow from the ledger."""
        await self.running.drain(10)
        assert self.store.holds == {}
        assert all(kept.turn_id is None for kept in self.store.conversations.values())
        assert all(kept.reserved == 0 for kept in self.store.sessions.values())
        assert all(entry.status != "pending" for entry in self.store.entries.values())
        costs = sum((entry.cost for entry in self.store.entries.values()), Decimal(0))
        assert sum((kept.session.total_cost for kept in self.store.sessions.values()), Decimal(0)) == costs
        assert sum((kept.conversation.total_cost for kept in self.store.conversations.values()), Decimal(0)) == costs


@pytest.fixture
def bench() -> Bench:
    return Bench()
