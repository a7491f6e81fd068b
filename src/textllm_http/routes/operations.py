"""What operators ask: is it well, is it ready, what is in force, what has it done. Never a secret."""

import asyncio
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from litestar import Request
from litestar.types import ASGIApp

from textllm_core.application import TextLLM
from textllm_core.errors import StorageUnavailableError
from textllm_http.auth import open_to_all, operator
from textllm_http.responses import WholeResponse, json_response
from textllm_http.routes.reading import reading
from textllm_http.services import services_of

_RETRY_AFTER_S = 5
_METRICS_TYPE = "text/plain; version=0.0.4"  # in UTF-8, which the response adds


@reading("/health", guards=[open_to_all])
async def health(request: Request[Any, Any, Any]) -> ASGIApp:
    """The whole report, of this process; 503 where something does not answer, or the service is stopping.

    What is wrong, and how full the disk is, is told only where no keys are required: here anyone may ask.
    """
    services = services_of(request)
    textllm, worker = services.textllm, services.worker
    faults = await textllm.check_health()
    is_well = not any(fault is not None for fault in faults.values())
    uptime_s = int(monotonic() - services.started_at)
    body: dict[str, object] = {
        "status": "stopping" if worker.is_stopping else "healthy" if is_well else "unhealthy",
        "timestamp": datetime.now(UTC),
        "uptime": {"uptime_seconds": uptime_s, "uptime_human": str(timedelta(seconds=uptime_s))},
        "checks": {
            "openai_api": {"status": "configured" if services.asks_openai else "not_configured"},
            **_checks(faults, hides_faults=services.requires_keys),
            **await _erasures(textllm, hides_numbers=services.requires_keys),
            "disk": {} if services.requires_keys else await asyncio.to_thread(_disk, services.data_dir),
        },
    }
    return json_response(body) if is_well and not worker.is_stopping else _not_ready(body)


async def _erasures(textllm: TextLLM, *, hides_numbers: bool) -> Mapping[str, Mapping[str, object]]:
    """Whether the provider confirms what is to be erased there; nothing where the database cannot tell."""
    try:
        waiting = await textllm.conversations.erase_at_provider.erasures.waiting()
    except StorageUnavailableError:
        return {}
    numbers = {} if hides_numbers else {"pending": waiting.pending, "failing": waiting.failing}
    return {"erasures": {"status": "failing" if waiting.failing else "healthy", **numbers}}


def _disk(folder: Path) -> Mapping[str, object]:
    try:
        return {"free_gb": round(shutil.disk_usage(folder).free / 1e9, 1)}
    except OSError:
        return {"status": "unknown"}


@reading("/health/live", guards=[open_to_all])
async def live() -> ASGIApp:
    """The process answers."""
    return json_response({"status": "alive"})


@reading("/health/ready", guards=[open_to_all])
async def ready(request: Request[Any, Any, Any]) -> ASGIApp:
    """Whether all that the service stands on answers; 503 where something does not, or the service is stopping.

    What is wrong is told only where no keys are required: here anyone may ask.
    """
    services = services_of(request)
    if services.worker.is_stopping:
        return _not_ready({"status": "stopping"})
    faults = await services.textllm.check_health()
    checks = _checks(faults, hides_faults=services.requires_keys)
    if any(fault is not None for fault in faults.values()):
        return _not_ready({"status": "not_ready", "checks": checks})
    return json_response({"status": "ready", "checks": checks})


def _checks(faults: Mapping[str, str | None], *, hides_faults: bool) -> dict[str, Mapping[str, object]]:
    return {
        name: {"status": "healthy" if fault is None else "unhealthy"}
        | ({} if fault is None or hides_faults else {"message": fault})
        for name, fault in faults.items()
    }


def _not_ready(body: dict[str, object]) -> ASGIApp:
    return json_response(body, status_code=503, headers={"Retry-After": str(_RETRY_AFTER_S)})


@reading("/config", guards=[operator])
async def config(request: Request[Any, Any, Any]) -> ASGIApp:
    """The operator's settings in force, without secrets."""
    return json_response({"config": services_of(request).public_config})


@reading("/metrics", guards=[operator])
async def metrics(request: Request[Any, Any, Any]) -> ASGIApp:
    """What the processes of this service have done since it started, and do now, for Prometheus."""
    return WholeResponse(await asyncio.to_thread(services_of(request).metrics), media_type=_METRICS_TYPE)
