"""Who follows a request from step to step, through all that is done for it."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

from textllm_core.steps import Step


class Tracer(Protocol):
    """Follows. It changes nothing for whoever does the work, and a step within another is part of it."""

    def span(self, step: Step) -> AbstractContextManager[None]:
        """The block is this step, also in the tasks that it starts; what it raises passes.

        Facts that `Telemetry.emit` is told within the block are about it.
        """
        ...

    def outgoing(self) -> Mapping[str, str]:
        """Headers that tell another service which step it is called in; none where nobody follows.

        Source: W3C Trace Context, unless the operator names other formats.
        """
        ...
