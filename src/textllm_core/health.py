"""Whether the service can do its work."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from textllm_core.erasing import absent
from textllm_core.events import ErasuresWaiting
from textllm_core.ports.health_probe import HealthProbe


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Ask every probe at once."""

    probes: Sequence[HealthProbe]

    async def __call__(self) -> Mapping[str, str | None]:
        """By probe: None where it answers, else what is wrong."""
        answers = await asyncio.gather(*(probe.check() for probe in self.probes))
        return dict(zip((probe.name for probe in self.probes), answers, strict=True))


def health_report(
    checks: Mapping[str, Mapping[str, object]], *, status: str, at: datetime, uptime_s: int
) -> Mapping[str, object]:
    """How the engine and its parts do, as every door tells it."""
    return {
        "status": status,
        "timestamp": at,
        "uptime": {"uptime_seconds": uptime_s, "uptime_human": str(timedelta(seconds=uptime_s))},
        "checks": checks,
    }


def told_erasures(waiting: ErasuresWaiting, *, hides_numbers: bool = False) -> Mapping[str, object]:
    """Whether providers confirm what is to be erased there; how many do not, and why, only where that may be told."""
    status = {"status": "failing" if waiting.failing or waiting.absent else "healthy"}
    if hides_numbers:
        return status
    why = {"message": absent(waiting.absent)} if waiting.absent else {}
    return {**status, "pending": waiting.pending, "failing": waiting.failing, **why}


def told_checks(faults: Mapping[str, str | None], *, hides_faults: bool = False) -> dict[str, Mapping[str, object]]:
    """What `CheckHealth` found, part by part; what is wrong with one only where that may be told."""
    return {
        name: {"status": "healthy" if fault is None else "unhealthy"}
        | ({} if fault is None or hides_faults else {"message": fault})
        for name, fault in faults.items()
    }
