"""What every response carries, errors and streams included: its request id, and what browsers may do with it."""

import re
from collections.abc import Iterable
from typing import Final

from litestar.types import ASGIApp, HTTPResponseStartEvent, Message, Receive, Scope, Send

from textllm_core.ids import new_id
from textllm_http.worker_state import WorkerState

_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_EXPOSED: Final = (
    b"Content-Disposition, Content-Range, ETag, Idempotent-Replayed, Location, RateLimit, RateLimit-Policy, "
    b"Retry-After, X-Conversation-ID, X-RateLimit-Limit-Requests, X-RateLimit-Remaining-Requests, "
    b"X-RateLimit-Reset-Requests, X-Request-ID, X-Response-ID, X-Should-Retry, X-User-ID"
)
_ALLOWED_HEADERS: Final = (
    b"Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, If-Range, Last-Event-ID, Range, "
    b"Traceparent, Tracestate, X-Request-ID, X-User-ID, "
    # What OpenAI's SDK sends from a page.
    b"OpenAI-Beta, OpenAI-Organization, OpenAI-Project, X-Stainless-Arch, X-Stainless-Custom-Poll-Interval, "
    b"X-Stainless-Helper-Method, X-Stainless-Lang, X-Stainless-OS, X-Stainless-Package-Version, "
    b"X-Stainless-Poll-Helper, X-Stainless-Retry-Count, X-Stainless-Runtime, X-Stainless-Runtime-Version, "
    b"X-Stainless-Timeout"
)
_ALLOWED_METHODS: Final = b"DELETE, GET, HEAD, OPTIONS, PATCH, POST"
_REMEMBERED_S: Final = b"600"  # the most that WebKit remembers
# Answers are data, never pages, and may hold what only the caller may see. A response's own header wins.
_UNLESS_SAID: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"server", b"textllm"),
    (b"x-content-type-options", b"nosniff"),
)


def header(scope: Scope, name: bytes) -> str | None:
    """The first header of the request with this lower-case name."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def request_id_of(scope: Scope) -> str:
    """The id of the request: the client's own where it is sane, else a new one; the same at every call."""
    state = scope["state"]
    if "request_id" not in state:
        theirs = header(scope, b"x-request-id") or ""
        state["request_id"] = theirs if _SANE_ID.fullmatch(theirs) else new_id("req")
    request_id: str = state["request_id"]
    return request_id


class ResponseHeaders:
    """What completes every message that is sent: it knows no route, so that none can be without it.

    Args:
        cors_origins: exact origins whose pages may read the responses, e.g. "https://chat.example.org".
    """

    def __init__(self, cors_origins: Iterable[str], worker: WorkerState) -> None:
        self._origins, self._worker = frozenset(cors_origins), worker

    def around(self, app: ASGIApp) -> ASGIApp:
        """`app`, whose responses have these headers; none has a body that answers HEAD."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            async def complete(message: Message) -> None:
                if message["type"] == "http.response.start":
                    self._complete(message, scope)
                elif message["type"] == "http.response.body" and scope.get("method") == "HEAD":
                    message["body"] = b""
                await send(message)

            await app(scope, receive, complete)

        return answer

    def _complete(self, message: HTTPResponseStartEvent, scope: Scope) -> None:
        if scope.get("method") == "OPTIONS":
            _allow_all_methods(message, scope)
        headers = [*message["headers"], (b"x-request-id", request_id_of(scope).encode())]
        said = {name.lower() for name, _ in headers}
        headers += [(name, value) for name, value in _UNLESS_SAID if name not in said]
        if self._worker.is_leaving:  # the client finds another worker, or knows that there is none
            headers.append((b"connection", b"close"))
        if self._origins:
            headers += self._cors(scope)
        message["headers"] = headers

    def _cors(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        origin = header(scope, b"origin")
        headers = [(b"vary", b"Origin")]
        if origin in self._origins:
            headers += [
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-expose-headers", _EXPOSED),
            ]
            if header(scope, b"access-control-request-method") is not None:
                headers += [
                    (b"access-control-allow-methods", _ALLOWED_METHODS),
                    (b"access-control-allow-headers", _ALLOWED_HEADERS),
                    (b"access-control-max-age", _REMEMBERED_S),
                ]
        return headers


def _allow_all_methods(message: HTTPResponseStartEvent, scope: Scope) -> None:
    """Complete `Allow`: the framework's answer to OPTIONS knows only the first handler of an address."""
    if "path_template" in scope:
        routes = scope["litestar_app"].routes
        methods = {m for route in routes if route.path_format == scope["path_template"] for m in route.methods}
        allow = ", ".join(sorted(methods)).encode()
        message["headers"] = [(name, allow if name.lower() == b"allow" else said) for name, said in message["headers"]]
