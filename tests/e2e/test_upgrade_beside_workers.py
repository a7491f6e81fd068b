"""Workers of a version before answer while the database is upgraded, and beside those of this version afterwards.

The versions before are taken from the repository's history.
"""

import asyncio
import logging
import os
import random
import signal
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import text
from tests.e2e.conftest import API_KEY, serving
from tests.e2e.steady_load import SteadyLoad, compare, told
from tests.servers.openai import OpenAIStandIn, Reply

from textllm_adapters.postgres.engine import open_engine
from textllm_adapters.sql import migrations

_logger = logging.getLogger(__name__)  # `--log-cli-level=INFO` shows the figures
ROOT = Path(__file__).parents[2]
SECONDS = 60
UPGRADED_AT_S, OLD_GONE_AT_S = 10, 45
ONE_LEDGER = "0019"  # the last version before the ledger went by months: the longest way for one upgrade


@pytest.fixture(params=["newest", ONE_LEDGER])
def version_before(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A checkout of the version before the newest step, or of an older one; and its revision."""
    scripts = sorted(migrations.migrations_path().glob("versions/[0-9]*.py"))
    since = (
        scripts[-1:] if request.param == "newest" else [script for script in scripts if script.name[:4] > ONE_LEDGER]
    )
    added = _git("log", "--diff-filter=A", "--format=%H", "--", *map(str, since)).decode().split()
    if not added:
        pytest.skip("needs a checkout with its history (git fetch --unshallow): the version before is taken from there")
    folder = tmp_path / "before"
    folder.mkdir()
    packed = _git("archive", f"{added[-1]}^", "src", "alembic", "config")
    subprocess.run(["tar", "-x", "-C", folder], input=packed, check=True)
    return folder, max(script.name for script in folder.glob("alembic/versions/[0-9]*.py"))[:4]


def _git(*command: str) -> bytes:
    """What git says; nothing where there is no repository, or no git."""
    try:
        return subprocess.run(["git", "-C", ROOT, *command], capture_output=True, check=False).stdout
    except FileNotFoundError:
        return b""


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_an_upgrade_under_load_refuses_no_turn_and_loses_nothing(
    version_before: tuple[Path, str], empty_postgres_url: str, tmp_path: Path
) -> None:
    """Fifty turns a second: at workers of the version before, then at those of both, at last at those of this one."""
    checkout, revision = version_before
    before = {"PYTHONPATH": str(checkout / "src")}
    settings = {"TEXTLLM_COST_LIMIT_PER_SESSION": "1000"}
    engine = open_engine(empty_postgres_url, command_timeout_s=None)
    await migrations.upgrade(engine, revision)
    steps = await migrations.steps_to_head(engine)
    with (
        OpenAIStandIn(api_key=API_KEY) as provider,
        serving(_folder(tmp_path, "old"), provider, empty_postgres_url, "--workers", "2", **before, **settings) as old,
    ):
        provider.default = Reply(deltas=tuple(f"<{number}>" for number in range(10)), pause_s=0.02)
        load = SteadyLoad([old.url], random.Random(1))
        asking = asyncio.create_task(load.run(SECONDS))
        await asyncio.sleep(UPGRADED_AT_S)
        await migrations.upgrade(engine)
        upgraded_at = load.now()
        with ExitStack() as stack:
            opened = serving(_folder(tmp_path, "new"), provider, empty_postgres_url, "--workers", "2", **settings)
            new = await asyncio.to_thread(stack.enter_context, opened)
            load.urls.append(new.url)
            both_from = load.now()
            await asyncio.sleep(OLD_GONE_AT_S - both_from)
            load.urls.remove(old.url)
            await asyncio.to_thread(old.stop)
            await asking
            await asyncio.to_thread(new.stop)
    await engine.dispose()
    _logger.info(
        "%d steps in %.1f s, both versions from %.1f s; %s",
        len(steps),
        upgraded_at - UPGRADED_AT_S,
        both_from,
        told(load.turns),
    )
    assert {turn.status for turn in load.turns} == {200}
    assert {status for _, status in load.ready} == {200}
    await compare(load.turns, empty_postgres_url, provider)


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
