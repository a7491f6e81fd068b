"""The application over memory, for a real server in a process of its own."""

import logging
import sys

from litestar import Litestar
from tests.http.conftest import application
from tests.unit.conftest import Bench

from textllm_adapters.memory.llm import ScriptedReply

SLOW = ScriptedReply(deltas=("Hello", *(" more",) * 1200), pause_s=0.05, unheard="cancelled")


def make_app() -> Litestar:
    """Its first reply takes a minute; all others are echoes."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    bench = Bench()
    bench.llm.script(SLOW)
    return application(bench)
