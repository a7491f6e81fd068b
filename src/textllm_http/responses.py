"""Responses whose body is at hand, without what the framework's own can do besides: a third of a turn's HTTP."""

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from litestar.types import Receive, Scope, Send

from textllm_core.wire import to_json

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_WITHOUT_BODY: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


class WholeResponse:
    """An ASGI response. A text is said to be UTF-8; a header given here is sent as it is."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(
        self,
        body: bytes = b"",
        *,
        status_code: int = HTTPStatus.OK,
        headers: Mapping[str, str] = _NONE,
        media_type: str = "application/json",
    ) -> None:
        self._body, self._status = body, int(status_code)
        self._headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        if status_code not in _WITHOUT_BODY:
            content_type = f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type
            self._headers += [
                (b"content-type", content_type.encode()),
                (b"content-length", str(len(body)).encode()),
            ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's form
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


def json_response(
    value: object, *, status_code: int = HTTPStatus.OK, headers: Mapping[str, str] = _NONE
) -> WholeResponse:
    """A record, or a mapping of such, as JSON."""
    return WholeResponse(to_json(value), status_code=status_code, headers=headers)
