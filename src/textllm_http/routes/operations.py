"""What operators ask: is it alive, is it ready, what is in force. Never a secret."""

from typing import Any

from litestar import Request, route
from litestar.enums import HttpMethod
from litestar.response.base import ASGIResponse
from litestar.types import ASGIApp

from textllm_core.application import TextLLM
from textllm_core.wire import to_json
from textllm_http.auth import open_to_all, service_caller

_READ = [HttpMethod.GET, HttpMethod.HEAD]
_RETRY_AFTER_S = 5


@route("/health/live", http_method=_READ, guards=[open_to_all])
async def live() -> ASGIApp:
    """The process answers."""
    return ASGIResponse(body=to_json({"status": "alive"}))


@route("/health/ready", http_method=_READ, guards=[open_to_all])
async def ready(request: Request[Any, Any, Any]) -> ASGIApp:
    """Whether all that the service stands on answers; 503 where something does not, or the service is stopping.

    What is wrong is told only where no keys are required: here anyone may ask.
    """
    if request.app.state.is_stopping:
        return _not_ready({"status": "stopping"})
    textllm: TextLLM = request.app.state.textllm
    faults = await textllm.check_health()
    hides_faults = request.app.state.requires_keys
    checks = {
        name: {"status": "healthy" if fault is None else "unhealthy"}
        | ({} if fault is None or hides_faults else {"message": fault})
        for name, fault in faults.items()
    }
    if any(fault is not None for fault in faults.values()):
        return _not_ready({"status": "not_ready", "checks": checks})
    return ASGIResponse(body=to_json({"status": "ready", "checks": checks}))


def _not_ready(body: dict[str, object]) -> ASGIApp:
    return ASGIResponse(body=to_json(body), status_code=503, headers={"Retry-After": str(_RETRY_AFTER_S)})


@route("/config", http_method=_READ, guards=[service_caller])
async def config(request: Request[Any, Any, Any]) -> ASGIApp:
    """The operator's settings in force, without secrets."""
    return ASGIResponse(body=to_json({"config": request.app.state.public_config}))
