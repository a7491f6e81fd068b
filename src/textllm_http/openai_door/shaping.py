"""Parts of a body that have a shape of their own."""

from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from textllm_core.errors import InvalidRequestError
from textllm_core.wire import to_json
from textllm_http.openai_door.bounds import refuse_deep
from textllm_http.requests import JsonBody

_Shape = TypeVar("_Shape")


def shaped_at(shape: JsonBody[_Shape], value: Mapping[str, Any], place: str) -> _Shape:
    """A part of a body, checked; `place`: where it stands.

    Raises:
        InvalidRequestError: it is nested too deep, or has not this shape.
    """
    refuse_deep(dict(value), place)
    try:
        return shape.shaped(to_json(value))
    except InvalidRequestError as refusal:
        field, says = refusal.errors[0] if refusal.errors else ("", str(refusal))
        raise InvalidRequestError.of(f"{place}.{field}" if field else place, says) from refusal


def host_of(url: str) -> str | None:
    """The host in the address of a page; None: it names none, or is no such address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return parts.hostname or None if parts.scheme in ("https", "http") else None
