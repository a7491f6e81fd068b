"""A server of both of OpenAI's APIs that refuses what its rule refuses, and says `Well.` to all else."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Json = dict[str, Any]
Rule = Callable[[Json], tuple[int, object] | None]
"""What a body is refused with, as a status and what stands in the answer; None: it is taken."""


@dataclass
class Picky:
    """What it was asked, by path, headers and body; refused calls too. `read`: the paths that were only read.

    `rule` may be changed meanwhile. `served`: tokens of context, as llama.cpp's server tells them; None: it is another.
    """

    rule: Rule = lambda _: None
    pause_s: float = 0.0
    served: int | None = None
    base_url: str = ""
    paths: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[Json] = field(default_factory=list)

    async def answer(self, asked: web.Request) -> web.Response:
        if asked.method == "GET":
            self.read.append(asked.path_qs)
            if asked.path == "/props" and self.served is not None:
                return web.json_response({"default_generation_settings": {"n_ctx": self.served}})
            return web.json_response({"object": "list", "data": [{"id": "small", "max_model_len": 2048}]})
        body = json.loads(await asked.read())
        self.paths.append(asked.path_qs)
        self.headers.append({name.lower(): value for name, value in asked.headers.items()})
        self.bodies.append(body)
        if (refused := self.rule(body)) is not None:
            return web.json_response(refused[1], status=refused[0])
        await asyncio.sleep(self.pause_s)
        said = {"id": "c", "object": "chat.completion.chunk", "model": body["model"]}
        chunks = [
            said | {"choices": [{"index": 0, "delta": {"content": "Well."}}]},
            said | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            said | {"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 2, "cost": 0.0123}},
        ]
        if asked.path.endswith("/responses"):
            chunks = _response(body["model"])
        text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        return web.Response(text=text, content_type="text/event-stream")


def _response(model: str) -> list[Json]:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Well."}]}
    response = {"id": "resp_1", "object": "response", "model": model, "status": "completed", "output": [message]}
    return [
        {"type": "response.created", "response": response | {"status": "in_progress", "output": []}},
        {"type": "response.output_text.delta", "delta": "Well."},
        {"type": "response.completed", "response": response | {"usage": {"input_tokens": 10, "output_tokens": 2}}},
    ]


@asynccontextmanager
async def picky(rule: Rule = lambda _: None) -> AsyncIterator[Picky]:
    server = Picky(rule)
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.base_url = f"http://{host}:{port}/v1"
    try:
        yield server
    finally:
        await runner.cleanup()
