"""Query parameters as OpenAI's clients send them: those that nobody knows are ignored, lists are `name[]`."""

from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from litestar import Request

from textllm_core.errors import InvalidRequestError
from textllm_http.requests import QueryString

T = TypeVar("T")


class DoorQuery(QueryString[T]):
    """Query parameters of one shape; a field that is a list is named `name[]`, and taken as `name`, too.

    Args:
        kind: a Struct whose fields all have defaults.
    """

    def read(self, request: Request[Any, Any, Any]) -> T:
        """
        Raises:
            InvalidRequestError: the value of one that is known is empty, or has another type, or NUL.
        """
        values: dict[str, Any] = {}
        query = request.scope["query_string"].decode("latin-1")
        for name, value in parse_qsl(query, keep_blank_values=True) if query else ():
            if "\0" in value:
                raise InvalidRequestError.of("query", "must not contain the character NUL")
            if not value and {name, f"{name.removesuffix('[]')}[]"} & self.must_be.keys():
                raise InvalidRequestError.of(name, "must not be empty; leave it out instead")
            if (listed := f"{name.removesuffix('[]')}[]") in self.must_be:
                values.setdefault(listed, []).append(value)
            elif name in self.must_be:
                values[name] = value
        return self.converted(values)


class _Nothing(msgspec.Struct):
    pass


ANY_QUERY: DoorQuery[_Nothing] = DoorQuery(_Nothing)
"""For routes that have none: whatever comes is ignored."""
