"""The application over memory, for a real server in a process of its own."""

import logging
import sys
from typing import Any

from litestar.types import ASGIApp
from tests.http.conftest import application
from tests.unit.conftest import Bench

from textllm_adapters.memory.llm import ScriptedReply

SLOW = ScriptedReply(deltas=("Hello", *(" more",) * 1200), pause_s=0.05, unheard="cancelled")


def make_app() -> ASGIApp:
    """Its first reply takes a minute; all others are echoes."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    bench = Bench()
    bench.llm.script(SLOW)
    app = application(bench)

    async def served(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":  # which our own server does not speak
            await app(scope, receive, send)
            return
        await receive()
        async with app.lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    return served
