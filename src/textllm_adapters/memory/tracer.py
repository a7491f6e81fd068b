"""A tracer that keeps all it follows, for tests."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

from textllm_core.steps import Step

_CURRENT: Final[ContextVar["Span | None"]] = ContextVar("current", default=None)


@dataclass(slots=True)
class Span:
    """A step: what it was part of, and whether and how it has ended."""

    step: Step
    parent: "Span | None"
    is_over: bool = False
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class MemoryTracer:
    """All spans, in the order in which they began."""

    spans: list[Span] = field(default_factory=list)

    @contextmanager
    def span(self, step: Step) -> Iterator[None]:
        """Keeps `Tracer.span`."""
        span = Span(step, _CURRENT.get())
        self.spans.append(span)
        outer = _CURRENT.set(span)
        try:
            yield
        except BaseException as error:
            span.error = error
            raise
        finally:
            span.is_over = True
            _CURRENT.reset(outer)

    def outgoing(self) -> Mapping[str, str]:
        """Keeps `Tracer.outgoing`; the header is the number of the step."""
        current = _CURRENT.get()
        return {} if current is None else {"x-span": str(self.spans.index(current))}
