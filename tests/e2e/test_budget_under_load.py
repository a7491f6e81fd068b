"""One user's budget, spent by four processes at once."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from textllm_adapters.postgres.engine import open_engine as open_postgres
from textllm_adapters.sql.audit import SqlAudit
from textllm_adapters.sql.database import EVERYONE, Database
from textllm_adapters.sql.tables import ledger, sessions
from textllm_adapters.sqlite.engine import open_engine as open_sqlite
from textllm_core.money import ZERO

ROOT = Path(__file__).parents[2]
PROCESSES = 4


@pytest.mark.usefixtures("one_day")
@pytest.mark.parametrize("attempts", [400, pytest.param(12_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
async def test_four_processes_never_spend_more_than_the_cap_and_the_books_are_exact(
    request: pytest.FixtureRequest, store: str, attempts: int
) -> None:
    database: str = request.getfixturevalue(f"{store}_url")
    cap = Decimal(attempts) / 100
    told = _spend(database, attempts, cap)
    engine = _engine(database)
    try:
        assert [drift async for drift in SqlAudit(engine).drifts()] == []
        assert (await SqlAudit(engine).size()).holds == 0
        async with Database(engine).single(EVERYONE) as connection:
            days = (await connection.execute(select(sessions.c.total_cost, sessions.c.reserved))).all()
            entries = (await connection.execute(select(func.count()).select_from(ledger))).scalar_one()
    finally:
        await engine.dispose()
    assert all(day.total_cost <= cap and day.reserved == 0 for day in days)
    assert sum((day.total_cost for day in days), ZERO) == sum(Decimal(one["spent"]) for one in told)
    assert entries == sum(one["settled"] for one in told)
    assert sum(one["refused"] for one in told) > 0


def _spend(database: str, attempts: int, cap: Decimal) -> list[dict[str, int]]:
    program = [sys.executable, "-m", "tests.e2e.spender", database, str(attempts // PROCESSES), str(cap)]
    running = [
        subprocess.Popen([*program, str(seed)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for seed in range(PROCESSES)
    ]
    told = [process.communicate(timeout=600)[0] for process in running]
    assert [process.returncode for process in running] == [0] * PROCESSES
    return [json.loads(one) for one in told]


def _engine(database: str) -> AsyncEngine:
    return (open_postgres if database.startswith("postgres") else open_sqlite)(database)
