"""A process that spends one user's budget as fast as it can: `python -m tests.e2e.spender DATABASE ATTEMPTS CAP SEED`.

Prints what it settled: {"settled": how many, "spent": USD, "refused": how many}.
"""

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar

from textllm_adapters.postgres.engine import open_engine as open_postgres
from textllm_adapters.sqlite.engine import open_engine as open_sqlite
from textllm_adapters.testing.books import reservation, settlement
from textllm_adapters.wiring.storage import ledger_of
from textllm_core.errors import BudgetExceededError, StorageUnavailableError
from textllm_core.money import exact
from textllm_core.records.ledger import Demand

TASKS = 5

T = TypeVar("T")


async def spend(database: str, attempts: int, cap: Decimal, seed: int) -> dict[str, object]:
    engine = (open_postgres if database.startswith("postgres") else open_sqlite)(database)
    ledger, chance = ledger_of(engine), random.Random(seed)
    costs: list[Decimal] = []
    refused = 0

    async def attempt() -> None:
        nonlocal refused
        now = datetime.now(UTC)
        least = Decimal(chance.randrange(1, 100_000_000)).scaleb(-10)
        demand = Demand(least=least, most=4 * least, limit=cap)
        asked = reservation(demand=demand, at=now)
        try:
            hold = await _until_it_answers(lambda: ledger.reserve(asked))
        except BudgetExceededError:
            refused += 1
            return
        if chance.random() < 0.2:
            await _until_it_answers(lambda: ledger.release(hold))
            await _until_it_answers(lambda: ledger.release(hold))
            return
        hold = await _until_it_answers(lambda: ledger.pend(hold, provider_response_id=None, model="gpt-4o"))
        cost = exact(hold.amount * chance.randrange(50, 101) / 100)
        end = settlement(cost=str(cost), at=now, messages=())
        await asyncio.gather(*[_until_it_answers(lambda: ledger.settle(hold, end)) for _ in range(2)])
        costs.append(cost)

    async def work(share: int) -> None:
        for _ in range(share):
            await attempt()

    await asyncio.gather(*[work(attempts // TASKS) for _ in range(TASKS)])
    await engine.dispose()
    return {"settled": len(costs), "spent": str(sum(costs)), "refused": refused}


async def _until_it_answers(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except StorageUnavailableError:  # SQLite has one writer, and many of us want to be it
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    _, address, wanted, limit, seeded = sys.argv
    print(json.dumps(asyncio.run(spend(address, int(wanted), Decimal(limit), int(seeded)))))  # noqa: T201 - its result
