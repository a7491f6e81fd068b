"""The command line over adapters in memory: `MemoryWiring` for tests in this process, a program for real processes.

The program takes its part from the environment, as JSON or paths:
    TEXTLLM_TEST_REPLIES: what the model says, a list of lists of deltas; what a reply with the delta "unaccountable"
        has used is not stated, and where it is cut short nobody can tell.
    TEXTLLM_TEST_UNTOLD_S: for how long the provider is asked for it.
    TEXTLLM_TEST_GATE: every reply waits behind its first delta until this file exists.
    TEXTLLM_TEST_LEDGER: where the ledger's entries are written, a line each, once the engine is closed.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from textllm_adapters.memory.application import (
    SCRIPTED_POLICY,
    memory_administration,
    memory_conversations,
    memory_files,
    open_in_memory,
)
from textllm_adapters.memory.blob_store import MemoryBlobStore
from textllm_adapters.memory.llm import ScriptedLLM, ScriptedReply
from textllm_adapters.memory.rate_limiter import MemoryRateLimiter
from textllm_adapters.memory.reply_journal import MemoryReplyJournal
from textllm_adapters.memory.store import MemoryStore
from textllm_adapters.settings import Settings, load_settings
from textllm_adapters.wiring import models_of
from textllm_adapters.wiring.upkeep import jobs_of
from textllm_cli.invocation import Wiring
from textllm_cli.main import main
from textllm_core.application import Administration, Conversations, Files, TextLLM
from textllm_core.chat.running import RunningExchanges
from textllm_core.policy import Retention
from textllm_core.records.model import ModelRequest
from textllm_core.records.models import ModelList, ProviderFound
from textllm_core.records.schema import SchemaStep
from textllm_core.wire import to_json

HEAD = "0007"
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


class NoonClock:
    """Begins at noon of a day and goes on: whenever the tests run, today is the same day for all that one does."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def now(self) -> datetime:
        return NOON + timedelta(seconds=time.monotonic() - self._begun)


