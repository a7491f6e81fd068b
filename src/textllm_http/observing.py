"""States of each request how it was answered, whatever answered it: a handler, a guard, or the router."""

from time import perf_counter
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from textllm_core.events import REQUEST_ID, RequestAnswered
from textllm_core.ports.telemetry import Telemetry
from textllm_core.ports.tracer import Tracer
from textllm_core.steps import Serving
from textllm_core.tenancy import Caller
from textllm_http.middleware import request_id_of

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"})  # that any route takes
_LEFT: Final = 499  # as nginx has it


def observed(app: ASGIApp, telemetry: Telemetry, tracer: Tracer) -> ASGIApp:
    """`app`, with a span and an event for each request that it answers."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == ScopeType.HTTP  # the server takes nothing else
        began, status = perf_counter(), _LEFT

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        request_id = request_id_of(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        outer = REQUEST_ID.set(request_id)
        with tracer.span(Serving(method, scope["headers"])):
            try:
                await app(scope, receive, watched)
            finally:
                caller: Caller | None = scope["state"].get("caller")
                telemetry.emit(
                    RequestAnswered(
                        request_id=request_id,
                        method=method,
                        route=scope.get("path_template"),
                        status=status,
                        duration_s=perf_counter() - began,
                        scheme=scope["scheme"],
                        code=scope["state"].get("problem_code"),
                        tenant_id=caller.tenant_id if caller else None,
                    )
                )
                REQUEST_ID.reset(outer)

    return answer
