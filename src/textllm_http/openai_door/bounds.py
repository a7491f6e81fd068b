"""What a request may have at most, so that a look at it costs no more than any conversation does."""

from collections.abc import Iterable, Sized
from typing import Final

from textllm_core.errors import InvalidRequestError
from textllm_core.records.tools import MAX_TOOLS

_MOST_PARTS: Final = 10_000  # of all messages; each costs some 10 µs
_DEEPEST: Final = 64  # levels, more than any schema of a function has, and less than any recursion can bear


def check_parts(contents: Iterable[object], *, place: str) -> None:
    """Refuse contents of messages that have too many parts together.

    Args:
        contents: of each message; one that is no list is one part.
    Raises:
        InvalidRequestError
    """
    if sum(len(content) for content in contents if isinstance(content, list)) > _MOST_PARTS:
        raise InvalidRequestError.of(place, f"may have {_MOST_PARTS} parts and calls at most")


def check_tools(tools: Sized | None) -> None:
    """
    Raises:
        InvalidRequestError: there are more than any model takes.
    """
    if tools is not None and len(tools) > MAX_TOOLS:
        raise InvalidRequestError.of("tools", f"may be {MAX_TOOLS} at most")


def refuse_deep(value: object, field: str) -> None:
    """
    Raises:
        InvalidRequestError: it is nested deeper than any schema is.
    """
    level = [value]
    for _ in range(_DEEPEST):
        level = [child for each in level if isinstance(each, dict | list) for child in _children(each)]
        if not level:
            return
    raise InvalidRequestError.of(field, f"must not be nested deeper than {_DEEPEST} levels")


def _children(of: dict[str, object] | list[object]) -> Iterable[object]:
    return of.values() if isinstance(of, dict) else of
