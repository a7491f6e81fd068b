"""What operators ask: is it well, is it ready, what is in force, what has it done. Never a secret."""

import asyncio
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Final

from litestar import Request
from litestar.types import ASGIApp
from msgspec import UNSET, Meta, Struct, UnsetType

from textllm_core.application import TextLLM
from textllm_core.errors import StorageUnavailableError
from textllm_core.health import health_report, told_checks, told_erasures
from textllm_http.auth import open_to_all, operator
from textllm_http.openapi_examples import NOT_READY, READY
from textllm_http.openapi_shapes import Answer, Content, Operation, json_answer
from textllm_http.reading import reading
from textllm_http.responses import WholeResponse, json_response
from textllm_http.services import Services, services_of

_RETRY_AFTER_S = 5  # about as often as balancers ask anyway
_METRICS_TYPE = "text/plain; version=0.0.4"  # in UTF-8, which the response adds


class Health(Struct, frozen=True):
    """How the service does."""

    status: Annotated[str, Meta(description="How it stands.")]
    checks: Annotated[
        Mapping[str, Mapping[str, Any]] | UnsetType,
        Meta(description="By part of the service: `healthy` or `unhealthy`."),
    ] = UNSET


class ConfigInForce(Struct, frozen=True):
    """The operator's settings."""

    config: Annotated[Mapping[str, Any], Meta(description="By setting: its value, without secrets.")]


_ON_HEALTH: Final[Mapping[int, Answer]] = {
    200: json_answer("All that the service stands on answers.", Health, READY),
    503: json_answer("Something does not answer, or the service is stopping.", Health, NOT_READY, "Retry-After"),
}


@reading(
    "/health",
    guards=[open_to_all],
    described=Operation(
        tag="Operations",
        answers=_ON_HEALTH,
    ),
)
async def health(request: Request[Any, Any, Any]) -> ASGIApp:
    """Tell how the service and its parts do.

    What is wrong, and how full the disk is, is told only where no keys are required: here anyone may ask.
    """
    services = services_of(request)
    textllm, worker = services.textllm, services.worker
    faults = await textllm.check_health()
    is_well = not any(fault is not None for fault in faults.values())
    body = health_report(
        {
            "openai_api": {"status": "configured" if services.asks_openai else "not_configured"},
            **_providers(services),
            **told_checks(faults, hides_faults=services.requires_keys),
            **await _erasures(textllm, hides_numbers=services.requires_keys),
            "disk": {} if services.requires_keys else await asyncio.to_thread(_disk, services.data_dir),
        },
        status="stopping" if worker.is_stopping else "healthy" if is_well else "unhealthy",
        at=datetime.now(UTC),
        uptime_s=int(monotonic() - services.started_at),
    )
    return json_response(body) if is_well and not worker.is_stopping else _not_ready(body)


async def _erasures(textllm: TextLLM, *, hides_numbers: bool) -> Mapping[str, Mapping[str, object]]:
    """Whether the provider confirms what is to be erased there; nothing where the database cannot tell."""
    try:
        waiting = await textllm.conversations.erase_at_provider.waiting()
    except StorageUnavailableError:
        return {}
    return {"erasures": told_erasures(waiting, hides_numbers=hides_numbers)}


def _providers(services: Services) -> Mapping[str, Mapping[str, object]]:
    """Who answers, where they have names; no probe asks them anything."""
    if not services.providers:
        return {}
    names = {} if services.requires_keys else {"names": services.providers}
    return {"providers": {"status": "configured", **names}}


def _disk(folder: Path) -> Mapping[str, object]:
    try:
        return {"free_gb": round(shutil.disk_usage(folder).free / 1e9, 1)}
    except OSError:
        return {"status": "unknown"}


@reading(
    "/health/live",
    guards=[open_to_all],
    described=Operation(
        tag="Operations",
        answers={200: json_answer("It does.", Health, {"status": "alive"})},
    ),
)
async def live() -> ASGIApp:
    """Tell that the process answers."""
    return json_response({"status": "alive"})


@reading(
    "/health/ready",
    guards=[open_to_all],
    described=Operation(
        tag="Operations",
        says="What is wrong is told only where no keys are required.",
        answers=_ON_HEALTH,
    ),
)
async def ready(request: Request[Any, Any, Any]) -> ASGIApp:
    """Tell whether the service can do its work.

    What is wrong is told only where no keys are required: here anyone may ask.
    """
    services = services_of(request)
    if services.worker.is_stopping:
        return _not_ready({"status": "stopping"})
    faults = await services.textllm.check_health()
    checks = told_checks(faults, hides_faults=services.requires_keys)
    if any(fault is not None for fault in faults.values()):
        return _not_ready({"status": "not_ready", "checks": checks})
    return json_response({"status": "ready", "checks": checks})


def _not_ready(body: Mapping[str, object]) -> ASGIApp:
    return json_response(body, status_code=503, headers={"Retry-After": str(_RETRY_AFTER_S)})


@reading(
    "/config",
    guards=[operator],
    described=Operation(
        tag="Operations",
        answers={200: json_answer("The settings.", ConfigInForce, {"config": {"model": "gpt-4o", "auth": "required"}})},
    ),
)
async def config(request: Request[Any, Any, Any]) -> ASGIApp:
    """Show the operator's settings in force, without secrets."""
    return json_response(ConfigInForce(services_of(request).public_config))


@reading(
    "/metrics",
    guards=[operator],
    described=Operation(
        tag="Operations",
        answers={200: Answer(says="Counters and histograms.", content={"text/plain": Content({"type": "string"})})},
    ),
)
async def metrics(request: Request[Any, Any, Any]) -> ASGIApp:
    """Count for Prometheus."""
    return WholeResponse(await asyncio.to_thread(services_of(request).metrics), media_type=_METRICS_TYPE)
