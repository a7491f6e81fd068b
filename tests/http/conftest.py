"""The HTTP application over memory, called as a server calls it, so that every byte of an answer can be seen."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.openai import described as openai_described
from tests.unit.conftest import Bench

from textllm_adapters.telemetry.listeners import Listeners
from textllm_adapters.telemetry.logs import LogTelemetry
from textllm_adapters.telemetry.metrics import PrometheusTelemetry
from textllm_core import TextLLM
from textllm_core.health import CheckHealth
from textllm_core.reconcile import RECOVER_EVERY_S
from textllm_http.app import Application, create_app, routes
from textllm_http.openapi import document_of, operations_of
from textllm_http.problems import PROBLEM_JSON
from textllm_http.services import Models

JSON = {"content-type": "application/json"}
NOWHERE = Path("/dev/null/spool")
HOST = "textllm.example.org"
ORIGIN = "https://chat.example.org"


@dataclass
class Answer:
    """A response, chunk by chunk; header names are in lower case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    is_complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Probe:
    """A part of the service that answers, or does not."""

    name: str = "database"
    fault: str | None = None

    async def check(self) -> str | None:
        return self.fault


@dataclass
class Server:
    """The application and what stands behind it."""

    app: Application
    bench: Bench
    probe: Probe

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.call("GET", path, headers=headers or {})

    async def post(self, path: str, body: Any, headers: Mapping[str, str] = JSON) -> Answer:
        return await self.call(
            "POST", path, [body if isinstance(body, bytes) else json.dumps(body).encode()], headers=headers
        )

    async def call(
        self,
        method: str,
        target: str,
        body: Sequence[bytes] = (),
        *,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] = (),
        is_whole: bool = True,
        sender_stays: bool = True,
        leave_when: Callable[[Answer], bool] = lambda _: False,
        peer: str = "127.0.0.1",
    ) -> Answer:
        """One request.

        Args:
            body: in the pieces that it comes in.
            is_whole: False: more of it is announced, and never comes.
            sender_stays: False: the client leaves once it has sent that.
            peer: the address at the other end of the connection.
            leave_when: asked after each message of the response: is the client gone now?
        """
        path, _, query = target.partition("?")
        pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
        if all(name.lower() != "host" for name, _ in pairs):
            pairs.append(("host", HOST))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode("latin-1"),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs],
            "client": (peer, 50000),
            "server": ("127.0.0.1", 8000),
            "state": {},
        }
        answer, left = Answer(), asyncio.Event()
        pieces = list(body) or [b""]
        if not sender_stays:
            left.set()

        async def receive() -> dict[str, Any]:
            if pieces:
                piece = pieces.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(pieces) or not is_whole}
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode("latin-1") for name, value in message["headers"]}
            else:
                answer.chunks.append(message.get("body", b""))
                answer.is_complete = not message.get("more_body", False)
            if leave_when(answer):
                left.set()

        async with asyncio.timeout(30):
            await self.app(scope, receive, send)  # type: ignore[arg-type]  # a plain dictionary, as servers send it
        if "path_template" in scope and method not in ("OPTIONS", "HEAD"):
            check_described(method, str(scope["path_template"]), answer)
            if path.startswith("/v1/") and answer.is_complete:
                check_door(method, path, answer)
        return answer


# What comes with everything, and what HTTP itself has.
COMMON = {
    *("cache-control", "content-security-policy", "referrer-policy", "server", "x-content-type-options"),
    *("content-type", "content-length", "connection", "allow", "vary"),
    *("access-control-allow-origin", "access-control-expose-headers"),
}


def check_described(method: str, route: str, answer: Answer) -> None:
    """Whatever a test asks for: the status, the headers and the problem that come must be in the OpenAPI document."""
    described = described_responses().get((method, route))
    if described is None:  # such as OPTIONS, or a method that the route does not take
        return
    what = f"{method} {route} {answer.status}"
    assert str(answer.status) in described, f"OpenAPI does not know {what}"
    response = described[str(answer.status)]
    names = {name.lower() for name in response["headers"]}
    assert set(answer.headers) <= names | COMMON, f"{what} has headers that OpenAPI does not name"
    if answer.headers.get("content-type") == PROBLEM_JSON and answer.is_complete:
        codes = response["content"][PROBLEM_JSON]["schema"]["properties"]["code"]["enum"]
        assert answer.json()["code"] in codes, f"{what} has a problem that OpenAPI does not name"
    elif route.startswith("/v1/") and answer.status >= 400 and answer.is_complete:
        codes = response["content"]["application/json"]["schema"]["properties"]["error"]["properties"]["code"]["enum"]
        assert answer.json()["error"]["code"] in codes, f"{what} has an error that OpenAPI does not name"


