"""Every turnstile that ships keeps the port `Turnstile`."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from tests.contracts.conftest import sql_storage, storage_of

from textllm_adapters.memory.clock import FixedClock
from textllm_adapters.memory.rate_limiter import MemoryRateLimiter
from textllm_adapters.memory.store import MemoryStore
from textllm_adapters.testing import Gate, TurnstileContract
from textllm_adapters.testing.books import NOON
from textllm_adapters.wiring.storage import rate_limiter_of, turnstile_of
from textllm_core.chat.in_two_steps import InTwoSteps


class TestTurnstiles(TurnstileContract):
    """Those of the databases, and two ports asked one after the other."""

    @pytest.fixture(params=["memory", "sqlite", "postgres"])
    def gate(self, request: pytest.FixtureRequest) -> Gate:
        if request.param == "memory":
            storage, limiter = storage_of(MemoryStore()), MemoryRateLimiter(FixedClock(NOON))
            return Gate(InTwoSteps(limiter, storage.ledger), limiter, storage)
        engine: AsyncEngine = request.getfixturevalue(f"{request.param}_engine")
        return Gate(turnstile_of(engine), rate_limiter_of(engine), sql_storage(engine))
