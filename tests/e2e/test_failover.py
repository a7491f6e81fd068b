"""The primary goes away under load, its standby is promoted, and nothing that was told is lost."""

import asyncio
import logging
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from sqlalchemy import make_url
from tests.e2e.conftest import API_KEY, serving
from tests.e2e.steady_load import SteadyLoad, compare, told
from tests.servers.openai import OpenAIStandIn, Reply
from tests.servers.postgres import PostgresServer, Standby

from textllm_adapters.postgres.engine import open_engine
from textllm_adapters.sql import migrations

_logger = logging.getLogger(__name__)  # `--log-cli-level=INFO` shows the figures
SECONDS = 60
GONE_AT_S, PROMOTED_AT_S = 20, 24  # as a cluster's manager takes some seconds to be sure
NOTICED_WITHIN_S = 2.5  # a probe waits for 2 s
BACK_WITHIN_S = 5


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def pair() -> Iterator[tuple[PostgresServer, Standby]]:
    """A server, and the standby that each of its commits waits for, each at a port of its own."""
    settings = {"synchronous_standby_names": "standby"}
    with ExitStack() as stack:
        primary = stack.enter_context(PostgresServer(port=_free_port(), settings=settings))
        stack.callback(_speak_again, primary)
        yield primary, stack.enter_context(Standby(primary, port=_free_port()))


def _crash(primary: PostgresServer) -> None:
    primary.stop_now()


def _end(primary: PostgresServer) -> None:
    primary.stop()


def _fall_silent(primary: PostgresServer) -> None:
    """As a machine does that is cut off the network: nobody hears of its end."""
    for process in _processes(primary):
        os.kill(process, signal.SIGSTOP)


def _speak_again(primary: PostgresServer) -> None:
    if primary.is_running:
        for process in _processes(primary):
            os.kill(process, signal.SIGCONT)


def _processes(server: PostgresServer) -> list[int]:
    parent = psutil.Process(server.pid)
    return [parent.pid, *[child.pid for child in parent.children()]]


@pytest.mark.slow
@pytest.mark.parametrize("goes", [_crash, _end, _fall_silent])
async def test_a_failover_under_load_loses_nothing_and_is_over_within_five_seconds(
    pair: tuple[PostgresServer, Standby], goes: Callable[[PostgresServer], None], tmp_path: Path
) -> None:
    primary, standby = pair
    name = make_url(primary.create_database()).database
    database = (
        f"postgresql://textllm@127.0.0.1:{primary.port},127.0.0.1:{standby.port}/{name}?target_session_attrs=read-write"
    )
    engine = open_engine(database, command_timeout_s=None)
    await migrations.upgrade(engine)
    await engine.dispose()
    with OpenAIStandIn(api_key=API_KEY) as provider:
        provider.default = Reply(deltas=tuple(f"<{number}>" for number in range(10)), pause_s=0.02)
        with serving(tmp_path, provider, database, "--workers", "2", TEXTLLM_COST_LIMIT_PER_SESSION="1000") as service:
            load = SteadyLoad([service.url], random.Random(1))
            asking = asyncio.create_task(load.run(SECONDS))
            await asyncio.sleep(GONE_AT_S)
            await asyncio.to_thread(goes, primary)
            gone_at = load.now()
            await asyncio.sleep(PROMOTED_AT_S - GONE_AT_S)
            promoting_at = load.now()
            await asyncio.to_thread(standby.promote)
            promoted_at = load.now()
            await asking
            service.stop()
        back_at = min(turn.at for turn in load.turns if turn.at > promoted_at and turn.status == 200)
        late = [turn for turn in load.turns if turn.at > promoted_at + BACK_WITHIN_S and turn.status != 200]
        ready_at = min(at for at, status in load.ready if at > promoted_at and status == 200)
        last_refused = max(turn.at for turn in load.turns if turn.status != 200)
        figures = {
            "gone at": gone_at,
            "promoted at": promoted_at,
            "ready at": ready_at,
            "answered again from": back_at,
            "last refused": last_refused,
        }
        _logger.info("%s: %s; %s", goes.__name__, told(load.turns), {of: round(at, 2) for of, at in figures.items()})
        assert {turn.status for turn in load.turns} <= {200, 503}
        assert {str(turn.problem["code"]) for turn in load.turns if turn.problem} == {"storage_unavailable"}
        assert all(turn.problem.get("retry_after_s") for turn in load.turns if turn.problem)
        assert late == []
        assert ready_at - promoted_at < BACK_WITHIN_S
        told_meanwhile = [status for at, status in load.ready if gone_at + NOTICED_WITHIN_S < at < promoting_at]
        assert set(told_meanwhile) <= {503}
        assert {status for _, status in load.ready} == {200, 503}
        await compare(load.turns, database, provider)
