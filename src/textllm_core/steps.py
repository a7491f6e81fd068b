"""Stretches of work, for whoever traces them. They hold ids and names, and never what anybody said."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from msgspec import Struct

from textllm_core.usage import Kind


class Serving(Struct, frozen=True):
    """A shell answers a request.

    Args:
        method: "other" where no route takes it.
        headers: of the request, names in lower case; they may tell whose trace it belongs to.
    """

    method: str
    headers: Iterable[tuple[bytes, bytes]]


class Admitting(Struct, frozen=True):
    """A turn is checked, and money reserved for it."""

    kind: Kind


class Asking(Struct, frozen=True):
    """The provider is called, until its reply ends."""

    model: str


class Settling(Struct, frozen=True):
    """What an exchange came to is found out and written down."""

    response_id: str


Step = Serving | Admitting | Asking | Settling
"""A part of the way of a turn, which a `Tracer` may time."""


_NOTHING: Final = nullcontext()


class Untraced:
    """A `Tracer` that follows nothing."""

    def span(self, step: Step) -> AbstractContextManager[None]:  # noqa: ARG002 - nobody is told
        """Keeps `Tracer.span`."""
        return _NOTHING

    def outgoing(self) -> Mapping[str, str]:
        """Keeps `Tracer.outgoing`."""
        return {}


UNTRACED: Final = Untraced()