def check_door(method: str, path: str, answer: Answer) -> None:
    """Whatever a test asks of OpenAI's door: what comes must have the shape that OpenAI's own description has."""
    if answer.headers.get("content-type") == "application/json":
        openai_described.check(method, path, answer.status, answer.json())
    elif path.startswith("/v1/chat/completions"):
        for chunk in chunks_of(answer):
            openai_described.check_chunk(chunk)
    elif path.startswith("/v1/responses"):
        for event in events_of(answer):
            openai_described.check_event(event)


def chunks_of(answer: Answer) -> list[dict[str, Any]]:
    """The chunks of a streamed chat completion, but for the `[DONE]` behind the last of them."""
    frames = [frame for frame in answer.body.decode().split("\n\n") if frame and not frame.startswith(":")]
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames if frame != "data: [DONE]"]
    assert ("data: [DONE]" in frames) == ("error" not in chunks[-1])
    assert frames.index("data: [DONE]") == len(frames) - 1 if "data: [DONE]" in frames else True
    return chunks


def events_of(answer: Answer) -> list[dict[str, Any]]:
    """The events of a stream of the door, but for the `[DONE]` behind the last; comments between them are none."""
    frames = [frame for frame in answer.body.decode().split("\n\n") if frame and not frame.startswith(":")]
    events = []
    is_done = frames[-1:] == ["data: [DONE]"]
    for frame in frames[:-1] if is_done else frames:
        name, data = frame.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    if events:
        assert is_done == (events[-1]["type"].removeprefix("response.") in ("completed", "incomplete", "failed"))
    return events


@cache
def described_responses() -> Mapping[tuple[str, str], dict[str, Any]]:
    """By method and route: its responses in the document, by status. One route may be several operations there."""
    described: dict[tuple[str, str], dict[str, Any]] = {}
    paths = document_of(routes().routes)["paths"]
    for method, path, handler, _ in operations_of(routes().routes):
        for route in handler.paths:
            known = described.setdefault((method, re.sub(r"{(\w+):\w+}", r"{\1}", route)), {})
            for status, response in paths[path][method.lower()]["responses"].items():
                before = known.get(status, {"headers": {}})
                known[status] = response | {"headers": before["headers"] | response["headers"]}
    return described


def application(
    bench: Bench,
    probe: Probe | None = None,
    *,
    cors_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    trusted_proxies: Sequence[str] = (),
    spool_dir: Path = NOWHERE,
    requires_keys: bool = False,
    operator_token: str | None = None,
    body_timeout_s: float = 20.0,
    recover_every_s: float = RECOVER_EVERY_S,
    models: Models | None = None,
) -> Application:
    textllm = replace(bench.textllm, check_health=CheckHealth([probe or Probe()]))

    @asynccontextmanager
    async def opener() -> AsyncIterator[TextLLM]:
        yield textllm
        await bench.running.drain(0)

    return create_app(
        opener,
        public_config={"model": bench.policy.model},
        max_input_chars=bench.policy.max_input_chars,
        max_file_bytes=bench.file_policy.max_file_bytes,
        body_timeout_s=body_timeout_s,
        spool_dir=spool_dir,
        requires_keys=requires_keys,
        asks_openai=True,
        telemetry=Listeners(bench.telemetry, LogTelemetry(), counters := PrometheusTelemetry()),
        metrics=counters.expose,
        models=models or Models(),
        operator_token=operator_token,
        tracer=bench.tracer,
        cors_origins=cors_origins,
        allowed_hosts=allowed_hosts,
        trusted_proxies=trusted_proxies,
        recover_every_s=recover_every_s,
    )


@asynccontextmanager
async def serving(bench: Bench, **chosen: Any) -> AsyncIterator[Server]:
    """The application from its start to its stop; `chosen` is for `application`."""
    probe = Probe()
    app = application(bench, probe, **chosen)
    async with _started(app):
        yield Server(app, bench, probe)


@asynccontextmanager
async def _started(app: Application) -> AsyncIterator[None]:
    """The lifespan in a task of its own, as servers have it."""
    up, down = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            up.set()
            await down.wait()

    living = asyncio.create_task(live())
    await asyncio.wait([living, starting := asyncio.create_task(up.wait())], return_when=asyncio.FIRST_COMPLETED)
    starting.cancel()
    try:
        if not living.done():
            yield
    finally:
        down.set()
        await living


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
async def server(bench: Bench, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(bench, spool_dir=tmp_path / "spool") as running:
        yield running
