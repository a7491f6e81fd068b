"""States of each request how it was answered, whatever answered it: a handler, a guard, or the router."""

import asyncio
from time import perf_counter
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from textllm_core.errors import ServiceUnavailableError
from textllm_core.events import REQUEST_ID, RequestAnswered
from textllm_core.ports.telemetry import Telemetry
from textllm_core.ports.tracer import Tracer
from textllm_core.steps import Serving
from textllm_core.tenancy import Caller
from textllm_http.middleware import request_id_of
from textllm_http.refusals import refusal_of
from textllm_http.worker_state import Unanswered

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS"})  # that any route takes
_LEFT: Final = 499  # as nginx has it


def observed(app: ASGIApp, telemetry: Telemetry, tracer: Tracer, unanswered: Unanswered) -> ASGIApp:
    """`app`, with a span and an event for each request that it answers."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == ScopeType.HTTP  # the server takes nothing else
        began, status = perf_counter(), _LEFT
        task = asyncio.current_task()
        assert task is not None

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                unanswered.tasks.discard(task)
                status = message["status"]
            await send(message)

        request_id = request_id_of(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        outer = REQUEST_ID.set(request_id)
        with tracer.span(Serving(method, scope["headers"])):
            unanswered.tasks.add(task)
            try:
                await app(scope, receive, watched)
            except asyncio.CancelledError:
                if not unanswered.is_refused(task):
                    raise
                task.uncancel()
                await refusal_of(scope, _stopping())(scope, receive, watched)
            finally:
                unanswered.tasks.discard(task)
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


def _stopping() -> ServiceUnavailableError:
    return ServiceUnavailableError("The service is shutting down; send this request again.")
