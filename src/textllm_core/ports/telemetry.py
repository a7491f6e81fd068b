"""Who is told what happens, to count it or to log it."""

from typing import Protocol

from textllm_core.events import Event


class Telemetry(Protocol):
    """Listens. What it does with an event changes nothing for whoever states it."""

    def emit(self, event: Event) -> None:
        """Take note of a fact. Never raises, and never waits for anything slower than a local file."""
        ...
