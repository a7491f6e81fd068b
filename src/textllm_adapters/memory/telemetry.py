"""Telemetry that keeps all it hears, for tests."""

from dataclasses import dataclass, field

from textllm_core.events import Event


@dataclass(frozen=True, slots=True)
class MemoryTelemetry:
    """All events, oldest first."""

    events: list[Event] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Keeps `Telemetry.emit`."""
        self.events.append(event)
