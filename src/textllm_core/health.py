"""Whether the service can do its work."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from textllm_core.ports.health_probe import HealthProbe


@dataclass(frozen=True, slots=True)
class CheckHealth:
    """Ask every probe at once."""

    probes: Sequence[HealthProbe]

    async def __call__(self) -> Mapping[str, str | None]:
        """By probe: None where it answers, else what is wrong."""
        answers = await asyncio.gather(*(probe.check() for probe in self.probes))
        return dict(zip((probe.name for probe in self.probes), answers, strict=True))
