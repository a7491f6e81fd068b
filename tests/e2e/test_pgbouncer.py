"""A server behind PgBouncer in transaction mode, under load."""

import logging
import random
from pathlib import Path

import pytest
from tests.e2e.conftest import API_KEY, serving
from tests.e2e.steady_load import SteadyLoad, compare, told
from tests.servers.openai import OpenAIStandIn, Reply
from tests.servers.pgbouncer import PgBouncer

pytestmark = [pytest.mark.pgbouncer, pytest.mark.timeout(600)]
SECONDS = 60
_logger = logging.getLogger(__name__)  # `--log-cli-level=INFO` shows the figures


async def test_all_turns_are_answered_and_in_the_books_though_workers_share_few_sessions(
    pgbouncer_server: PgBouncer, postgres_url: str, tmp_path: Path
) -> None:
    with OpenAIStandIn(api_key=API_KEY) as provider:
        provider.default = Reply(deltas=tuple(f"<{number}>" for number in range(10)), pause_s=0.02)
        database = pgbouncer_server.before(postgres_url)
        with serving(tmp_path, provider, database, "--workers", "2", TEXTLLM_COST_LIMIT_PER_SESSION="1000") as service:
            load = SteadyLoad([service.url], random.Random(1))
            await load.run(SECONDS)
            service.stop()
        _logger.info("%s", told(load.turns))
        assert {turn.status for turn in load.turns} == {200}
        assert {status for _, status in load.ready} == {200}
        await compare(load.turns, postgres_url, provider)
