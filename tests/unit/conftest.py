"""The core over memory adapters: no disk, no sockets, a clock that stands still."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from textllm_adapters.memory.application import SCRIPTED_FILE_POLICY, SCRIPTED_POLICY, memory_ports
from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_adapters.memory.clock import FixedClock
from textllm_adapters.memory.ledger import MemoryLedger
from textllm_adapters.memory.llm import ScriptedLLM
from textllm_adapters.memory.prices import FixedPrices
from textllm_adapters.memory.store import MemoryStore
from textllm_adapters.memory.telemetry import MemoryTelemetry
from textllm_adapters.memory.tracer import MemoryTracer
from textllm_adapters.memory.transcript import MemoryTranscript
from textllm_core import Caller, ChatPolicy, LedgerEntry, Reply, TextLLM, TextTurn
from textllm_core.chat.running import WATCH, RunningExchanges
from textllm_core.files import FilePolicy
from textllm_core.money import Price, Rates
from textllm_core.ports.blob_store import BlobStore
from textllm_core.ports.ledger import Ledger
from textllm_core.records.messages import Message

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
    watch: timedelta = WATCH
    blobs: BlobStore = field(default_factory=MemoryBlobStore)
    file_policy: FilePolicy = SCRIPTED_FILE_POLICY
    telemetry: MemoryTelemetry = field(default_factory=MemoryTelemetry)
    tracer: MemoryTracer = field(default_factory=MemoryTracer)
    ledger_type: Callable[[MemoryStore], Ledger] = MemoryLedger

    def __post_init__(self) -> None:
        self.llm = ScriptedLLM(transcript=self.transcript)
        prices = FixedPrices({"gpt-4o": GPT})
        ports = memory_ports(self.store, self.llm, prices, clock=self.clock, blobs=self.blobs, telemetry=self.telemetry)
        self.ports = ports = replace_field(
            ports, transcript=self.transcript, ledger=self.ledger_type(self.store), tracer=self.tracer
        )
        self.ledger, self.conversations, self.sessions = ports.ledger, ports.conversations, ports.sessions
        self.journal = ports.journal
        self.running = RunningExchanges(
            ports.journal,
            ports.clock,
            max_detached=self.max_detached,
            drain_s=self.drain_s,
            max_running=self.max_running,
            max_starting=self.max_starting,
            start_timeout_s=self.start_timeout_s,
            look_every_s=0.01,
            watch=self.watch,
            telemetry=self.telemetry,
        )
        self.textllm = textllm = TextLLM.over(ports, self.policy, self.file_policy, self.running)
        self.send_message, self.exchange = textllm.send_message, textllm.send_message.exchange
        self.chat_with_image, self.chat_with_document = textllm.chat_with_image, textllm.chat_with_document
        self.summarize, self.files = textllm.summarize_conversation, textllm.files
        self.resume_reply, self.cancel_reply = textllm.resume_reply, textllm.cancel_reply
        self.remove_expired, self.reconcile = textllm.remove_expired, textllm.reconcile

    def over(self, *, running: RunningExchanges | None = None, **chosen: Any) -> TextLLM:
        """The same with other adapters of some ports."""
        ports = replace_field(self.ports, **chosen)
        return TextLLM.over(ports, self.policy, self.file_policy, running or self.running)

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