@dataclass
class MemoryWiring:
    """A `Wiring` whose world is in memory, and stays between two commands of one test."""

    replies: list[ScriptedReply] = field(default_factory=list)
    store: MemoryStore = field(default_factory=MemoryStore)
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)
    revision: str | None = None
    gate: Path | None = None
    untold_s: float = 0.0
    noticed: Sequence[str] = ()
    found: Sequence[ProviderFound] = ()
    report: Mapping[str, Any] = field(default_factory=lambda: {"status": "healthy"})
    asked: Sequence[ModelRequest] = ()
    clock: NoonClock = field(default_factory=NoonClock)

    def load_settings(self, config: Path | None = None, *, is_personal: bool = False, **arguments: Any) -> Settings:
        return load_settings(config, is_personal=is_personal, **arguments)

    async def ask_providers(self, _settings: Settings) -> Sequence[ProviderFound]:
        return self.found

    async def list_models(self, settings: Settings) -> ModelList:
        return models_of(settings)

    async def health(self, _settings: Settings) -> Mapping[str, Any]:
        return self.report

    async def run_jobs(self, settings: Settings) -> Mapping[str, int]:
        async with self.open_textllm(settings) as textllm:
            return await jobs_of(textllm)

    async def config_in_force(self, settings: Settings) -> Mapping[str, Any]:
        return settings.public()

    def check(self, _settings: Settings) -> None: ...

    def allowed_tools(self, settings: Settings) -> Sequence[str]:  # noqa: ARG002 - whatever they are
        return []

    def notices(self, settings: Settings) -> Sequence[str]:  # noqa: ARG002 - whatever they are
        return self.noticed

    @asynccontextmanager
    async def open_textllm(
        self,
        settings: Settings,
        *,
        model_progress: Callable[[int, int], None] | None = None,  # noqa: ARG002 - nothing is fetched
        grace_s: float | None = None,
    ) -> AsyncIterator[TextLLM]:
        gate = asyncio.Event()
        watching = asyncio.create_task(self._watch(gate))
        llm = ScriptedLLM(*(_behind(gate, reply) for reply in self.replies))
        self.asked = llm.requests
        policy = replace(
            SCRIPTED_POLICY,
            model=settings.model,
            prompts=settings.prompts,
            max_input_chars=settings.max_input_length,
            rate_per_minute=settings.rate_limit_per_minute,
            daily_limit=settings.cost_limit_per_session,
            warn_at=settings.warn_at_cost,
            outcome_pauses_s=(0.0, self.untold_s),
            retention=Retention(ledger_months=settings.ledger_months),
        )
        try:
            async with open_in_memory(
                llm=llm,
                store=self.store,
                clock=self.clock,
                blobs=self.blobs,
                policy=policy,
                grace_s=settings.stream_drain_s if grace_s is None else grace_s,
            ) as textllm:
                yield textllm
        finally:
            watching.cancel()

    @asynccontextmanager
    async def try_out(
        self,
        settings: Settings,
        *,
        model_progress: Callable[[int, int], None] | None = None,  # noqa: ARG002 - nothing is fetched
        database_patience_s: float = 0.0,  # noqa: ARG002 - memory is there
    ) -> AsyncIterator[Administration]:
        async with self.open_administration(settings) as administration:
            yield administration

    @asynccontextmanager
    async def open_administration(self, settings: Settings) -> AsyncIterator[Administration]:
        yield memory_administration(self.store, self.clock, tuple(settings.models) or None)

    @asynccontextmanager
    async def open_files(self, _settings: Settings) -> AsyncIterator[Files]:
        yield self._files()

    @asynccontextmanager
    async def open_conversations(self, settings: Settings) -> AsyncIterator[Conversations]:
        running = RunningExchanges(MemoryReplyJournal(self.store), self.clock)
        most = settings.max_conversations_per_user
        yield memory_conversations(self.store, self.clock, running, self._files(), max_per_user=most)
        await running.drain(10)

    def _files(self) -> Files:
        return memory_files(self.store, self.blobs, MemoryRateLimiter(self.clock), self.clock)

    async def upgrade_database(self, _settings: Settings) -> str:
        self.revision = HEAD
        return HEAD

    async def database_revision(self, _settings: Settings) -> tuple[str | None, str]:
        return self.revision, HEAD

    async def database_steps(self, _settings: Settings) -> list[SchemaStep]:
        return [] if self.revision == HEAD else [SchemaStep(revision=HEAD, title="More room.", workers_go_on=False)]

    async def fetch_model(self, settings: Settings, progress: Callable[[int, int], None]) -> Path:
        for done in range(0, 100_000_001, 10_000_000):
            progress(done, 100_000_000)
        return settings.data_dir / "models" / "model.gguf"

    async def _watch(self, gate: asyncio.Event) -> None:
        while self.gate is not None and not self.gate.exists():  # noqa: ASYNC110 - another process makes the file
            await asyncio.sleep(0.01)
        gate.set()


def _behind(gate: asyncio.Event, reply: ScriptedReply) -> ScriptedReply:
    return replace(reply, gate=gate)


def _program() -> None:
    replies = [
        ScriptedReply(
            deltas=tuple(deltas),
            usage_stated="unaccountable" not in deltas,
            unheard=None if "unaccountable" in deltas else "completed",
        )
        for deltas in json.loads(os.environ["TEXTLLM_TEST_REPLIES"])
    ]
    gate = os.environ.get("TEXTLLM_TEST_GATE")
    untold_s = float(os.environ.get("TEXTLLM_TEST_UNTOLD_S", "0"))
    wiring = MemoryWiring(replies, gate=Path(gate) if gate else None, untold_s=untold_s)
    if os.isatty(0):
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # the leader of a session takes the terminal it opens: Ctrl-C works

    def load_wiring() -> Wiring:
        return wiring

    try:
        main(load_wiring)
    finally:
        if ledger := os.environ.get("TEXTLLM_TEST_LEDGER"):
            Path(ledger).write_bytes(b"".join(to_json(entry) + b"\n" for entry in wiring.store.entries.values()))


if __name__ == "__main__":
    _program()
