"""Workers of the version before answer while the database is upgraded, and beside those of this version afterwards.

The version before is taken from the repository's history: the commit before the one that added the newest migration.
"""

import asyncio
import itertools
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from sqlalchemy import text
from tests.e2e.conftest import API_KEY, Books, price_of, serving
from tests.servers.openai import OpenAIStandIn, Reply

from textllm_adapters.postgres.engine import open_engine
from textllm_adapters.sql import migrations

ROOT = Path(__file__).parents[2]
USERS = 8
PIECES = tuple(f"<{number}>" for number in range(10))


@pytest.fixture
def version_before(tmp_path: Path) -> Path:
    """A checkout of it."""
    [newest] = migrations.migrations_path().glob(f"versions/{migrations.head_revision()}_*.py")
    added = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", str(newest)).decode().strip()
    if not added:
        pytest.skip("needs a checkout with its history (git fetch --unshallow): the version before is taken from there")
    folder = tmp_path / "before"
    folder.mkdir()
    packed = _git("archive", f"{added}^", "src", "alembic", "config")
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    return folder


def _git(*command: str) -> bytes:
    """What git says; nothing where there is no repository, or no git."""
    try:
        return subprocess.run(["git", "-C", ROOT, *command], capture_output=True, check=False).stdout
    except FileNotFoundError:
        return b""


@dataclass
class Load:
    """Users who chat and read streams, each in one conversation, at one server after the other."""

    urls: list[str]
    answered: int = 0
    refused: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """While the block runs, and until each user has had an answer more."""
        self._is_over = False
        async with httpx.AsyncClient(timeout=30) as client, asyncio.TaskGroup() as users:
            for number in range(USERS):
                users.create_task(self._chat(client, f"user{number}"))
            try:
                await self.more_answers()
                yield
                await self.more_answers()
            finally:
                self._is_over = True

    async def more_answers(self) -> None:
        wanted = self.answered + 5 * USERS
        while self.answered < wanted and not self.refused:  # noqa: ASYNC110 - servers are waited for, not tasks
            await asyncio.sleep(0.02)

    async def _chat(self, client: httpx.AsyncClient, user: str) -> None:
        conversation: dict[str, str] = {}
        for url, path in zip(itertools.cycle(self.urls), itertools.cycle(["/chat", "/chat", "/chat/stream"])):
            if self._is_over:
                return
            body = {"message": "Hello", "user_id": user} | conversation
            answer = await client.post(f"{url}{path}", json=body)
            whole = path == "/chat" or answer.text.endswith("data: [DONE]\n\n")
            if answer.status_code != 200 or not whole:
                self.refused.append(f"{answer.status_code} {answer.text}")
                return
            self.answered += 1
            known = conversation.get("conversation_id") or answer.json()["conversation_id"]
            conversation = {"conversation_id": known}


@pytest.mark.slow
async def test_an_upgrade_beside_workers_of_the_version_before_refuses_no_turn_and_loses_nothing(
    version_before: Path, empty_postgres_url: str, tmp_path: Path
) -> None:
    before = {"PYTHONPATH": str(version_before / "src")}
    settings = {"TEXTLLM_COST_LIMIT_PER_SESSION": "1000"}
    engine = open_engine(empty_postgres_url, command_timeout_s=None)
    steps = await migrations.steps_to_head(engine)
    await migrations.upgrade(engine, steps[-2].revision)
    with (
        OpenAIStandIn(api_key=API_KEY) as provider,
        serving(_folder(tmp_path, "old"), provider, empty_postgres_url, "--workers", "2", **before, **settings) as old,
    ):
        provider.default = Reply(deltas=PIECES, pause_s=0.005)
        load = Load([old.url])
        async with load.going_on():
            assert [step.revision for step in await migrations.steps_to_head(engine)] == [steps[-1].revision]
            await migrations.upgrade(engine)
        with serving(_folder(tmp_path, "new"), provider, empty_postgres_url, "--workers", "2", **settings) as new:
            both = Load([old.url, new.url])
            async with both.going_on():
                pass
            new.stop()
        old.stop()
        assert (load.refused, both.refused) == ([], [])
        books = Books(empty_postgres_url)
        entries = [entry for number in range(USERS) for entry in await books.entries(f"user{number}")]
        assert len(entries) == load.answered + both.answered
        assert sum(entry.cost for entry in entries) == sum(price_of(bill) for bill in provider.bills)
        assert await books.drifts() == []
    await engine.dispose()


@pytest.mark.slow
async def test_a_worker_that_dies_after_a_later_version_has_upgraded_is_replaced(
    empty_postgres_url: str, tmp_path: Path
) -> None:
    engine = open_engine(empty_postgres_url, command_timeout_s=None)
    await migrations.upgrade(engine)
    with (
        OpenAIStandIn(api_key=API_KEY) as provider,
        serving(tmp_path, provider, empty_postgres_url, "--workers", "1") as old,
    ):
        async with engine.begin() as connection:  # as a step does at its end that workers go on beside
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        [first] = old.workers()
        os.kill(first, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while first in old.workers() or not old.workers():
            assert time.monotonic() < deadline, old.log.read_text()
            await asyncio.sleep(0.05)
        assert (await asyncio.to_thread(old.chat, "Hello")).status_code == 200
        old.stop()
        assert "could not start" not in old.log.read_text()
    await engine.dispose()


def _folder(tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    return folder
