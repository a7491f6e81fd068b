"""What looks after the engine: is it well, and what waits to be done."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from textllm_adapters.wiring.applications import open_conversations, open_textllm
from textllm_adapters.wiring.storage import open_blobs, open_database
from textllm_core.errors import StorageUnavailableError
from textllm_core.health import CheckHealth, health_report, told_checks, told_erasures

if TYPE_CHECKING:
    from textllm_adapters.settings import Settings
    from textllm_core.application import TextLLM


async def health(settings: Settings) -> Mapping[str, object]:
    """How the database, the store of files and what waits for the provider do; no model is asked.

    Raises:
        ConfigurationError: the settings do not allow it.
    """
    faults: dict[str, str | None] = {}
    checks: dict[str, Mapping[str, object]] = {}
    async with AsyncExitStack() as stack:
        try:
            from textllm_adapters.sql.health_probe import SqlHealthProbe

            engine = await open_database(stack, settings, patience_s=0.0)
            _, storage_probe = await open_blobs(stack, settings)
            faults |= await CheckHealth([SqlHealthProbe(engine), storage_probe])()
            manage = await stack.enter_async_context(open_conversations(settings))
            checks["erasures"] = told_erasures(await manage.erase_at_provider.waiting())
        except StorageUnavailableError as error:
            faults.setdefault("database", str(error))
    is_well = not any(fault is not None for fault in faults.values())
    asks_openai = settings.resolved_provider == "openai"
    return health_report(
        {
            "openai_api": {"status": "configured" if asks_openai else "not_configured"},
            **told_checks(faults),
            **checks,
            "disk": await asyncio.to_thread(_disk, settings),
        },
        status="healthy" if is_well else "unhealthy",
        at=datetime.now(UTC),
        uptime_s=0,
    )


def _disk(settings: Settings) -> Mapping[str, object]:
    folder = next(place for place in (settings.data_dir, *settings.data_dir.absolute().parents) if place.exists())
    return {"free_gb": round(shutil.disk_usage(folder).free / 1e9, 1)}


async def run_jobs(settings: Settings) -> Mapping[str, int]:
    """Do once what a server does from time to time; how much was done, by job.

    Raises:
        ConfigurationError, StorageUnavailableError
    """
    async with open_textllm(settings, grace_s=0) as textllm:
        return await jobs_of(textllm)


async def jobs_of(textllm: TextLLM) -> Mapping[str, int]:
    """As `run_jobs`, of what is open.

    Raises:
        StorageUnavailableError
    """
    settled = await textllm.reconcile()
    removed = await textllm.remove_expired()
    return {
        "settled": settled,
        "purged_conversations": removed["conversations"],
        **{f"removed_{kind}": count for kind, count in removed.items() if kind != "conversations"},
        "swept_files": await textllm.files.sweep(),
        "erased_at_provider": await textllm.conversations.erase_at_provider(),
    }
