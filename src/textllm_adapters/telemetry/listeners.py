"""Several listeners as one."""

import logging

from textllm_core.events import Event
from textllm_core.ports.telemetry import Telemetry

_logger = logging.getLogger("textllm")


class Listeners:
    """Tells each of its listeners, in order; one that fails keeps no other from hearing, and is logged."""

    def __init__(self, *listeners: Telemetry) -> None:
        self._listeners = listeners

    def emit(self, event: Event) -> None:
        """Keeps `Telemetry.emit`."""
        for listener in self._listeners:
            try:
                listener.emit(event)
            except Exception as defect:  # a full disk under the counters must not end a turn
                _logger.error("%s could not take note of an event", type(listener).__name__, exc_info=defect)
