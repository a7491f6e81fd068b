"""Each schedule, against what the port says."""

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.memory.schedule import MemorySchedule
from textllm_adapters.sql.schedule import SqlSchedule
from textllm_adapters.testing import ScheduleContract
from textllm_core.ports.schedule import Schedule


@pytest.fixture
def memory_schedule() -> Schedule:
    return MemorySchedule()


@pytest.fixture
def sqlite_schedule(sqlite_engine: AsyncEngine) -> Schedule:
    return SqlSchedule(sqlite_engine)


@pytest.fixture
def postgres_schedule(postgres_engine: AsyncEngine) -> Schedule:
    return SqlSchedule(postgres_engine)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def schedule(request: pytest.FixtureRequest) -> Schedule:
    chosen: Schedule = request.getfixturevalue(f"{request.param}_schedule")
    return chosen


class TestSchedules(ScheduleContract):
    """All of them."""
